"""Who may import whom, read off the source itself."""

import ast
import re
import sys
import tomllib
from fnmatch import fnmatch
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("schemas", "scanner", "jobs")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes):
    """Dotted names that import statements among `nodes` bring in."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def all_imports(path):
    return set(imported(ast.walk(tree_of(path))))


def of_the_house(path):
    return {name for name in all_imports(path) if name.split(".")[0] in PACKAGES}


LAYERS = {
    "schemas": ("schemas",),
    "scanner.weights": ("schemas", "scanner.weights"),
    "scanner.spectra": ("schemas", "scanner.spectra"),
    "scanner.sources": ("schemas", "scanner.sources"),
    "scanner.diagnosis": ("schemas", "scanner.weights", "scanner.diagnosis"),
    "scanner": ("schemas", "scanner"),
    "jobs.engine.ledger": ("schemas",),
    "jobs.hub": ("schemas", "jobs.hub"),
    "jobs.lake": ("schemas", "scanner.diagnosis", "scanner.place", "jobs.lake"),
    "jobs.engine": ("schemas", "scanner", "jobs.lake", "jobs.engine"),
    "jobs.verbs": ("schemas", "scanner", "jobs.lake", "jobs.engine", "jobs.verbs"),
    "jobs.verbs.demo": ("schemas", "jobs.hub", "jobs.lake", "jobs.engine", "jobs.verbs"),
    "jobs.verbs.studying": ("schemas", "jobs.studies", "jobs.verbs"),
    "jobs.studies": ("schemas", "scanner", "jobs.verbs.demo", "jobs.studies"),
    "jobs.bench": ("schemas", "scanner", "jobs.hub", "jobs.lake", "jobs.engine", "jobs.verbs", "jobs.bench"),
    "jobs.cli": ("schemas", "jobs"),
    "jobs": (),
}


def within(name, package):
    return name == package or name.startswith(package + ".")


def layer_of(module):
    return max((layer for layer in LAYERS if within(module, layer)), key=len)


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_one_way(module):
    allowed = LAYERS[layer_of(module)]
    bad = {name for name in of_the_house(MODULES[module]) if not any(within(name, one) for one in allowed)}
    assert not bad, f"{module} may import only {allowed}"


@pytest.mark.parametrize("layer", LAYERS)
def test_no_arrow_is_allowed_that_nobody_needs(layer):
    used = {name for module in MODULES if layer_of(module) == layer for name in of_the_house(MODULES[module])}
    arrows = [one for one in LAYERS[layer] if one != "schemas"]  # the nouns are everybody's
    assert not [one for one in arrows if not any(within(name, one) for name in used)]


def test_the_command_line_is_imported_by_nobody():
    outside = {module: path for module, path in MODULES.items() if not within(module, "jobs.cli")}
    assert not [
        module for module, path in outside.items() if any(within(n, "jobs.cli") for n in of_the_house(path))
    ]


def test_no_module_imports_itself_in_a_circle():
    graph = {module: of_the_house(path) & MODULES.keys() for module, path in MODULES.items()}
    assert set(TopologicalSorter(graph).static_order()) == graph.keys()


SITES = {
    "ray": ["jobs/engine/actors.py"],
    "duckdb": [
        "jobs/lake/decoding.py",
        "jobs/lake/duck.py",
        "jobs/lake/leaderboard.py",
        "jobs/lake/snapshot.py",
    ],
    "huggingface_hub": ["scanner/sources/hub.py"],
    "pyarrow": [
        "schemas/tables.py",
        "jobs/lake/store.py",
        "jobs/lake/reference.py",
        "jobs/verbs/output.py",
        "jobs/lake/compaction.py",
        "jobs/lake/decoding.py",
        "jobs/lake/merging.py",
        "jobs/lake/files.py",
        "jobs/lake/mergedfiles.py",
        "jobs/lake/words.py",
        "jobs/lake/halves.py",
        "jobs/lake/runs.py",
        "jobs/verbs/compacting.py",
        "jobs/verbs/forecast.py",
        "jobs/verbs/correlating.py",
        "jobs/verbs/explaining.py",
        "jobs/bench/run.py",
        "jobs/bench/lake.py",
        "jobs/verbs/studying.py",
    ],
    "matplotlib": ["jobs/verbs/plots.py", "jobs/studies/*.py"],
    "torch": [
        "scanner/spectra/symmetric.py",
        "scanner/spectra/device.py",
        "scanner/spectra/staging.py",
        "scanner/weights/tensors.py",
        "scanner/llama.py",
        "scanner/sources/memory.py",
        "jobs/verbs/scanning.py",
        "jobs/verbs/demo.py",
        "jobs/bench/peers.py",
        "jobs/bench/cases/spectra.py",
        "jobs/studies/nets.py",
        "jobs/studies/weightwatcher.py",
    ],
    "sklearn": ["jobs/studies/nets.py"],
    "starlette": ["jobs/hub/*.py"],
    "uvicorn": ["jobs/hub/*.py"],
    "numba": ["scanner/spectra/*.py"],
    "scipy": ["scanner/spectra/*.py", "scanner/diagnosis/correlation.py", "jobs/bench/peers.py"],
    "pydantic": ["schemas/config.py"],
    "safetensors": ["jobs/verbs/demo.py", "jobs/bench/synthetic.py", "jobs/bench/cases/models.py"],
    "rich": ["jobs/verbs/output.py", "jobs/engine/progress.py"],
    "filelock": ["jobs/lake/store.py"],
    "threadpoolctl": ["jobs/engine/worker.py", "jobs/bench/machine.py"],
    "powerlaw": ["scanner/spectra/opinion.py", "jobs/bench/peers.py"],
    "weightwatcher": ["jobs/studies/weightwatcher.py"],
    "pandas": [],
    "requests": [],
}


@pytest.mark.parametrize("library", SITES)
def test_a_heavy_library_has_its_places(library):
    users = [
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] == library for name in all_imports(path))
    ]
    strays = [user for user in users if not any(fnmatch(user, site) for site in SITES[library])]
    assert not strays
    assert not [site for site in SITES[library] if not any(fnmatch(user, site) for user in users)]


@pytest.mark.parametrize("module", [m for m in MODULES if within(m, "scanner") or within(m, "schemas")])
def test_no_heavy_library_at_the_top_of_the_pure_core(module):
    """What the pure core imports when it is imported costs little; torch waits for its call."""
    outside = {name.split(".")[0] for name in imported(tree_of(MODULES[module]).body)}
    assert not outside & {"torch", "ray", "duckdb", "pydantic", "powerlaw"}


def test_no_module_touches_the_network_but_the_hub_s_source_and_server():
    """Of the standard library too: sockets and HTTP clients have one home; a Ray cluster is knocked at."""
    clients = {"socket", "http", "urllib", "httpx", "aiohttp", "ftplib", "ssl"}
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if {name.split(".")[0] for name in all_imports(path)} & clients
    }
    assert not [
        user
        for user in users
        if not user.startswith(("scanner/sources/", "jobs/hub/", "jobs/engine/actors.py"))
    ]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_nothing_is_unpickled_evaluated_or_left_to_do(path):
    text = path.read_text(encoding="utf-8")
    for mark in ("TODO", "FIXME", "XXX", "HACK"):
        assert mark not in text
    calls = {
        node.func.id
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & {"print", "eval", "exec", "breakpoint", "input"}
    assert not {name.split(".")[0] for name in all_imports(path)} & {"pickle", "marshal", "shelve", "dill"}


def is_broad(handler):
    kind = handler.type
    return kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))


def reraises(handler):
    return isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None


def test_there_is_one_broad_except():
    """Cleaning up and raising again swallows nothing."""
    found = [
        str(path.relative_to(ROOT))
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and is_broad(node) and not reraises(node)
    ]
    assert sorted(found) == ["jobs/engine/worker.py"]


def test_every_module_says_what_it_is():
    assert not [module for module, path in MODULES.items() if not ast.get_docstring(tree_of(path))]


def test_every_third_party_import_is_a_dependency():
    """Tools of development are none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (needs for name, needs in project["optional-dependencies"].items() if name != "dev")
    named = {re.match(r"[\w-]+", need)[0] for needs in (project["dependencies"], *extras) for need in needs}
    aliases = {"annotated_types": "annotated-types", "yaml": "pyyaml", "sklearn": "scikit-learn"}
    outside = {name.split(".")[0] for path in FILES for name in all_imports(path)} - set(PACKAGES)
    assert {aliases.get(name, name) for name in outside - sys.stdlib_module_names} <= named
