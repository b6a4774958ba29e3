"""Engines by name, and the table with the result of each fault."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from faults.cluster import BOUND, Central, Cluster, Engine, OnPostgres, OnRedis, workers
from faults.recorder import Recorder
from support.postgres import Postgres

# Processes are found and limited with functions of Linux.
collect_ignore_glob = [] if sys.platform == "linux" else ["test_*"]
#: Used as `with during(cluster, "what happens") as recorder`.
During = Callable[..., AbstractContextManager[Recorder]]
SERVERS = ["copy", "postgres", "redis"]
#: Engines of which no copies are kept.
ASKED = ["postgres, asked", "redis, asked"]
#: Every kind of engine, and both ways to use one: for tests that are not about the connection to it, and for
#: those that are.
EVERY = ["sqlite", "copy", "postgres, asked", "redis"]
WIRED = ["copy", "postgres", "redis, asked"]


@contextmanager
def opened(name: str, folder: Path) -> Iterator[Engine]:
    """The engine of this name, started and with an empty list."""
    bound = 0 if name in ASKED else BOUND
    with ExitStack() as stack:
        engine = Engine(folder)
        if name == "copy":
            engine = Central(folder)
        elif name.startswith("postgres"):
            server = Postgres()
            stack.callback(server.remove)
            engine = OnPostgres(server, bound)
        elif name.startswith("redis"):
            engine = OnRedis(folder, bound)
        engine.start()
        stack.callback(engine.kill)
        yield engine


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine in the test's parameter."""
    with opened(request.param, tmp_path_factory.mktemp("engine")) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, for tests that leave them intact."""
    with Cluster(engine, tmp_path_factory.mktemp("nodes"), workers=2) as made:
        workers(made.services[0])
        yield made


@pytest.fixture
def during(record_property: Callable[[str, object], None]) -> During:
    """The body of the context causes a fault and repairs it. The fault ends with the body, unless the body
    ends it earlier. Before it, and some time after it, all must work."""

    @contextmanager
    def recorded(cluster: Cluster, fault: str, **options: Any) -> Iterator[Recorder]:
        with Recorder(cluster.nodes, **options) as recorder:
            recorder.begin()
            yield recorder
            if not recorder.ended:
                recorder.end()
            recorder.await_whole()
        row = {"fault": fault, "engine": cluster.engine.name, **recorder.verdict()}
        record_property("fault", row)
        bad = {kind: found[:5] for kind, found in recorder.evidence().items() if found}
        assert not bad, bad

    return recorded
