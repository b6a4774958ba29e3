"""Durable uses: POST /app/consume on 64 connections, compared with the single commits that the disk
allows."""

import json
import sqlite3
import time
from contextlib import ExitStack, closing, nullcontext
from itertools import count, islice
from pathlib import Path

from benchmarks.load import Load, written
from benchmarks.measuring import Case, Results, interleaved, once
from benchmarks.peers import KEY, SUB
from benchmarks.servers import Server, service
from support.service import ROOT

from signer import Signer
from signer.stores.sqlite.store import SQLiteStore

CONNECTIONS = 64
#: Tokens for a second of load: more than any service here can use up.
TOKENS_A_SECOND = 30_000
#: Workers and tokens to find out whether each use is granted once; and how often each token is sent, in
#: consecutive requests, so that many are under way at once.
WORKERS = 8
CONTESTED = 500
#: The service, with each change made by itself.
_ONE_BY_ONE = (
    "-c",
    "import runpy, signer.aio.changes as writer; writer.MOST_TOGETHER = 1;"
    f"runpy.run_path({str(ROOT / 'app.py')!r}, run_name='__main__')",
)
TIMES = 8


def measure(folder: Path, rounds: int, seconds: float, credential: str) -> Results:
    """All that this module measures: rates, and how often a use was granted. Servers run in `folder`."""
    folder.mkdir()
    with ExitStack() as stack:
        plain = stack.enter_context(service(folder / "signer"))
        filed = stack.enter_context(service(folder / "filed", AUDIT_LOG="audit.log"))
        single = stack.enter_context(
            Server(folder / "single", _ONE_BY_ONE, {"SECRET_KEY": KEY, "AUDIT_LOG": "off"})
        )
        store = stack.enter_context(closing(SQLiteStore(folder / "library.db")))
        signer = Signer(KEY, store)
        cases: dict[str, Case] = {
            "one durable commit each": lambda: commits(folder / "commits.db", seconds),
            "Signer.consume, one by one": lambda: _consumed(signer, 1, seconds),
            f"Signer.consume, {CONNECTIONS} together": lambda: _consumed(signer, CONNECTIONS, seconds),
            "POST /app/consume: one by one": lambda: _uses(folder, single, credential, seconds),
            "POST /app/consume: signer": lambda: _uses(folder, plain, credential, seconds),
            "POST /app/consume: signer, audit in a file": lambda: _uses(folder, filed, credential, seconds),
        }
        found = interleaved(cases, rounds, "1/s")
    with service(folder / "many", WEB_CONCURRENCY=str(WORKERS)) as many:
        found[f"uses granted of {CONTESTED}, {WORKERS} workers"] = once(
            "uses", _granted(folder, many, credential)
        )
    return found


def _consumed(signer: Signer, together: int, seconds: float) -> float:
    tokens = iter([signer.issue(sub=SUB) for _ in range(round(max(1, seconds)) * 2 * TOKENS_A_SECOND)])
    used = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        with signer.together() if together > 1 else nullcontext():
            for token in islice(tokens, together):
                signer.consume(token)
                used += 1
    return used / (time.perf_counter() - started)


def commits(path: Path, seconds: float) -> float:
    """How many transactions of one row each, one after the other, an SQLite file at `path` makes durable in a
    second (WAL, synchronous=FULL). A service with a commit for each use cannot exceed it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS uses (jti TEXT PRIMARY KEY, uses INTEGER) WITHOUT ROWID"
        )
        started = time.perf_counter()
        for number in count(1):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO uses VALUES (?, 1) ON CONFLICT (jti) DO UPDATE SET uses = uses + 1",
                (f"{number:022}",),
            )
            connection.execute("COMMIT")
            if time.perf_counter() - started >= seconds:
                break
        return number / (time.perf_counter() - started)


def _uses(folder: Path, server: Server, credential: str, seconds: float) -> float:
    # Made before the measurement; each is used once.
    bodies = _bodies(max(1, round(seconds)) * TOKENS_A_SECOND)
    file = written(folder / "uses.txt", (("/app/consume", body) for body in bodies))
    load = Load("POST", file, credential, cycles=False)
    return load.on(server.port, seconds, CONNECTIONS).rate


def _granted(folder: Path, server: Server, credential: str) -> int:
    # In longer and longer runs, with new tokens in each, until all were sent. A call that is under way at the
    # end is not counted, and can only be a refusal.
    for seconds in (2, 4, 8, 16):
        bodies = [body for body in _bodies(CONTESTED) for _ in range(TIMES)]
        file = written(folder / "contested.txt", (("/app/consume", body) for body in bodies))
        outcome = Load("POST", file, credential).on(server.port, seconds, CONNECTIONS)
        if outcome.requests >= len(bodies) + CONNECTIONS:
            return outcome.good
    raise RuntimeError(f"{outcome.requests} uses in {seconds} s are too few to tell anything")


def _bodies(tokens: int) -> list[str]:
    signer = Signer(KEY)
    return [json.dumps({"token": signer.issue(sub=SUB)}) for _ in range(tokens)]
