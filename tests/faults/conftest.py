"""Engines by name, and the table of what became of each fault."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from faults.cluster import BOUND, Central, Cluster, Engine, OnPostgres, OnRedis, SQLite
from faults.recorder import Recorder
from postgres import Postgres

#: Used as `with during(cluster, "what happens", within=seconds) as recorder`.
During = Callable[..., AbstractContextManager[Recorder]]
SERVERS = ["copy", "postgres", "redis"]
#: The same, and no copies of them are kept.
ASKED = ["postgres, asked", "redis, asked"]
EVERY = ["sqlite", *SERVERS]


@contextmanager
def opened(name: str, folder: Path) -> Iterator[Engine]:
    """The engine of this name, started and with an empty list."""
    bound = 0 if name in ASKED else BOUND
    with ExitStack() as stack:
        engine: Engine = SQLite(folder)
        if name == "copy":
            engine = Central(folder)
        elif name.startswith("postgres"):
            server = Postgres()
            stack.callback(server.remove)
            engine = OnPostgres(server, bound)
        elif name.startswith("redis"):
            engine = OnRedis(folder, bound)
        if name != "sqlite":
            stack.callback(engine.kill)
        engine.start()
        yield engine


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """The one that the test's parameter names."""
    folder = tmp_path / "engine"
    folder.mkdir()
    with opened(request.param, folder) as made:
        yield made


@pytest.fixture
def clustered(engine: Engine, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Makes two nodes, the first of which has these settings."""
    with ExitStack() as stack:

        def make(**first: str) -> Cluster:
            return stack.enter_context(Cluster(engine, tmp_path, first))

        yield make


@pytest.fixture
def cluster(clustered: Callable[..., Cluster]) -> Cluster:
    """Two nodes."""
    return clustered()


@pytest.fixture
def during(record_property: Callable[[str, object], None]) -> During:
    """Its body makes a fault and mends it, which ends it, or says itself when that is. Whatever happens around it must be sound, and whole again in so
    many seconds."""

    @contextmanager
    def recorded(cluster: Cluster, fault: str, within: float, **options: Any) -> Iterator[Recorder]:
        with cluster.recorder(**options) as recorder:
            recorder.begin()
            yield recorder
            if not recorder.ended:
                recorder.end()
            recorder.await_whole(within)
        row = recorder.verdict(fault, cluster.engine.name)
        record_property("fault", asdict(row))
        assert row.is_sound, (row, recorder.evidence())

    return recorded


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table: a line for each fault, and the sums."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    rows = [value for report in reports for name, value in report.user_properties if name == "fault"]
    if not rows:
        return
    ends = {"fault": "sum", "engine": "", "whole": max(row["whole"] for row in rows)}
    rows.sort(key=lambda row: (row["engine"], row["fault"]))
    rows.append(
        {name: ends.get(name, sum(row[name] for row in rows if name not in ends)) for name in rows[0]}
    )
    widths = {name: max(len(str(row[name])) for row in [*rows, {name: name}]) for name in rows[0]}
    terminalreporter.section("faults")
    for row in [{name: name for name in widths}, *rows]:
        terminalreporter.write_line("  ".join(str(row[name]).rjust(width) for name, width in widths.items()))
