"""Everything fails, in turn and some of it at once, while ten thousand tokens are revoked."""

import os
import signal
import time
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Final

import pytest
from faults.cluster import BOUND, Cluster, kill_parent, put_to_sleep, workers
from faults.conftest import During
from faults.proxy import Wire
from faults.test_links import REFUSED, WIRES, refused_at_first_node
from support.clock import HANG

REVOCATIONS: Final = 10_000
#: For the clock of the first node, one for each fault: it is wrong while the fault lasts.
_SHIFTS: Final = (-3600, 0, 3600)


def _worker_killed(cluster: Cluster) -> None:
    os.kill(workers(cluster.services[0])[0], signal.SIGKILL)
    time.sleep(BOUND)


def _worker_sleeps(cluster: Cluster) -> None:
    put_to_sleep(workers(cluster.services[0])[0], 2.5 * BOUND)


def _parent_killed(cluster: Cluster) -> None:
    service = cluster.services[0]
    kill_parent(service)
    service.__enter__()
    workers(service)


def _server_killed(cluster: Cluster) -> None:
    cluster.engine.kill()
    time.sleep(2.0 * BOUND)
    cluster.engine.start()


def _worker_and_server_killed(cluster: Cluster) -> None:
    """The new worker finds no server."""
    cluster.engine.kill()
    os.kill(workers(cluster.services[0])[0], signal.SIGKILL)
    time.sleep(2.0 * BOUND)
    cluster.engine.start()


def _server_hangs(cluster: Cluster) -> None:
    cluster.engine.signal(signal.SIGSTOP)
    try:
        time.sleep(3.0 * BOUND)
    finally:
        cluster.engine.signal(signal.SIGCONT)


def _wire(wire: Wire) -> Callable[[Cluster], None]:
    def fault(cluster: Cluster) -> None:
        cluster.proxy.wire = wire
        time.sleep(2.5 * BOUND)
        cluster.proxy.wire = Wire()

    return fault


FAULTS: Final[Mapping[str, Callable[[Cluster], None]]] = {
    "worker killed": _worker_killed,
    "server killed": _server_killed,
    **{name: _wire(wire) for name, wire in WIRES.items()},
    "parent killed": _parent_killed,
    "worker sleeps": _worker_sleeps,
    "server hangs": _server_hangs,
    "worker and server killed": _worker_and_server_killed,
}
#: Faults in which the first node cannot know of revocations.
_BLINDING: Final = REFUSED | {"server killed", "server hangs", "worker and server killed"}


@pytest.mark.parametrize("engine", ["redis"], indirect=True)
def test_ten_thousand_revocations_outlive_every_fault(cluster: Cluster, during: During) -> None:
    """Each is acknowledged in an answer of its own, and refused by both nodes at the end."""
    with during(cluster, "storm", issues=False, stream=8) as recorder:
        until = time.monotonic() + 20 * HANG
        for number, (name, shift) in enumerate(zip(cycle(FAULTS), cycle(_SHIFTS)), 1):
            refused = refused_at_first_node(recorder)
            cluster.shift(shift)
            FAULTS[name](cluster)
            recorder.end()
            recorder.await_whole()
            assert refused_at_first_node(recorder) > refused or name not in _BLINDING, name
            if number >= len(FAULTS) and len(recorder.revoked) >= REVOCATIONS:
                break
            assert time.monotonic() < until, len(recorder.revoked)
        cluster.shift(0)
    assert len(workers(cluster.services[0])) == 2
