"""Two nodes on their own networks, as on two machines. The cable of one is pulled, under load."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults.cluster import BOUND, Cluster, Engine, OnPostgres, OnRedis
from faults.conftest import During
from support.clock import HANG, eventually
from support.postgres import Postgres

#: Seconds after which a node without its cable notices it, and its copy is too old.
NOTICED = BOUND + 0.5
#: Listens here, for the tests, and runs the rest of the command in the namespace.
INSIDE = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
os.dup2(listener.detach(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execvp("ip", ["ip", "netns", "exec", *sys.argv[1:]])
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=HANG)


@dataclass(frozen=True)
class Network:
    """A switch, where this machine has `address`, and two namespaces, each with a cable to the switch."""

    address: str
    namespaces: tuple[str, str]
    #: The end of each cable at the switch.
    cables: tuple[str, str]

    def pull(self, node: int) -> None:
        """Pull a cable: nothing passes, and no end is notified."""
        ip("link", "set", self.cables[node], "down")

    def plug(self, node: int) -> None:
        ip("link", "set", self.cables[node], "up")


@pytest.fixture
def network() -> Iterator[Network]:
    """The network, in addresses for tests. It is removed in any case."""
    if shutil.which("ip") is None:
        pytest.skip("ip is not installed")
    name, net = f"sg{os.getpid()}", f"198.18.{random.randrange(256)}"
    made = Network(f"{net}.1", (f"{name}-0", f"{name}-1"), (f"{name}-a", f"{name}-b"))
    with ExitStack() as stack:
        try:
            ip("link", "add", name, "type", "bridge")
            stack.callback(ip, "link", "delete", name)
            for namespace in made.namespaces:
                ip("netns", "add", namespace)
                stack.callback(ip, "netns", "delete", namespace)
            ip("address", "add", f"{made.address}/24", "dev", name)
            ip("link", "set", name, "up")
            for number, (namespace, cable) in enumerate(zip(made.namespaces, made.cables, strict=True), 2):
                ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
                stack.callback(ip, "link", "delete", cable)
                ip("link", "set", cable, "master", name, "up")
                ip("-n", namespace, "address", "add", f"{net}.{number}/24", "dev", "eth0")
                ip("-n", namespace, "link", "set", "eth0", "up")
                ip("netns", "exec", namespace, "true")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network can be made here: {error.stderr.decode().strip()}")
        yield made


@dataclass
class Apart(Cluster):
    """Each node is in its own namespace, without a proxy between it and the engine."""

    network: Network | None = None

    def way(self, node: int, port: int) -> tuple[str, tuple[str, ...]]:
        assert self.network
        url = self.engine.url(self.engine.port).replace("127.0.0.1", self.network.address)
        return url, (sys.executable, "-c", INSIDE, self.network.namespaces[node])


@contextmanager
def on_postgres(address: str, _: Path) -> Iterator[Engine]:
    server = Postgres(f"listen_addresses=127.0.0.1,{address}")
    try:
        with (server.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {address}/24 scram-sha-256\n")
        server.sql("SELECT pg_reload_conf()")
        yield OnPostgres(server, BOUND)
    finally:
        server.remove()


@contextmanager
def on_redis(address: str, folder: Path) -> Iterator[Engine]:
    engine = OnRedis(folder, 0, lines=[f"bind 127.0.0.1 {address}", "protected-mode no"])
    try:
        engine.start()
        yield engine
    finally:
        engine.kill()


@pytest.mark.parametrize("opened", [on_postgres, on_redis])
def test_a_node_without_its_cable_refuses_and_comes_back(
    opened: Callable[[str, Path], AbstractContextManager[Engine]],
    network: Network,
    during: During,
    tmp_path: Path,
) -> None:
    """Once its copy is too old it refuses everything; the other node continues."""
    with (
        opened(network.address, tmp_path) as engine,
        Apart(engine, tmp_path, network=network) as cluster,
    ):
        cut, other = cluster.services
        token = cut.issue()
        assert other.says_valid(token)
        with during(cluster, "cable pulled") as recorder:
            network.pull(0)
            since = time.monotonic() + NOTICED
            time.sleep(NOTICED)
            assert cut.call("GET", f"/app/valid/{token}").status == 503
            assert cut.call("POST", "/app/revoke", {"token": token}).status == 503
            eventually(lambda: other.call("POST", "/app/revoke", {"token": token}).status == 200)
            calls = [call for call in list(recorder.calls) if call.sent > since]
            network.plug(0)
        assert {call.status for call in calls if call.node is recorder.nodes[0]} <= {503}
        assert not cut.says_valid(token)
