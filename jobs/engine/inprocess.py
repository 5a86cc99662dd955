"""The executor without Ray: one job after the other in this process. For small scans, notebooks and tests."""

from collections import deque
from collections.abc import Sequence

from jobs.engine.worker import Worker, WorkerSettings
from schemas.events import Event, Job


class InProcess:
    """Runs jobs where it stands; `wait` does the work of one."""

    name = "local"

    def __init__(self, settings: WorkerSettings) -> None:
        self._worker = Worker(settings)
        self._jobs: deque[Job] = deque()
        self.workers = 1

    @property
    def free(self) -> int:
        """Jobs it can take now."""
        return 1 - len(self._jobs)

    def submit(self, job: Job) -> None:
        """Take a job; it runs in the next wait()."""
        self._jobs.append(job)

    def wait(self, timeout: float) -> Sequence[Event]:
        """Events of jobs that ended, after at most `timeout` seconds where none is under way."""
        return [self._worker.run(self._jobs.popleft())] if self._jobs else []

    def close(self) -> None:
        """Release the worker's connections."""
        self._worker.close()
