"""Changes made together, through the service."""

import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from support.clock import eventually
from support.service import KEY, Service, cli

from signer import Signer


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    scope = "token:introspect token:revoke metrics:read"
    made = cli(tmp_path, "client", "tests", "--scope", scope, "--ttl", "1d", SECRET_KEY=KEY)
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": str(tmp_path / "audit.log"), "WEB_CONCURRENCY": "2"}
    with Service(tmp_path, settings, credential=made.stdout.strip()) as running:
        running.wait_until_started(2)
        yield running


def test_changes_that_wait_are_made_together(tmp_path: Path, service: Service) -> None:
    """While the list is locked, sixty callers arrive. Afterwards a few commits contain all their changes, and
    each change has its line in the audit trail."""
    tokens = [Signer(KEY).issue() for _ in range(60)]
    with (
        closing(sqlite3.connect(tmp_path / "tokens.db", isolation_level=None)) as lock,
        ThreadPoolExecutor(60) as pool,
    ):
        lock.execute("BEGIN IMMEDIATE")
        calls = [pool.submit(service.call, "POST", "/app/consume", {"token": token}) for token in tokens]
        eventually(lambda: waiting(service) == 60)
        rings: list[bytes] = []
        watching = threading.Event()
        watcher = threading.Thread(target=watch, args=(tmp_path / "tokens.db-bell", rings, watching))
        watcher.start()
        lock.execute("ROLLBACK")
        assert [call.result().status for call in calls] == [200] * 60
        watching.set()
        watcher.join()
    assert 1 <= len(rings) <= 15  # of two workers
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [(line["event"], line["outcome"]) for line in lines] == [("consume", "ok")] * 60
    assert len({line["request_id"] for line in lines}) == len({line["jti"] for line in lines}) == 60
    replies = [service.call("POST", "/app/consume", {"token": token}) for token in tokens]
    assert {reply.json["code"] for reply in replies} == {"token_used"}


def waiting(service: Service) -> float:
    """How many changes wait."""
    page = service.call("GET", "/metrics").raw.decode()
    return float(re.findall(r"^signer_changes_waiting (.*)$", page, re.MULTILINE)[0])


def watch(bell: Path, rings: list[bytes], until: threading.Event) -> None:
    known = bell.read_bytes()
    while not until.wait(0.0002):
        number = bell.read_bytes()
        if number != known:
            rings.append(number)
            known = number


def test_one_of_many_that_is_refused_refuses_no_other(service: Service) -> None:
    """One token is used by thirty callers at once, among thirty tokens that are used once."""
    same, others = Signer(KEY).issue(), [Signer(KEY).issue() for _ in range(30)]
    with ThreadPoolExecutor(60) as pool:
        calls = [
            pool.submit(service.call, "POST", "/app/consume", {"token": token})
            for token in [same] * 30 + others
        ]
        answered = [call.result().status for call in calls]
    assert sorted(answered[:30]) == [200] + [409] * 29
    assert answered[30:] == [200] * 30


@pytest.mark.slow
def test_neither_worker_accepts_what_one_was_told_is_revoked(service: Service) -> None:
    """Under load, four hundred times: once the revocation is acknowledged, no caller learns that the token is
    valid."""
    signer = Signer(KEY)
    busy, done = signer.issue(), threading.Event()

    def accepts(token: str) -> bool:
        # On a starved machine a look-up may be refused with 503, which does not mean "valid".
        return bool(service.call("GET", f"/app/valid/{token}").json["status"])

    def load() -> int:
        count = 0
        while not done.is_set():
            count += accepts(busy)
        return count

    def revoke_and_ask() -> int:
        accepted = 0
        for _ in range(100):
            token = signer.issue(sub="42")
            eventually(partial(accepts, token))
            assert service.call("POST", "/app/revoke", {"token": token}).status == 200
            # On a new connection each, so that any worker may accept it.
            accepted += sum(accepts(token) for _ in range(4))
        return accepted

    with ThreadPoolExecutor(6) as pool:
        loads = [pool.submit(load) for _ in range(2)]
        asked = [pool.submit(revoke_and_ask) for _ in range(4)]
        try:
            assert [call.result() for call in asked] == [0] * 4
        finally:
            done.set()
        assert all(call.result() > 0 for call in loads)
