"""Processes of a node die or sleep, and clocks go wrong, under load."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.cluster import Cluster, Shifted, workers
from faults.conftest import EVERY, During

pytestmark = pytest.mark.parametrize("engine", EVERY, indirect=True)


def test_a_worker_is_killed(clustered: Callable[..., Cluster], during: During) -> None:
    """kill -9, twice; the supervisor starts another."""
    cluster = clustered(WEB_CONCURRENCY="2")
    workers(cluster.services[0])
    with during(cluster, "worker killed", within=8.0) as recorder:
        for _ in range(2):
            os.kill(workers(cluster.services[0])[0], signal.SIGKILL)
            recorder.end()
            time.sleep(1.0)


def test_the_parent_is_killed(clustered: Callable[..., Cluster], during: During) -> None:
    """kill -9 of the supervisor alone: its workers end, and a new start finds the port free."""
    cluster = clustered(WEB_CONCURRENCY="2")
    service = cluster.services[0]
    orphans = workers(service)
    with during(cluster, "parent killed", within=8.0) as recorder:
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait(10)
        until = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in orphans):
            assert time.monotonic() < until
            time.sleep(0.05)
        recorder.end()
        service.__enter__()


def test_a_node_sleeps_and_wakes(cluster: Cluster, during: During) -> None:
    """SIGSTOP: what it is asked meanwhile it answers when it wakes, and not with the copy it had."""
    with during(cluster, "node sleeps", within=8.0, timeout=12.0):
        pid = cluster.services[0].process.pid
        for _ in range(2):
            os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(2.5)
            finally:
                os.kill(pid, signal.SIGCONT)
            time.sleep(0.5)


def test_a_clock_steps_by_an_hour(clustered: Callable[..., Cluster], during: During, tmp_path: Path) -> None:
    """Of one node, back, forward and right again. What it revokes and what is revoked elsewhere counts as before."""
    clock = Shifted(tmp_path)
    cluster = clustered(**clock.settings)
    with during(cluster, "clock steps by 1 h", within=5.0, issues=False) as recorder:
        for seconds in (-3600, 3600, 0):
            clock.step(seconds)
            time.sleep(1.2)
    assert not any(call.is_failure for call in recorder.calls)


def test_clocks_are_five_seconds_apart(
    clustered: Callable[..., Cluster], during: During, tmp_path: Path
) -> None:
    """Whatever either issues is good at the other, and whatever either revokes is refused."""
    cluster = clustered(**Shifted(tmp_path, 5.0).settings)
    with during(cluster, "clocks 5 s apart", within=5.0) as recorder:
        time.sleep(3.0)
    assert not any(call.is_failure for call in recorder.calls)
