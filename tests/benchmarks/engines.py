"""A list on another machine: what validations and changes cost, and how soon all services know of a change.

The engines are private servers of this machine, on the same cores as the service and the load.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.load import Load, written
from benchmarks.measuring import Results, Sample, once
from benchmarks.peers import KEY
from benchmarks.servers import Server, exchange, service
from benchmarks.throughput import requests
from support.postgres import Postgres
from support.redis_server import Redis

from signer import Signer
from signer.stores.opening import create_list

#: The bounds that are measured, in seconds.
BOUNDS = 0, 5
ENGINES = "PostgreSQL", "Redis"
#: Tokens that are revoked at one service and validated at another.
TOKENS = 100


def measure(folder: Path, seconds: float, credential: str) -> Results:
    """Rates of validations and of revocations, and the time from an acknowledgement until the other service
    refuses."""
    folder.mkdir()
    found: Results = {}
    for engine in ENGINES:
        with _url(engine, folder) as url:
            for bound in BOUNDS:
                settings = {"DATABASE_URL": url, "REVOCATION_STALENESS_SECONDS": str(bound)}
                measured = _services(folder / f"{engine}-{bound}", settings, seconds, credential)
                found |= {f"{engine}, bound {bound} s: {what}": sample for what, sample in measured.items()}
    return found


@contextmanager
def _url(engine: str, folder: Path) -> Iterator[str]:
    if engine == "PostgreSQL":
        server = Postgres("fsync=on")
        try:
            yield server.url
        finally:
            server.remove()
        return
    (folder / "redis").mkdir()
    with Redis(folder / "redis", "appendonly yes", "appendfsync always") as running:
        create_list(running.url)
        yield running.url


def _services(folder: Path, settings: dict[str, str], seconds: float, credential: str) -> Results:
    folder.mkdir()
    bodies = (("/app/revoke", json.dumps({"token": Signer(KEY).issue()})) for _ in range(5000))
    changes = Load("POST", written(folder / "revoke.txt", bodies), credential)
    with (
        service(folder / "one", is_read=False, **settings) as one,
        service(folder / "other", is_read=False, **settings) as other,
    ):
        return {
            "until all refuse": Sample("ms", tuple(_delays(one, other, credential))),
            "GET /app/valid": once("1/s", requests(folder).on(one.port, seconds).rate),
            "POST /app/revoke": once("1/s", changes.on(one.port, seconds, 64).rate),
        }


def _delays(one: Server, other: Server, credential: str) -> Iterator[float]:
    here, there = one.client(), other.client()
    for _ in range(TOKENS):
        token = Signer(KEY).issue()
        exchange(here, "POST", "/app/revoke", {"token": token}, credential)
        acknowledged = time.perf_counter()
        while json.loads(exchange(there, "GET", f"/app/valid/{token}")[1])["status"]:
            pass
        yield (time.perf_counter() - acknowledged) * 1000
    here.close()
    there.close()
