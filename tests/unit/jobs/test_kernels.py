"""Who scans for the first time is told why nothing seems to happen, and nobody else."""

import pytest

from jobs.engine import kernels


@pytest.fixture
def package(tmp_path):
    (tmp_path / "spectra" / "__pycache__").mkdir(parents=True)
    return tmp_path


def test_without_a_cache_kernels_are_missing(package):
    assert kernels.are_missing(package)
    (package / "spectra" / "__pycache__").rmdir()
    assert kernels.are_missing(package)


def test_with_a_cache_they_are_not(package):
    (package / "spectra" / "__pycache__" / "rootfree.solve-92.py311.nbi").touch()
    assert not kernels.are_missing(package)


def test_where_nothing_can_be_written_nothing_is_claimed(package, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert not kernels.are_missing(package)
