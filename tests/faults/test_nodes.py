"""Processes of a node die or sleep, and its clock goes wrong, under load."""

import os
import signal
import time

import pytest
from faults.cluster import BOUND, Cluster, kill_parent, put_to_sleep, workers
from faults.conftest import EVERY, During
from faults.recorder import Recorder

pytestmark = pytest.mark.parametrize("engine", EVERY, indirect=True)


def failures(recorder: Recorder) -> float:
    """The part of all calls."""
    return sum(call.is_failure for call in recorder.calls) / len(recorder.calls)


def few(cluster: Cluster) -> float:
    """Which part may be: a machine under load may let a copy grow too old. A clock that counted would do so to
    all of a node's."""
    return 0.2 if cluster.engine.bound else 0.001


def test_a_worker_is_killed(cluster: Cluster, during: During) -> None:
    """kill -9, twice; the supervisor starts another."""
    with during(cluster, "worker killed") as recorder:
        for _ in range(2):
            os.kill(workers(cluster.services[0])[0], signal.SIGKILL)
            recorder.end()
            time.sleep(1.0)
    assert len(workers(cluster.services[0])) == 2


def test_the_parent_is_killed(cluster: Cluster, during: During) -> None:
    """kill -9 of the supervisor alone: its workers end, and a new start finds the port free."""
    service = cluster.services[0]
    with during(cluster, "parent killed") as recorder:
        kill_parent(service)
        recorder.end()
        service.__enter__()
    assert len(workers(service)) == 2


def test_a_worker_sleeps_and_wakes(cluster: Cluster, during: During) -> None:
    """SIGSTOP: what it is asked meanwhile it answers when it wakes, and not with the copy it had."""
    with during(cluster, "worker sleeps", timeout=12.0):
        put_to_sleep(workers(cluster.services[0])[0], 2.5 * BOUND)


def test_a_clock_steps_by_an_hour(cluster: Cluster, during: During) -> None:
    """Of one node, back, forward and right again: nobody notices, whatever is revoked there or elsewhere."""
    with during(cluster, "clock steps by 1 h", issues=False) as recorder:
        for seconds in (-3600, 3600, 0):
            cluster.shift(seconds)
            time.sleep(1.0)
    assert failures(recorder) < few(cluster)


def test_clocks_are_five_seconds_apart(cluster: Cluster, during: During) -> None:
    """Whatever either issues is good at the other, and whatever either revokes is refused."""
    cluster.shift(5)
    with during(cluster, "clocks 5 s apart") as recorder:
        time.sleep(2.0)
    cluster.shift(0)
    assert failures(recorder) < few(cluster)
