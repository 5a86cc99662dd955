"""A small real Hub over a local folder: for the demo, for networks without a Hub, and for tests.

The unmodified huggingface_hub client lists, reads and writes here. There are two ports: the hub, and a "CDN"
to which it redirects for LFS files with a signed, expiring URL, as the real one does. What a folder means is
in `jobs.hub.tree`, what is said of a repository in `jobs.hub.facts`, the replies in `jobs.hub.app`, writes in
`jobs.hub.writes`, faults made on purpose in `jobs.hub.faults`.
"""

import signal
import socket
import threading
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from jobs.hub.app import CdnApp, Desk, HubApp, rate_limit
from jobs.hub.faults import Fault, Gate, Wire
from jobs.hub.intake import Control, Writer
from jobs.hub.reply import Signer
from jobs.hub.tree import HubTree
from schemas.errors import ConfigError

LFS_SUFFIXES = (".safetensors", ".bin")
_GRACE_S = 1
_POLL_S = 0.005


class HubServer:
    """A Hub over the folder `root`, on two ports of `host`; a port of 0 takes a free one.

    Files that end in `lfs_suffixes` or are larger than `lfs_threshold` bytes are LFS files and are read
    through the CDN port. With `token`, writes need it and so do private and gated repositories; without,
    anyone who reaches the port may write and any token opens those. `signature_ttl` is the life of CDN URLs
    in seconds. `test_control` enables the request log and faults, in process and over HTTP.

    Raises:
        TargetError: `root` is not a folder.
        ConfigError: on start, a port is taken.
    """

    def __init__(
        self,
        root: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        cdn_port: int = 0,
        page_size: int = 1000,
        lfs_threshold: int = 100_000,
        lfs_suffixes: tuple[str, ...] = LFS_SUFFIXES,
        token: str | None = None,
        signature_ttl: float = 3600.0,
        test_control: bool = False,
    ) -> None:
        self.tree = HubTree(Path(root), lfs_threshold=lfs_threshold, lfs_suffixes=lfs_suffixes)
        self._host = host
        self._ports = (port, cdn_port)
        self._desk = Desk(self.tree, token)
        self._page_size = page_size
        self._test_control = test_control
        self._signer = Signer(signature_ttl)
        self._wire = Wire(keep_log=test_control)
        self._running: list[tuple[uvicorn.Server, threading.Thread]] = []
        self._bound = (0, 0)

    @property
    def endpoint(self) -> str:
        """URL of the hub, for HF_ENDPOINT or HfApi(endpoint=...); known once started."""
        return self._url(self._bound[0])

    @property
    def cdn_endpoint(self) -> str:
        """URL of the CDN port."""
        return self._url(self._bound[1])

    @property
    def log(self) -> list[dict[str, Any]]:
        """Requests so far: method, path, range, had_auth, port, on, status. Empty without test_control."""
        return list(self._wire.log)

    def clear(self) -> None:
        """Empty the request log and the fault queue."""
        self._wire.log.clear()
        self._wire.faults.clear()

    def fault(self, **knobs: Any) -> None:
        """Queue a fault; the knobs are those of `jobs.hub.faults.Fault`. Raises ConfigError on others."""
        if not self._test_control:
            raise ConfigError("faults need HubServer(test_control=True)")
        self._wire.faults.append(Fault.parse(knobs))

    def start(self) -> None:
        """Bind both ports and answer requests in background threads. Raises ConfigError."""
        self._wire.stopping.clear()
        hub_socket = _bind(self._host, self._ports[0])
        try:
            cdn_socket = _bind(self._host, self._ports[1])
        except ConfigError:
            hub_socket.close()
            raise
        self._bound = (hub_socket.getsockname()[1], cdn_socket.getsockname()[1])
        control = Control(self._wire).routes() if self._test_control else []
        hub = HubApp(
            self._desk,
            self._signer,
            cdn_port=self._bound[1],
            page_size=self._page_size,
            routes=[*control, *Writer(self._desk).routes()],
        )
        self._run(Gate(hub, self._wire, "hub", rate_limit), hub_socket)
        self._run(Gate(CdnApp(self.tree, self._signer), self._wire, "cdn", lambda _: {}), cdn_socket)

    def stop(self) -> None:
        """Stop both ports within about a second; downloads that still run are cut. Idempotent."""
        self._wire.stopping.set()
        for server, _ in self._running:
            server.should_exit = True
        for _, thread in self._running:
            thread.join()
        self._running.clear()

    def serve_forever(self) -> None:
        """Serve until SIGINT or SIGTERM, then stop. Only from the main thread. Raises ConfigError."""
        asked = threading.Event()

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            asked.set()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if not self._running:
                self.start()
            asked.wait()
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def __enter__(self) -> "HubServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _url(self, port: int) -> str:
        return f"http://[{self._host}]:{port}" if ":" in self._host else f"http://{self._host}:{port}"

    def _run(self, app: ASGIApp, listener: socket.socket) -> None:
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        thread = threading.Thread(target=server.run, args=([listener],), name="hubserver", daemon=True)
        thread.start()
        self._running.append((server, thread))
        while not server.started and thread.is_alive():
            time.sleep(_POLL_S)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"can't listen on {host} port {port}: {error.strerror}; choose another port"
        ) from error
