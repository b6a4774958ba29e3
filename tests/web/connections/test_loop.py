"""Many connections at once, and more than there are file descriptors."""

import asyncio
import http.client
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from support.clock import HANG
from support.service import KEY, ROOT, Service

from signer.web.connections.loop import Loop

REQUEST = b"HEAD /app/valid/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: Runs the service with so many descriptors, as its soft and its hard limit.
WITH_DESCRIPTORS = (
    "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, {limits});"
    f"runpy.run_path({str(ROOT / 'app.py')!r}, run_name='__main__')"
)
#: The service itself needs some.
FEW_DESCRIPTORS = WITH_DESCRIPTORS.replace("{limits}", "(64, 64)")


@contextmanager
def connections(port: int, number: int) -> Iterator[list[socket.socket]]:
    """So many connections. The kernel accepts them, whether the service does or not."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=HANG))
            for _ in range(number)
        ]


def ask(crowd: list[socket.socket]) -> set[bytes]:
    """The status lines of their answers, after all have sent a request."""
    for connection in crowd:
        connection.sendall(REQUEST)
    return {connection.recv(65536).partition(b"\r\n")[0] for connection in crowd}


def sockets(pid: int) -> int:
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed at this moment
            count += str(link.readlink()).startswith("socket:")
    return count


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """For this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Service]:
    """A service that has no descriptor left, and the connections that use them."""
    with Service(tmp_path, {"SECRET_KEY": KEY}, command=("-c", FEW_DESCRIPTORS)) as running:
        running.wait_until_started()
        yield running


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_thousand_connections_at_once_are_all_answered(tmp_path: Path, concurrency: int) -> None:
    """Each gets its answer, and each worker serves some of them."""
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": str(concurrency)}
    with Service(tmp_path, settings) as service:
        service.wait_until_started(concurrency)
        workers = service.pids
        before = [sockets(pid) for pid in workers]
        with connections(service.port, 1000) as crowd:
            assert ask(crowd) == {b"HTTP/1.1 200 OK"}
            taken = [sockets(pid) - old for pid, old in zip(workers, before, strict=True)]
            # The connection that checked whether the service has started may still have been open.
            assert sum(taken) > 990
            assert all(taken)
        assert "ERROR" not in service.log


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_who_waits_is_let_in_before_those_inside_are_served_again(host: str) -> None:
    """300 connections take ten rounds, and 300 with uvloop alone."""
    made = []

    class Guest(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    async def times_round() -> int:
        server = await asyncio.get_running_loop().create_server(Guest, host, 0, backlog=300)
        with connections(server.sockets[0].getsockname()[1], 300):
            rounds = 0
            while len(made) < 300:
                await asyncio.sleep(0)
                rounds += 1
        for transport in made:
            transport.close()
        server.close()
        await server.wait_closed()
        return rounds

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(times_round()) < 10


@pytest.mark.slow
def test_without_a_descriptor_those_inside_are_served_and_those_outside_wait(narrow: Service) -> None:
    """The service neither ends nor spins, and continues once descriptors are free."""
    with connections(narrow.port, 1) as inside, ExitStack() as later:
        assert ask(inside) == {b"HTTP/1.1 200 OK"}
        with connections(narrow.port, 100):
            outside = later.enter_context(connections(narrow.port, 1))
            narrow.wait_for_log("No connection is accepted")
            used = processor_time(narrow)
            assert ask(inside) == {b"HTTP/1.1 200 OK"}
            time.sleep(1.5)
            assert processor_time(narrow) - used < 0.5
            assert narrow.log.count("No connection is accepted") < 10
        assert ask(outside) == {b"HTTP/1.1 200 OK"}
    assert narrow.call("GET", "/readyz").status == 200


def processor_time(service: Service) -> float:
    """Seconds of processor time that the service has used."""
    spent = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, spent)) / os.sysconf("SC_CLK_TCK")


def test_it_ends_while_no_descriptor_is_left(narrow: Service) -> None:
    """In the usual time, and without a complaint about the listener that it cannot watch any more."""
    with connections(narrow.port, 100):
        narrow.wait_for_log("No connection is accepted")
        assert narrow.stop() in (0, -signal.SIGTERM)
    assert "Traceback" not in narrow.log


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.slow
def test_silent_connections_make_room_for_others(tmp_path: Path, concurrency: int) -> None:
    """They are more than there are descriptors, and stay until their time limit. Connections that came before
    them are served all the while, and requests that open a file have a descriptor for it."""
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": str(concurrency), "ANONYMOUS_SCOPES": "metrics:read"}
    with (
        Service(tmp_path, settings, command=("-c", FEW_DESCRIPTORS)) as service,
        closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)) as inside,
    ):
        service.wait_until_started(concurrency)
        inside.connect()
        with connections(service.port, 50 * concurrency), connections(service.port, 1) as outside:
            service.wait_for_log("No connection is accepted", concurrency)
            for path in ("/readyz", "/metrics", "/static/redoc/redoc.standalone.js", "/app/valid/x"):
                inside.request("GET", path)
                response = inside.getresponse()
                assert (path, response.status, bool(response.read())) == (path, 200, True)
            outside[0].settimeout(120)
            assert ask(outside) == {b"HTTP/1.1 200 OK"}
        assert "Traceback" not in service.log


def test_it_takes_as_many_descriptors_as_it_may_have(tmp_path: Path) -> None:
    """Not only the few that programs start with."""
    command = ("-c", WITH_DESCRIPTORS.replace("{limits}", "(64, 1024)"))
    with (
        Service(tmp_path, {"SECRET_KEY": KEY}, command=command) as service,
        connections(service.port, 200) as crowd,
    ):
        assert ask(crowd) == {b"HTTP/1.1 200 OK"}
        assert "No connection is accepted" not in service.log
