"""A worker holds the BLAS to one thread while it lives, and no longer; one elsewhere is told of the hub."""

import numpy as np
from safetensors.numpy import save_file
from threadpoolctl import ThreadpoolController, threadpool_limits

from jobs.engine.actors import worker_environment
from jobs.engine.worker import Worker, WorkerSettings
from schemas.config import ScanConfig, WorkLimits
from schemas.events import PinJob, PlanJob, Scanned, UnitJob
from schemas.work import Target


def threads_of_blas():
    pools = ThreadpoolController().select(user_api="blas").info()
    return {pool["num_threads"] for pool in pools}


def test_a_unit_runs_on_one_thread_of_the_blas_and_the_rest_is_given_back(tmp_path):
    weights = np.random.default_rng(0).standard_normal((60, 40)).astype(np.float32)
    save_file({"layer.weight": weights}, tmp_path / "model.safetensors")
    target = Target(repo_id="acme/one", root=str(tmp_path))
    worker = Worker(WorkerSettings(config=ScanConfig(), limits=WorkLimits()))
    with threadpool_limits(limits=2, user_api="blas"):
        pinned = worker.run(PinJob(target))
        planned = worker.run(PlanJob(target, pinned.repository))
        assert threads_of_blas() == {2}
        for unit in planned.plan.units:
            assert isinstance(worker.run(UnitJob(target, unit)), Scanned)
        assert threads_of_blas() == {1}
        worker.close()
        assert threads_of_blas() == {2}


def test_workers_elsewhere_are_told_of_the_hub(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    assert worker_environment()["HF_ENDPOINT"] == "http://hub.example"
    monkeypatch.delenv("HF_ENDPOINT")
    assert "HF_ENDPOINT" not in worker_environment()
