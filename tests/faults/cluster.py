"""Engines, and two nodes that share an engine. The first node reaches it through a proxy."""

import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from faults.proxy import Proxy
from faults.recorder import CREDENTIAL, Node
from support.clock import HANG, eventually
from support.postgres import Postgres
from support.redis_server import Redis
from support.service import KEY, ROOT, Service

from signer.stores.opening import create_list

#: Seconds that copies may be old.
BOUND = 1
SETTINGS = {"SECRET_KEY": KEY, "AUDIT_LOG": "off", "LOG_LEVEL": "error"}
_SHIFT = """
import pathlib
import time

real = time.time
time.time = lambda: real() + float(pathlib.Path(__file__).with_name("shift").read_text())
"""


class Engine:
    """What the nodes share: here an SQLite file in `directory`, which has no server."""

    name = "sqlite"
    #: Seconds until every node knows of a revocation.
    bound = 0
    #: The port of its server.
    port = 0
    #: The service that makes the changes, if the nodes do not.
    writers: Sequence[Node] = ()

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def url(self, port: int) -> str:
        """The DATABASE_URL of a node that reaches the server at `port`."""
        return f"sqlite:///{self.directory}/tokens.db"

    def start(self) -> None:
        """Start its server, for the first time or after kill()."""

    def kill(self) -> None:
        """End all its processes with kill -9."""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""


class Central(Engine):
    """A service with its list in a file. The nodes keep copies of the list."""

    name = "copy"
    bound = BOUND

    def start(self) -> None:
        if not self.port:
            settings = {**SETTINGS, "DATABASE_URL": super().url(0)}
            self.service = Service(self.directory, settings, credential=CREDENTIAL)
        self.service.__enter__()
        self.port = self.service.port
        self.writers = [Node(self.port)]

    def url(self, port: int) -> str:
        return f"http://faults:{CREDENTIAL}@127.0.0.1:{port}"

    def kill(self) -> None:
        self.service.kill()

    def signal(self, number: signal.Signals) -> None:
        self.service.process.send_signal(number)


class OnPostgres(Engine):
    """A PostgreSQL server that is already running, without a list."""

    def __init__(self, server: Postgres, bound: int) -> None:
        self._server = server
        self.name = "postgres" if bound else "postgres, asked"
        self.bound = bound
        self.port = server.port
        self.kill, self.signal, self.url = server.kill, server.signal, server.url_of  # type: ignore[method-assign]

    def start(self) -> None:
        if self._server.process is None:
            self._server.start()


class OnRedis(Engine):
    """A Redis server that writes each change to the disk before it acknowledges it, unless `lines` of its
    configuration say otherwise."""

    def __init__(self, directory: Path, bound: int, options: str = "", lines: Sequence[str] = ()) -> None:
        self._options = options
        self._server = Redis(directory, "appendonly yes", "appendfsync always", *lines)
        self.name = "redis" if bound else "redis, asked"
        self.bound = bound
        self.kill, self.signal = self._server.kill, self._server.signal  # type: ignore[method-assign]

    def url(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0{self._options}"

    def start(self) -> None:
        self._server.start()
        if not self.port:
            create_list(self._server.url)
        self.port = self._server.port


@dataclass
class Cluster:
    """Two nodes on one engine. The first has this number of workers, and a clock that can be wrong."""

    engine: Engine
    directory: Path
    workers: int = 1
    run_as: tuple[str, ...] = ()

    def __enter__(self) -> "Cluster":
        (self.directory / "sitecustomize.py").write_text(_SHIFT)
        self.shift(0)
        first = {
            "PYTHONPATH": f"{self.directory}{os.pathsep}{ROOT}",
            "WEB_CONCURRENCY": str(self.workers),
        }
        with ExitStack() as opened:
            self.proxy = opened.enter_context(Proxy(self.engine.port))
            self.services = [
                self._service(0, self.proxy.port, first),
                self._service(1, self.engine.port, {}),
            ]
            with ThreadPoolExecutor() as pool:
                list(pool.map(opened.enter_context, self.services))
            self._opened = opened.pop_all()
        ours = [Node(service.port, self.engine.bound, not self.engine.writers) for service in self.services]
        self.nodes = [*ours, *self.engine.writers]
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def shift(self, seconds: float) -> None:
        """Set the clock of the first node this many seconds ahead or back, from now on."""
        draft = self.directory / "shift.new"
        draft.write_text(str(seconds))
        draft.replace(self.directory / "shift")

    def way(self, node: int, port: int) -> tuple[str, tuple[str, ...]]:
        """The DATABASE_URL of a node, 0 or 1, that reaches the engine at `port`, and the command that runs
        the node."""
        return self.engine.url(port), self.run_as

    def _service(self, node: int, port: int, more: dict[str, str]) -> Service:
        url, run_as = self.way(node, port)
        ours = {
            "DATABASE_URL": url,
            "REVOCATION_STALENESS_SECONDS": str(self.engine.bound),
        }
        settings = {**SETTINGS, **ours, **more}
        return Service(self.directory, settings, credential=CREDENTIAL, run_as=run_as)


def workers(service: Service) -> list[int]:
    """The process ids of a service's workers, once there are two."""
    parent = service.process.pid
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline:
        found = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        ours = [pid for pid in found if b"spawn_main" in _command(pid)]
        if len(ours) == 2:
            return ours
        time.sleep(0.1)
    raise AssertionError(service.log)


def put_to_sleep(pid: int, seconds: float) -> None:
    """Send SIGSTOP, and SIGCONT after this time."""
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def kill_parent(service: Service) -> None:
    """End only the supervisor, with kill -9. Return when its workers have ended, too."""
    orphans = workers(service)
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait(HANG)
    eventually(lambda: not any(map(_command, orphans)))


def _command(pid: int) -> bytes:
    """The command line of a process; empty if it has ended but was not yet waited for."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
