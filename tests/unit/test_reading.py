"""A thread reads ahead where reading waits or another device does the work, and nowhere else."""

import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from scanner import reading
from scanner.planning import plan_repository
from scanner.sources.local import LocalSource
from schemas.config import ScanConfig


class Noted(LocalSource):
    """A folder that waits or not, and notes who reads it."""

    def __init__(self, root, waits=False):
        super().__init__(root)
        self.readers, self._waits = set(), waits

    def waits(self, file, spans):
        return self._waits

    def stream(self, file, spans):
        for buffer in super().stream(file, spans):
            self.readers.add(threading.current_thread().name.partition("_")[0])
            yield buffer


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    save_file(
        {f"fc{k}.weight": rng.standard_normal((8, 8)) for k in range(3)}, tmp_path / "model.safetensors"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("waits", "device", "least", "reader"),
    [
        (False, "cpu", 1, "MainThread"),
        (True, "cpu", 1, "prefetch"),
        (False, "cuda", 1, "prefetch"),
        (True, "cuda", 1 << 20, "MainThread"),
    ],
)
def test_who_reads(folder, monkeypatch, waits, device, least, reader):
    monkeypatch.setattr(reading, "READ_AHEAD_FROM", least)
    source = Noted(folder, waits)
    plan = plan_repository(source, source.repository("owner/name"), ScanConfig())
    source.readers.clear()
    jobs = reading.streamed(source, plan.live, source, device)
    assert [job.ref.tensor.name for job in jobs] == ["fc0.weight", "fc1.weight", "fc2.weight"]
    assert source.readers == {reader}
