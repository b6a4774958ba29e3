"""A thousand simultaneous connections to the server of `python app.py`."""

import math
import re
import selectors
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measuring import Results, Sample
from benchmarks.servers import service
from benchmarks.throughput import requests

CONNECTIONS = 1000
#: Seconds after which a missing answer counts as an error.
TIMEOUT = 10.0
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Burst:
    """The result: for each connection the milliseconds from connect() to the complete answer, and how many
    got no answer with status 200. These count as if they had been answered at the timeout."""

    latencies: tuple[float, ...]
    errors: int

    @property
    def p99(self) -> float:
        """Of a hundred connections, 99 waited at most this long."""
        return percentile(self.latencies, 99)


@dataclass
class _Arrival:
    started: float
    answer: bytearray = field(default_factory=bytearray)


def measure(folder: Path, rounds: int, seconds: float) -> Results:
    """All that this module measures: latencies and errors of each round. The service runs in `folder`."""
    folder.mkdir()
    load = requests(folder)
    path = load.file.read_text().partition("\t")[0]
    crowds, bursts = [], []
    with service(folder / "signer") as server:
        for _ in range(rounds):
            bursts.append(burst(server.port, path))
            crowds.append(load.on(server.port, seconds, CONNECTIONS))
    ms = "ms"
    return {
        "burst of 1000, p99": Sample(ms, tuple(found.p99 for found in bursts)),
        "burst of 1000, slowest": Sample(ms, tuple(max(found.latencies) for found in bursts)),
        "burst of 1000, errors": Sample("connections", tuple(float(found.errors) for found in bursts)),
        "wrk with 1000, p50": Sample(ms, tuple(found.p50 for found in crowds)),
        "wrk with 1000, p99": Sample(ms, tuple(found.p99 for found in crowds)),
        "wrk with 1000, errors": Sample(
            "answers", tuple(float(found.errors + found.refused) for found in crowds)
        ),
        "wrk with 1000, rate": Sample("1/s", tuple(found.rate for found in crowds)),
    }


def burst(port: int, path: str, connections: int = CONNECTIONS) -> Burst:
    """Open this many connections to this port of 127.0.0.1 at once, send a GET on each, and wait until all
    are answered, or for ten seconds."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    latencies: list[float] = []
    with ExitStack() as opened:
        selector = opened.enter_context(selectors.DefaultSelector())
        for _ in range(connections):
            connection = opened.enter_context(socket.socket())
            connection.setblocking(False)
            arrival = _Arrival(time.perf_counter())
            connection.connect_ex(("127.0.0.1", port))
            selector.register(connection, selectors.EVENT_WRITE, arrival)
        latest = time.perf_counter() + TIMEOUT
        while selector.get_map() and time.perf_counter() < latest:
            for key, events in selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                connection, arrival = key.fileobj, key.data
                try:
                    if events & selectors.EVENT_WRITE:
                        connection.send(request)
                        selector.modify(connection, selectors.EVENT_READ, arrival)
                        continue
                    received = connection.recv(65536)
                except OSError:
                    received = b""
                arrival.answer += received
                if not received or _is_whole(arrival.answer):
                    selector.unregister(connection)
                    if received and arrival.answer.startswith(b"HTTP/1.1 200 "):
                        latencies.append((time.perf_counter() - arrival.started) * 1000)
    errors = connections - len(latencies)
    return Burst((*latencies, *[TIMEOUT * 1000] * errors), errors)


def percentile(values: tuple[float, ...], percent: float) -> float:
    """The value that this percentage of values does not exceed; there must be a value."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def _is_whole(answer: bytes | bytearray) -> bool:
    head, found, body = bytes(answer).partition(b"\r\n\r\n")
    length = _LENGTH.search(head + b"\r\n")
    return bool(found and length and len(body) >= int(length[1]))
