"""The disk of the engine's server is full, under load."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
from faults.cluster import BOUND, Cluster, Engine, OnPostgres, OnRedis
from faults.conftest import During
from faults.disk import Disk, small_disk
from faults.recorder import Call, Recorder
from support.clock import eventually
from support.postgres import Postgres

#: Seconds for which it stays full after changes are refused; all changes are refused in this time.
LASTS, NOTICED = 1.5, 0.5


class Small(NamedTuple):
    """An engine with some of its files on a small disk.

    `use_up` makes it need more room. Without any it may still answer reads; if it ends, its operator must
    start it again.
    """

    engine: Engine
    disk: Disk
    outlives: bool
    reads: bool
    use_up: Callable[[], None] = lambda: None


@contextmanager
def on_postgres(_: Path, part: str, megabytes: int, bound: int) -> Iterator[Small]:
    """Some of its files: its tables, or the log that it writes before it changes them, without which it
    ends."""
    server = Postgres()

    def use_up() -> None:
        with suppress(psycopg.Error):
            server.sql("SELECT pg_switch_wal()")

    with ExitStack() as stack:
        stack.callback(server.remove)
        server.stop()
        disk = stack.enter_context(small_disk(server.folder / "data" / part, megabytes))
        stack.callback(server.kill)
        server.start()
        engine = OnPostgres(server, bound)
        if part == "pg_wal":
            yield Small(engine, disk, outlives=False, reads=False, use_up=use_up)
        else:
            yield Small(engine, disk, outlives=True, reads=True)


@contextmanager
def on_redis(folder: Path, fsync: str, bound: int) -> Iterator[Small]:
    """All its files. If it must write each change before it acknowledges it, it ends when it cannot;
    otherwise it refuses scripts that could write."""
    with small_disk(folder, megabytes=8) as disk, ExitStack() as stack:
        engine = OnRedis(folder, bound, lines=[f"appendfsync {fsync}"])
        stack.callback(engine.kill)
        engine.start()
        yield Small(engine, disk, outlives=fsync != "always", reads=False)


def listens(port: int) -> bool:
    """Whether anything listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def changes(recorder: Recorder, since: float) -> list[Call]:
    """The calls for changes that have ended, of all that began since then."""
    return [call for call in list(recorder.calls) if call.sent > since and call.kind in {"revoke", "consume"}]


@pytest.mark.parametrize(
    ("what", "small"),
    [
        ("tables", partial(on_postgres, part="base", megabytes=40, bound=0)),
        ("pg_wal", partial(on_postgres, part="pg_wal", megabytes=40, bound=BOUND)),
        ("everysec", partial(on_redis, fsync="everysec", bound=BOUND)),
        ("always", partial(on_redis, fsync="always", bound=0)),
    ],
    ids=["postgres-tables", "postgres-wal", "redis-everysec", "redis-always"],
)
def test_a_full_disk_of_the_server_refuses_changes(
    small: Callable[[Path], AbstractContextManager[Small]], what: str, during: During, tmp_path: Path
) -> None:
    """Until there is room, and the server runs again if it had ended. No node is restarted. Validation
    continues if the server answers."""
    folder = tmp_path / "engine"
    folder.mkdir()
    with (
        small(folder) as (engine, disk, outlives, reads, use_up),
        Cluster(engine, tmp_path) as cluster,
        during(cluster, f"disk full: {what}") as recorder,
    ):

        def is_full() -> bool:
            # Not /readyz: the little that it writes may find room in a page in which a revocation finds none.
            use_up()
            since = time.monotonic() - NOTICED
            return {call.status for call in changes(recorder, since)} == {503}

        token = cluster.services[0].issue()
        disk.fill()
        eventually(is_full)
        since = time.monotonic() + NOTICED
        time.sleep(LASTS)
        for service in cluster.services:
            assert service.call("POST", "/app/revoke", {"token": token}).status == 503
            assert not reads or service.says_valid(token)
        refused = changes(recorder, since)
        assert listens(engine.port) == outlives
        disk.make_room()
        if not outlives:
            engine.kill()
            engine.start()
    assert {call.status for call in refused} <= {503}
