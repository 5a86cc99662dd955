"""Who scans for the first time is told why nothing seems to happen, and nobody else."""

import pytest

from jobs.cli.firstuse import kernels_are_missing


@pytest.fixture
def package(tmp_path):
    (tmp_path / "__pycache__").mkdir()
    return tmp_path


def test_without_a_cache_kernels_are_missing(package):
    assert kernels_are_missing(package)
    (package / "__pycache__").rmdir()
    assert kernels_are_missing(package)


def test_with_a_cache_they_are_not(package):
    (package / "__pycache__" / "rootfree.solve-92.py311.nbi").touch()
    assert not kernels_are_missing(package)


def test_where_nothing_can_be_written_nothing_is_claimed(package, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert not kernels_are_missing(package)
