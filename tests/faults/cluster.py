"""Engines, and service nodes that share one, of which the first stands behind a proxy."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from faults.proxy import Proxy
from faults.recorder import CREDENTIAL, Node, Recorder
from postgres import Postgres
from redis_server import Redis
from service import KEY, ROOT, Service

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


class Engine(Protocol):
    """What the nodes share."""

    name: str
    #: Seconds until every node knows of a revocation.
    bound: float
    #: Of its server; 0 where it has none.
    port: int
    #: Who takes changes, where the nodes do not.
    writers: Sequence[Node]

    def url(self, port: int) -> str:
        """What a node that reaches the server at `port` has for DATABASE_URL."""
        ...

    def start(self) -> None:
        """Start its server, which may have been killed."""
        ...

    def kill(self) -> None:
        """kill -9, all its processes."""
        ...

    def signal(self, number: signal.Signals) -> None:
        """To all its processes."""
        ...


class SQLite:
    """One file, in `directory`."""

    name = "sqlite"
    bound = 0.0
    port = 0
    writers: Sequence[Node] = ()

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def url(self, port: int) -> str:
        return f"sqlite:///{self.directory}/tokens.db"

    def start(self) -> None:
        pass

    def kill(self) -> None:
        raise NotImplementedError

    def signal(self, number: signal.Signals) -> None:
        raise NotImplementedError


class Central(SQLite):
    """A service with its list in `directory`, of which the nodes keep copies."""

    name = "copy"
    bound = float(BOUND)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.service = Service(directory, {**SETTINGS, "DATABASE_URL": super().url(0)}, credential=CREDENTIAL)

    def url(self, port: int) -> str:
        return f"http://faults:{CREDENTIAL}@127.0.0.1:{port}"

    def start(self) -> None:
        self.service.__enter__()
        self.port = self.service.port
        self.writers = [Node(self.port)]

    def kill(self) -> None:
        self.service.kill()

    def signal(self, number: signal.Signals) -> None:
        self.service.process.send_signal(number)


class OnPostgres:
    """A server that is there, with no list."""

    writers: Sequence[Node] = ()

    def __init__(self, server: Postgres, bound: int) -> None:
        self._server = server
        self.name = "postgres" if bound else "postgres, asked"
        self.bound = float(bound)
        self.port = server.port

    def url(self, port: int) -> str:
        return self._server.url_of(port)

    def start(self) -> None:
        if self._server.process is None:
            self._server.start()

    def kill(self) -> None:
        self._server.kill()

    def signal(self, number: signal.Signals) -> None:
        self._server.signal(number)


class OnRedis:
    """A server of its own, which writes each change to the disk before it acknowledges it."""

    writers: Sequence[Node] = ()

    def __init__(self, directory: Path, bound: int, options: str = "") -> None:
        self._options = options
        self._server = Redis(directory, "appendonly yes", "appendfsync always")
        self.name = "redis" if bound else "redis, asked"
        self.bound = float(bound)
        self.port = self._server.port
        self._is_new = True
        self.kill, self.signal = self._server.kill, self._server.signal

    def url(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}/0{self._options}"

    def start(self) -> None:
        self._server.start()
        if self._is_new:
            create_list(self._server.url)
        self._is_new = False


@dataclass
class Cluster:
    """Two nodes on one engine; `first` are settings of the one behind the proxy."""

    engine: Engine
    directory: Path
    first: dict[str, str] = field(default_factory=dict)
    run_as: tuple[str, ...] = ()

    def __enter__(self) -> "Cluster":
        with ExitStack() as opened:
            self.proxy = opened.enter_context(Proxy(self.engine.port))
            self.services = [
                self._service(self.proxy.port, **self.first),
                self._service(self.engine.port),
            ]
            for service in self.services:
                opened.enter_context(service)
            self._opened = opened.pop_all()
        ours = [Node(service.port, self.engine.bound, not self.engine.writers) for service in self.services]
        self.nodes = [*ours, *self.engine.writers]
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    def _service(self, port: int, **settings: str) -> Service:
        copied = {"REVOCATION_STALENESS_SECONDS": f"{self.engine.bound:.0f}"}
        settings = {**SETTINGS, "DATABASE_URL": self.engine.url(port), **copied, **settings}
        return Service(self.directory, settings, credential=CREDENTIAL, run_as=self.run_as)

    def recorder(self, **options: Any) -> Recorder:
        return Recorder(self.nodes, **options)


class Shifted:
    """A clock that is off, for a service that has these `settings`."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        (folder / "sitecustomize.py").write_text(_SHIFT)
        self._file = folder / "shift"
        self.settings = {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
        self.step(seconds)

    def step(self, seconds: float) -> None:
        """Be off by so many seconds from now on."""
        draft = self._file.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self._file)


def workers(service: Service) -> list[int]:
    """The process ids of a service's workers, two of which there must be."""
    parent = service.process.pid
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        ours = [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if len(ours) == 2:
            return ours
        time.sleep(0.1)
    raise AssertionError(service.log)
