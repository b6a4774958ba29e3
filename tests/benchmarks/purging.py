"""A purge of a million expired rows while the service validates and uses tokens."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.crowds import percentile
from benchmarks.lists import fill_with_expired
from benchmarks.load import Load
from benchmarks.measuring import Results, Sample, once
from benchmarks.peers import KEY, SUB
from benchmarks.servers import Server, exchange, service
from benchmarks.throughput import requests

from signer import Signer

#: Seconds of load for one latency; wrk allows no shorter time.
WINDOW = 1
#: Seconds of load that are not recorded, because the service reads the list after its start.
WARM_UP = 5
#: Windows before the purge begins, and the most while it runs.
BEFORE = 4
DURING = 60
#: Milliseconds that each of the 32 connections waits between two validations. The service keeps up with this
#: load, so that a delay shows. Under full load every request waits for all others anyway.
PAUSE = 10
_LIST = "tokens.db"


class _Repeating(threading.Thread):
    """Calls `act` until it is stopped, with `pause` seconds after each call; keeps the results."""

    def __init__(self, act: Callable[[], float], pause: float) -> None:
        super().__init__(daemon=True)
        self.results: list[float] = []
        self._act = act
        self._pause = pause
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(self._pause):
            self.results.append(self._act())

    def stop(self) -> list[float]:
        """The results, once the present call has ended."""
        self._over.set()
        self.join(60)
        return self.results


def measure(folder: Path, rows: int, credential: str) -> Results:
    """All that this module measures, with a list of this many expired rows. The service runs in `folder`."""
    folder.mkdir()
    fill_with_expired(folder / _LIST, rows)
    load = replace(requests(folder), pause=PAUSE)
    with service(folder) as server:
        writer = _writing(server, credential)
        load.on(server.port, WARM_UP)
        writer.stop()
        writer = _writing(server, credential)
        calm = [load.on(server.port, WINDOW).p99 for _ in range(BEFORE)]
        calm_writes = writer.stop()
        writer = _writing(server, credential)
        sizes = _Repeating(lambda: _size(folder / f"{_LIST}-wal"), 0.002)
        sizes.start()
        disturbed, seconds = _purged(server, load, rows, credential)
        writes = writer.stop()
        return {
            "purge: rows": once("rows", rows),
            "purge: time": once("s", seconds),
            "purge: validation p99 before": Sample("ms", tuple(calm)),
            "purge: validation p99 during": Sample("ms", tuple(disturbed)),
            "purge: slowest writer before": once("ms", max(calm_writes)),
            "purge: slowest writer during": once("ms", max(writes)),
            "purge: writer p99 during": once("ms", percentile(tuple(writes), 99)),
            "purge: writer median before": once("ms", median(calm_writes)),
            "purge: writer median during": once("ms", median(writes)),
            "purge: WAL at the most": once("MB", max(sizes.stop()) / 1e6),
        }


def _purged(server: Server, load: Load, rows: int, credential: str) -> tuple[list[float], float]:
    """Latencies of validations while the rows are purged, and the seconds that the purge took."""
    answers: list[tuple[int, bytes]] = []
    ended: list[float] = []

    def purge() -> None:
        answers.append(server.call("DELETE", "/app/clear/all/tokens", credential=credential))
        ended.append(time.perf_counter())

    purging = threading.Thread(target=purge)
    started = time.perf_counter()
    purging.start()
    found: list[float] = []
    while purging.is_alive() and len(found) < DURING:
        found.append(load.on(server.port, WINDOW).p99)
    purging.join(300)
    status, answer = answers[0]
    if status != 200 or json.loads(answer)["purged"] < rows:
        raise RuntimeError(f"Not purged: {status} {answer.decode()}")
    return found, ended[0] - started


def _writing(server: Server, credential: str) -> _Repeating:
    """A client that uses up a token of its own every few milliseconds, and records how long that takes."""
    signer = Signer(KEY)
    connection = server.client()

    def use() -> float:
        token = signer.issue(sub=SUB)
        started = time.perf_counter()
        status, answer = exchange(connection, "POST", "/app/consume", {"token": token}, credential)
        if status != 200:
            raise RuntimeError(f"Not used: {status} {answer.decode()}")
        return (time.perf_counter() - started) * 1000

    writer = _Repeating(use, 0.005)
    writer.start()
    return writer


def _size(path: Path) -> float:
    try:
        return float(path.stat().st_size)
    except FileNotFoundError:
        return 0.0
