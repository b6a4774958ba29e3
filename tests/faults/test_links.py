"""The engine's server, and the connection to it, fail under load."""

import signal
import time

import pytest
from faults.cluster import BOUND, Cluster, Engine
from faults.conftest import ASKED, SERVERS, WIRED, During
from faults.proxy import Wire
from faults.recorder import Recorder

WIRES = {
    "wire cut in answers": Wire(cut_within=400),
    "wire refuses": Wire(refuses=True),
    "wire stalls": Wire(stalls=True),
    "wire slow by 0.2 s": Wire(delay=0.2),
    "wire late by 4 s": Wire(delay=4.0),
    "wire garbles answers": Wire(garbled_within=400),
}
#: Of these, the faults that a copy cannot survive, and those that end connections.
REFUSED = {"wire refuses", "wire stalls", "wire late by 4 s", "wire garbles answers"}
ENDED = {"wire cut in answers", "wire refuses", "wire garbles answers"}


def refused_at_first_node(recorder: Recorder) -> int:
    """How many validations at that node were refused with 503."""
    return sum(
        call.status == 503
        for call in recorder.calls
        if call.node is recorder.nodes[0] and call.kind in ("good", "revoked")
    )


@pytest.mark.parametrize("engine", WIRED, indirect=True)
@pytest.mark.parametrize("fault", WIRES)
def test_a_node_behind_a_bad_wire_refuses_what_it_cannot_know(
    cluster: Cluster, during: During, fault: str
) -> None:
    """Changes continue through the other node. The first node answers nothing from a copy that is older than
    the bound."""
    with during(cluster, fault) as recorder:
        connections = cluster.proxy.connections
        cluster.proxy.wire = WIRES[fault]
        time.sleep(2.5 * BOUND)
        cluster.proxy.wire = Wire()
    assert refused_at_first_node(recorder) or fault not in REFUSED
    assert cluster.proxy.connections > connections or fault not in ENDED


@pytest.mark.parametrize("engine", [*SERVERS, *ASKED], indirect=True)
def test_the_server_is_killed_and_comes_back(cluster: Cluster, engine: Engine, during: During) -> None:
    """After kill -9 it starts two seconds later, with what its files hold."""
    with during(cluster, "server killed") as recorder:
        engine.kill()
        time.sleep(2 * BOUND)
        engine.start()
    assert refused_at_first_node(recorder)


@pytest.mark.parametrize(
    ("engine", "seconds"),
    [("copy", 6), ("postgres", 6), ("redis", 30), *((name, 6) for name in ASKED)],
    indirect=["engine"],
)
def test_the_server_hangs_and_goes_on(cluster: Cluster, engine: Engine, during: During, seconds: int) -> None:
    """After SIGSTOP it accepts connections and answers nothing."""
    with during(cluster, f"server hangs {seconds} s") as recorder:
        engine.signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            engine.signal(signal.SIGCONT)
    assert refused_at_first_node(recorder)
