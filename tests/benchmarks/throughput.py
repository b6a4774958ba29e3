"""Requests a second over HTTP, beside servers that do nothing and the stand-in for the original service.

All servers run from the beginning to the end, and get their load in turn, on 32 connections. The service
writes its log to a file; if its audit trail goes to standard output, a program reads it there.
"""

import asyncio
import json
import logging
from contextlib import ExitStack
from pathlib import Path

from benchmarks.load import Load, written
from benchmarks.measuring import Case, Results, interleaved, once
from benchmarks.peers import KEY, SCOPE, SUB
from benchmarks.servers import Server, service

from signer import Signer

logger = logging.getLogger(__name__)

ORIGINAL_ROWS = 100_000
#: Different tokens in the requests.
TOKENS = 1000
#: Tokens in a batch: the service accepts one of these numbers, the greater if it can.
BATCHES = 1000, 100
RATE = "1/s"
_ISSUE = "/app/token", json.dumps({"sub": SUB, "scope": SCOPE})


def measure(folder: Path, rounds: int, seconds: float, credential: str) -> Results:
    """All that this module measures: rates, and how they were measured. The servers run in `folder`."""
    folder.mkdir()
    valid, issue = requests(folder), Load("POST", written(folder / "issue.txt", [_ISSUE]), credential)
    with ExitStack() as stack:
        plain = stack.enter_context(service(folder / "signer"))
        quiet = stack.enter_context(_quiet(folder / "quiet"))
        two = stack.enter_context(service(folder / "two", WEB_CONCURRENCY="2"))
        filed = stack.enter_context(service(folder / "filed", AUDIT_LOG="audit.log"))
        told = stack.enter_context(service(folder / "told", AUDIT_LOG="stdout", is_read=True))
        constants = ("-m", "benchmarks.constants")
        constant = stack.enter_context(Server(folder / "constant", constants))
        pair = stack.enter_context(Server(folder / "pair", constants, {"WEB_CONCURRENCY": "2"}))
        corked = stack.enter_context(Server(folder / "corked", constants, {"OWN_PROTOCOL": "true"}))
        bare = stack.enter_context(_stock_uvicorn(folder / "bare", "constants:bare_app", "--no-access-log"))
        original = stack.enter_context(_stock_uvicorn(folder / "original", "original:app"))
        asked = _fill_original(folder, original)
        batch, size = _batch(folder, plain, credential)
        for server, load in ((plain, valid), (original, asked)):
            _check(server, load)
        cases: dict[str, Case] = {
            "GET /app/valid: bare ASGI constant": lambda: _rate(valid, bare, seconds),
            "GET /app/valid: Starlette constant": lambda: _rate(valid, constant, seconds),
            "GET /app/valid: Starlette constant, 2 workers": lambda: _rate(valid, pair, seconds),
            "GET /app/valid: Starlette constant, our protocol": lambda: _rate(valid, corked, seconds),
            "GET /app/valid: signer": lambda: _rate(valid, plain, seconds),
            "GET /app/valid: signer, both off": lambda: _rate(valid, quiet, seconds),
            "GET /app/valid: signer, 2 workers": lambda: _rate(valid, two, seconds),
            "GET /app/valid: original": lambda: _rate(asked, original, seconds),
            "POST /app/token: Starlette constant": lambda: _rate(issue, constant, seconds),
            "POST /app/token: Starlette constant, our protocol": lambda: _rate(issue, corked, seconds),
            "POST /app/token: signer": lambda: _rate(issue, plain, seconds),
            "POST /app/token: signer, both off": lambda: _rate(issue, quiet, seconds),
            "POST /app/token: signer, audit on stdout": lambda: _rate(issue, told, seconds),
            "POST /app/token: signer, audit in a file": lambda: _rate(issue, filed, seconds),
            "POST /app/token: original": lambda: _rate(issue, original, seconds),
            "POST /app/valid, tokens: signer": lambda: _rate(batch, plain, seconds) * size,
        }
        return {
            **interleaved(cases, rounds, RATE),
            "POST /app/valid, tokens in a request": once("tokens", size),
            "both off, metrics still counting": once("services", _counts(quiet, credential)),
        }


def requests(folder: Path) -> Load:
    """GET /app/valid/{token} with many good tokens. The file is in `folder`."""
    tokens = _tokens(TOKENS)
    return Load("GET", written(folder / "valid.txt", ((f"/app/valid/{token}", "") for token in tokens)))


def _rate(load: Load, server: Server, seconds: float) -> float:
    outcome = load.on(server.port, seconds)
    if outcome.refused or outcome.errors:
        name = server.directory.name
        logger.warning("  %s: %d requests refused, %d failed", name, outcome.refused, outcome.errors)
    return outcome.rate


def _tokens(count: int) -> list[str]:
    signer = Signer(KEY)
    return [signer.issue(sub=SUB, scope=SCOPE) for _ in range(count)]


def _quiet(directory: Path) -> Server:
    """The service without a request log and, if it has the setting, without metrics."""
    server = service(directory, LOG_LEVEL="warning", METRICS="false")
    try:
        with server:
            return server
    except RuntimeError:
        return service(directory, LOG_LEVEL="warning")


def _stock_uvicorn(directory: Path, app: str, *options: str) -> Server:
    return Server(directory, ("-m", "uvicorn", f"benchmarks.{app}", "--port", "{port}", *options))


def _fill_original(folder: Path, original: Server) -> Load:
    # Imported late, so that this file can be read without the peers of the benchmarks.
    from benchmarks.original import fill

    url = f"sqlite+aiosqlite:///{original.directory / 'original.db'}"
    tokens = asyncio.run(fill(url, ORIGINAL_ROWS))[:: ORIGINAL_ROWS // TOKENS]
    return Load("GET", written(folder / "original.txt", ((f"/app/valid/{token}", "") for token in tokens)))


def _batch(folder: Path, server: Server, credential: str) -> tuple[Load, int]:
    """Requests with as many tokens as the service accepts in one, and that number."""
    for size in BATCHES:
        bodies = [json.dumps({"tokens": _tokens(size), "purpose": "access"}) for _ in range(4)]
        status, answer = server.call("POST", "/app/valid", json.loads(bodies[0]), credential)
        if status == 200 and json.loads(answer)["status"]:
            file = written(folder / "batch.txt", (("/app/valid", body) for body in bodies))
            return Load("POST", file, credential), size
    raise RuntimeError(f"POST /app/valid takes no batch: {answer.decode()}")


def _check(server: Server, load: Load) -> None:
    """Raise if the server does not call the first of these tokens valid: a fast wrong answer is no rate."""
    path = load.file.read_text().partition("\t")[0]
    status, answer = server.call("GET", path)
    if status != 200 or json.loads(answer)["status"] is not True:
        raise RuntimeError(f"A good token was refused: {status} {answer.decode()}")


def _counts(server: Server, credential: str) -> int:
    """1 if the service counts requests nevertheless, 0 if it does not."""
    status, answer = server.call("GET", "/metrics", credential=credential)
    return int(status == 200 and b"\nsigner_http_requests_total{" in answer)
