"""Several services with one list, on an engine that machines share."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.clock import eventually
from support.postgres import Postgres
from support.service import KEY, Service, cli

from signer import Signer

pytestmark = pytest.mark.slow

SCOPES = "token:issue token:introspect token:revoke token:purge metrics:read revocations:read read"


def credential() -> str:
    return Signer(KEY).issue(purpose="signer:client", sub="tests", client_id="tests", scope=SCOPES)


@pytest.fixture
def nodes(tmp_path: Path, engine_url: str) -> Iterator[Callable[..., list[Service]]]:
    """Starts so many services, each in its own folder, as if on its own machine."""
    with ExitStack() as stack:

        def started(count: int, staleness: int, **settings: str) -> list[Service]:
            services = []
            for number in range(count):
                folder = tmp_path / f"node{number}"
                folder.mkdir(exist_ok=True)
                chosen = {
                    "SECRET_KEY": KEY,
                    "AUDIT_LOG": "off",
                    "DATABASE_URL": engine_url,
                    "REVOCATION_STALENESS_SECONDS": str(staleness),
                }
                service = Service(folder, chosen | settings, credential=credential())
                services.append(stack.enter_context(service))
            return services

        yield started


@pytest.mark.parametrize("staleness", [0, 5])
def test_what_one_revokes_all_refuse(nodes: Callable[..., list[Service]], staleness: int) -> None:
    """At once if the engine is asked, and within the bound if a copy is."""
    one, other = nodes(2, staleness)
    tokens = [one.issue(sub="alice"), one.issue(), one.issue(sid="s")]
    good = one.issue(sub="bob")
    asked: list[dict[str, Any]] = [{"sub": "alice"}, {"token": tokens[1]}, {"sid": "s"}]
    for token, body in zip(tokens, asked, strict=True):
        assert other.says_valid(token)
        assert one.call("POST", "/app/revoke", body).status == 200
        until = time.monotonic() + staleness
        while staleness and other.says_valid(token) and time.monotonic() < until:
            time.sleep(0.02)
        assert not other.says_valid(token)
    assert other.says_valid(good)
    assert one.says_valid(one.issue(sub="alice"))


@pytest.mark.parametrize("staleness", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_of_four_services_one_grants_a_use(nodes: Callable[..., list[Service]], staleness: int) -> None:
    """However many callers try at the same moment."""
    services = nodes(4, staleness)
    for _ in range(10):
        token = services[0].issue(max_uses=1)
        together = threading.Barrier(8)

        def consume(service: Service, token: str = token, together: threading.Barrier = together) -> int:
            together.wait()
            return service.call("POST", "/app/consume", {"token": token}).status

        with ThreadPoolExecutor(8) as pool:
            statuses = sorted(pool.map(consume, services * 2))
        assert statuses == [200] + [409] * 7


def test_codes_and_chains_are_shared(nodes: Callable[..., list[Service]]) -> None:
    """A code is accepted once, and a token traded once, whichever service is asked."""
    one, other = nodes(2, 2)
    challenge = one.call("POST", "/app/code", {"sub": "42"}).json
    answer = {"token": challenge["token"], "code": challenge["code"]}
    assert other.call("POST", "/app/code/verify", answer).status == 200
    assert one.call("POST", "/app/code/verify", answer).json["code"] == "token_used"
    token = one.issue(sub="alice")
    successors = {
        service.call("POST", "/app/rotate", {"token": token}).json["jti"] for service in (one, other)
    }
    assert len(successors) == 1


def test_a_purge_is_everybodys(nodes: Callable[..., list[Service]], engine_url: str) -> None:
    """It can run on any machine, from cron."""
    (one,) = nodes(1, 1)
    token = one.issue(ttl=1)
    assert one.call("POST", "/app/revoke", {"token": token}).status == 200
    purged = cli(one.directory, "purge", SECRET_KEY=KEY, DATABASE_URL=engine_url)
    assert purged.returncode == 0, purged.stderr
    assert one.call("DELETE", "/app/clear/all/tokens").json["purged"] == 0
    assert not one.says_valid(token)


def test_the_feed_is_of_any_engine(nodes: Callable[..., list[Service]], tmp_path: Path) -> None:
    """So a service can follow a service that follows an engine."""
    (one,) = nodes(1, 1)
    edge = tmp_path / "edge"
    edge.mkdir()
    settings = {
        "SECRET_KEY": KEY,
        "AUDIT_LOG": "off",
        "DATABASE_URL": f"http://tests:{one.credential}@127.0.0.1:{one.port}",
        "REVOCATION_STALENESS_SECONDS": "5",
    }
    with Service(edge, settings, credential=one.credential) as copy:
        token = one.issue()
        assert copy.says_valid(token)
        one.call("POST", "/app/revoke", {"token": token})
        eventually(lambda: not copy.says_valid(token))
        reply = copy.call("POST", "/app/revoke", {"token": token})
        assert (reply.status, reply.json["code"]) == (501, "store_required")


def test_the_metrics_tell_how_old_the_copy_is(nodes: Callable[..., list[Service]]) -> None:
    """Which is less than the bound."""
    (one,) = nodes(1, 2)
    text = one.call("GET", "/metrics").raw.decode()
    told = dict(line.split(" ") for line in text.splitlines() if line.startswith("signer_store_copy_"))
    assert 0 <= float(told["signer_store_copy_age_seconds"]) < 2
    assert 0 <= float(told["signer_store_copy_lag_seconds"]) < 2


@pytest.mark.parametrize("staleness", [0, 1])
def test_an_engine_that_hangs_holds_nobody_up(tmp_path: Path, staleness: int) -> None:
    """Callers get an error soon, however many they are, and calls that need no list are answered at once."""
    server = Postgres()
    try:
        settings = {
            "SECRET_KEY": KEY,
            "AUDIT_LOG": "off",
            "DATABASE_URL": server.url,
            "REVOCATION_STALENESS_SECONDS": str(staleness),
        }
        with Service(tmp_path, settings, credential=credential()) as service:
            token = service.issue()
            server.signal(signal.SIGSTOP)
            time.sleep(staleness)
            with ThreadPoolExecutor(320) as pool:
                answers = [
                    pool.submit(service.call, "POST", path, body)
                    for path, body in [("/app/valid", {"token": token}), ("/app/revoke", {"token": token})]
                    * 160
                ]
                time.sleep(0.5)
                assert service.call("GET", "/healthz").status == 200
                service.credential, known = None, service.credential
                assert service.call("POST", "/app/token", {}).status == 401  # no list is needed
                service.credential = known
                assert {answer.result().status for answer in answers} == {503}
            server.signal(signal.SIGCONT)
            eventually(lambda: service.call("POST", "/app/valid", {"token": token}).status == 200)
            assert service.call("POST", "/app/revoke", {"token": token}).status == 200
    finally:
        server.remove()
