"""Whether any of two workers still accepts a token after its revocation was acknowledged, under load."""

import json
import threading
from contextlib import ExitStack, closing
from pathlib import Path

from benchmarks.measuring import Results, once
from benchmarks.peers import KEY, SUB
from benchmarks.servers import Server, exchange, service
from benchmarks.throughput import requests

from signer import Signer

#: Tokens that are revoked, and connections that validate each: enough that both workers have some.
TOKENS = 200
CONNECTIONS = 16


def measure(folder: Path, seconds: float, credential: str) -> Results:
    """How many answers called a revoked token valid, and the number of answers. The service runs in
    `folder`."""
    folder.mkdir()
    load = requests(folder)
    with service(folder / "signer", WEB_CONCURRENCY="2") as server:
        busy = threading.Thread(target=load.on, args=(server.port, seconds, 8))
        busy.start()
        asked, stale = _stale(server, credential)
        busy.join(120)
    return {
        "visibility: answers after a revocation": once("answers", asked),
        "visibility: of these stale": once("answers", stale),
    }


def _stale(server: Server, credential: str) -> tuple[int, int]:
    signer = Signer(KEY)
    asked = stale = 0
    with ExitStack() as stack:
        # Opened under load, so that both workers accept some of them.
        connections = [stack.enter_context(closing(server.client())) for _ in range(CONNECTIONS)]
        for number in range(TOKENS):
            token = signer.issue(sub=SUB)
            path = f"/app/valid/{token}"
            # Each worker has validated the token before it is revoked.
            before = [_is_good(exchange(connection, "GET", path)) for connection in connections]
            revoker = connections[number % CONNECTIONS]
            status, _ = exchange(revoker, "POST", "/app/revoke", {"token": token}, credential)
            if status != 200 or not all(before):
                raise RuntimeError(f"The token was refused before it was revoked, or not revoked: {status}")
            for connection in connections:
                asked += 1
                stale += _is_good(exchange(connection, "GET", path))
    return asked, stale


def _is_good(answer: tuple[int, bytes]) -> bool:
    return answer[0] == 200 and json.loads(answer[1])["status"] is True
