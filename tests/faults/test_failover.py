"""The engine's server is lost while its replica lags, and the replica takes over, under load."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from faults.cluster import BOUND, Cluster, OnPostgres, OnRedis
from faults.conftest import During
from faults.proxy import Proxy, Wire
from support.postgres import Postgres
from support.redis_server import Redis


class Pair(NamedTuple):
    """Two nodes, a proxy that connects them to the master, and the wire from the replica to the master."""

    cluster: Cluster
    front: Proxy
    replication: Proxy
    promote: Callable[[], int]


@contextmanager
def on_postgres(folder: Path) -> Iterator[Pair]:
    """A commit waits until the standby has it."""
    with ExitStack() as stack:
        master = Postgres("synchronous_standby_names=*")
        stack.callback(master.remove)
        front, replication = (stack.enter_context(Proxy(master.port)) for _ in range(2))
        standby = Postgres(f"primary_conninfo={master.url_of(replication.port)}", source=master)
        stack.callback(standby.remove)

        def promote() -> int:
            standby.sql("SELECT pg_promote()")
            return standby.port

        engine = OnPostgres(master, BOUND)
        engine.port = front.port
        yield Pair(stack.enter_context(Cluster(engine, folder)), front, replication, promote)


@contextmanager
def on_redis(folder: Path) -> Iterator[Pair]:
    """A change waits until a replica has it; there is one replica."""
    folders = [folder / name for name in ("master", "replica", "other")]
    for each in folders:
        each.mkdir()
    with ExitStack() as stack:
        engine = OnRedis(folders[0], BOUND, options="?replicas=1")
        stack.callback(engine.kill)
        engine.start()
        front, replication = (stack.enter_context(Proxy(engine.port)) for _ in range(2))
        replica = stack.enter_context(Redis(folders[1], f"replicaof 127.0.0.1 {replication.port}"))
        other = stack.enter_context(Redis(folders[2], f"replicaof 127.0.0.1 {replica.port}"))
        other.wait_for_master(replica)

        def promote() -> int:
            replica.call("REPLICAOF", "NO", "ONE")
            return replica.port

        engine.port = front.port
        yield Pair(stack.enter_context(Cluster(engine, folder)), front, replication, promote)


@pytest.mark.parametrize("pair", [on_postgres, on_redis])
def test_a_replica_that_lags_takes_over(
    pair: Callable[[Path], AbstractContextManager[Pair]], during: During, tmp_path: Path
) -> None:
    """While it lags, nothing is acknowledged, but a node may see a change that was not. If that change is
    lost with the master, the node refuses everything until it is restarted."""
    with (
        pair(tmp_path) as (cluster, front, replication, promote),
        during(cluster, "failover, replica lags") as recorder,
    ):
        replication.wire = Wire(stalls=True)
        since = time.monotonic()
        time.sleep(3.0 * BOUND)
        cluster.engine.kill()
        changes = [call for call in recorder.calls if call.kind in ("revoke", "consume")]
        assert not any(call.status == 200 for call in changes if call.sent > since + BOUND)
        replication.wire = Wire(refuses=True)
        front.target = promote()
        time.sleep(2.0 * BOUND)
        for service in cluster.services:
            if service.call("GET", "/readyz").status == 503:
                assert "older state" in service.log
                service.stop()
                service.__enter__()
