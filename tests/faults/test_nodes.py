"""Processes of a node are killed or stopped, and its clock is wrong, under load."""

import os
import signal
import time

import pytest
from faults.cluster import BOUND, Cluster, kill_parent, put_to_sleep, workers
from faults.conftest import EVERY, During
from faults.recorder import Recorder

pytestmark = pytest.mark.parametrize("engine", EVERY, indirect=True)


def failures(recorder: Recorder) -> float:
    """The fraction of calls that failed."""
    return sum(call.is_failure for call in recorder.calls) / len(recorder.calls)


def few(cluster: Cluster) -> float:
    """The fraction that is allowed: on a machine under load a copy may become too old. A wrong clock would
    make all calls of the node fail."""
    return 0.2 if cluster.engine.bound else 0.001


def test_a_worker_is_killed(cluster: Cluster, during: During) -> None:
    """With kill -9, twice; the supervisor starts another."""
    with during(cluster, "worker killed") as recorder:
        for _ in range(2):
            os.kill(workers(cluster.services[0])[0], signal.SIGKILL)
            recorder.end()
            time.sleep(1.0)
    assert len(workers(cluster.services[0])) == 2


def test_the_parent_is_killed(cluster: Cluster, during: During) -> None:
    """With kill -9, and only the supervisor: its workers end, and a new start finds the port free."""
    service = cluster.services[0]
    with during(cluster, "parent killed") as recorder:
        kill_parent(service)
        recorder.end()
        service.__enter__()
    assert len(workers(service)) == 2


def test_a_worker_sleeps_and_wakes(cluster: Cluster, during: During) -> None:
    """After SIGSTOP. It answers the waiting calls when it continues, but not from its old copy."""
    with during(cluster, "worker sleeps", timeout=12.0):
        put_to_sleep(workers(cluster.services[0])[0], 2.5 * BOUND)


def test_a_clock_steps_by_an_hour(cluster: Cluster, during: During) -> None:
    """At one node: back, forward and right again. No call is affected, wherever tokens are revoked."""
    with during(cluster, "clock steps by 1 h", issues=False) as recorder:
        for seconds in (-3600, 3600, 0):
            cluster.shift(seconds)
            time.sleep(1.0)
    assert failures(recorder) < few(cluster)


def test_clocks_are_five_seconds_apart(cluster: Cluster, during: During) -> None:
    """Tokens of either are valid at the other, and its revocations are, too."""
    cluster.shift(5)
    with during(cluster, "clocks 5 s apart") as recorder:
        time.sleep(2.0)
    cluster.shift(0)
    assert failures(recorder) < few(cluster)
