"""The engine's server, and the wire to it, fail under load."""

import signal
import time
from collections.abc import Iterator

import pytest
from faults.cluster import BOUND, Cluster, Engine
from faults.conftest import ASKED, SERVERS, During, opened
from faults.proxy import Wire
from faults.recorder import Recorder

ON_SERVERS = pytest.mark.parametrize("engine", SERVERS, indirect=True)
ON_ALL = pytest.mark.parametrize("engine", [*SERVERS, *ASKED], indirect=True)
WIRES = {
    "wire cut in answers": Wire(cut_within=400),
    "wire refuses": Wire(refuses=True),
    "wire stalls": Wire(stalls=True),
    "wire slow by 0.2 s": Wire(delay=0.2),
    "wire late by 4 s": Wire(delay=4.0),
    "wire garbles answers": Wire(garbled_within=400),
}


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The one that the parameter names; it outlives its tests, each of which must leave it whole."""
    with opened(request.param, tmp_path_factory.mktemp("engine")) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, never restarted."""
    with Cluster(engine, tmp_path_factory.mktemp("nodes")) as made:
        yield made


def refused_at_first_node(recorder: Recorder) -> int:
    """How many validations there were refused with 503."""
    return sum(
        call.status == 503
        for call in recorder.calls
        if call.node is recorder.nodes[0] and call.kind in ("good", "revoked")
    )


@ON_SERVERS
@pytest.mark.parametrize("fault", WIRES)
def test_a_node_behind_a_bad_wire_refuses_what_it_cannot_know(
    cluster: Cluster, during: During, fault: str
) -> None:
    """Changes go on through the other node; behind the wire nothing is answered that is older than the bound."""
    with during(cluster, fault, within=8.0) as recorder:
        connections = cluster.proxy.connections
        cluster.proxy.wire = WIRES[fault]
        time.sleep(2.5 * BOUND)
        cluster.proxy.wire = Wire()
    assert cluster.proxy.connections > connections or "slow" in fault
    assert refused_at_first_node(recorder) or "slow" in fault or "cut" in fault


@ON_ALL
def test_the_server_is_killed_and_comes_back(cluster: Cluster, engine: Engine, during: During) -> None:
    """kill -9, and a start two seconds later, with what its files hold."""
    with during(cluster, "server killed", within=8.0) as recorder:
        engine.kill()
        time.sleep(2 * BOUND)
        engine.start()
    assert refused_at_first_node(recorder)


@pytest.mark.parametrize(
    ("engine", "seconds"), [(name, 6) for name in [*SERVERS, *ASKED]] + [("redis", 30)], indirect=["engine"]
)
def test_the_server_hangs_and_goes_on(cluster: Cluster, engine: Engine, during: During, seconds: int) -> None:
    """SIGSTOP: it accepts connections, and answers nothing."""
    with during(cluster, f"server hangs {seconds} s", within=8.0) as recorder:
        engine.signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            engine.signal(signal.SIGCONT)
    assert refused_at_first_node(recorder)
