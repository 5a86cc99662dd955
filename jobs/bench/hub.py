"""A loopback hub in a process of its own, whose storage sends at a given rate."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

from jobs.verbs.demo import reach_loopback

_EVERY = 1 << 30


class ThrottledHub:
    """Serves the models under `root`; as a context manager it ends its process."""

    def __init__(self, root: Path) -> None:
        reach_loopback()
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(root, far), daemon=True)
        self._process.start()
        self.endpoint: str = self._pipe.recv()

    def throttle(self, bytes_a_second: float | None) -> None:
        """Send the bodies of weight files at this rate from now on; None is as fast as it goes."""
        self._pipe.send(("rate", bytes_a_second))
        self._pipe.recv()

    def __enter__(self) -> "ThrottledHub":
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.send(("stop", None))
        self._process.join()


def _serve(root: Path, pipe: Connection) -> None:
    from jobs.hub.server import HubServer

    with HubServer(root, test_control=True) as server:
        pipe.send(server.endpoint)
        while (order := pipe.recv())[0] == "rate":
            server.clear()
            if order[1] is not None:
                server.fault(match=".safetensors", on="cdn", method="GET", rate=order[1], count=_EVERY)
            pipe.send(None)
