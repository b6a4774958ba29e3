"""RATE_LIMIT, and how it tells callers apart."""

import asyncio
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.clock import eventually
from support.service import KEY, Reply, Service, cli, client, environment, free_port

from signer.errors import ConfigurationError, RateLimited, StoreError
from signer.events import origin
from signer.web.access.counters import Counters
from signer.web.access.limits import ISSUE, Limits
from signer.web.telemetry.calls import Call, current, network

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def credential(directory: Path, name: str = "tests") -> str:
    scopes = "token:issue token:introspect read"
    return client(name, scopes)


def left(reply: Reply) -> int:
    found = re.search(r";r=(\d+);", reply.headers["RateLimit"])
    assert found
    return int(found[1])


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("limited")
    settings = {"SECRET_KEY": KEY, "RATE_LIMIT": "5/minute", "TRUSTED_PROXIES": "127.0.0.1"}
    with Service(directory, settings) as running:
        yield running


def test_a_client_issues_so_many_and_no_more(limited: Service) -> None:
    """429 with Retry-After and the calls that are left. Other clients and other kinds of calls are not
    affected."""
    mine, other = credential(limited.directory, "mine"), credential(limited.directory, "other")
    replies = [limited.call("POST", "/app/token", credential=mine) for _ in range(6)]
    assert [reply.status for reply in replies] == [200] * 5 + [429]
    assert [left(reply) for reply in replies] == [4, 3, 2, 1, 0, 0]
    refused = replies[-1]
    assert refused.json["code"] == "rate_limited"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit-Policy"] == '"issue/60";q=5;w=60'
    assert re.fullmatch(r'"issue/60";r=0;t=\d+', refused.headers["RateLimit"])
    assert limited.call("POST", "/app/token", credential=other).status == 200
    token = replies[0].json["token"]
    assert limited.call("POST", "/app/valid", {"token": token}, credential=mine).status == 200
    assert limited.says_valid(token)


@pytest.mark.parametrize("how", ["many", "code", "oauth"])
def test_every_way_to_issue_is_counted(limited: Service, how: str) -> None:
    """A batch counts as many calls as it has requests."""
    mine = credential(limited.directory, how)

    def ask() -> Reply:
        if how == "many":
            return limited.call("POST", "/app/tokens", {"tokens": [{}, {}]}, credential=mine)
        if how == "code":
            return limited.call("POST", "/app/code", {"sub": "42"}, credential=mine)
        return limited.call("POST", "/oauth/token", b"grant_type=client_credentials", FORM, mine)

    replies = [ask() for _ in range(6)]
    allowed = 2 if how == "many" else 5
    assert [reply.status for reply in replies] == [200] * allowed + [429] * (6 - allowed)
    if how == "oauth":
        assert replies[-1].json["error"] == "temporarily_unavailable"


def test_guesses_at_codes_are_counted(limited: Service) -> None:
    """Before they are checked, so that the challenge's own guesses remain."""
    mine = credential(limited.directory, "guesser")
    guess = {"token": "x", "code": "000000"}
    statuses = [limited.call("POST", "/app/code/verify", guess, credential=mine).status for _ in range(6)]
    assert statuses == [409] * 5 + [429]


def forwarded(service: Service, address: str, token: str) -> Reply:
    return service.call("POST", "/app/token", headers={"X-Forwarded-For": address}, credential=token)


def test_refused_credentials_are_counted_by_address(limited: Service) -> None:
    """The address is the one that a trusted proxy names. Valid credentials still pass: a client must not be
    locked out because a stranger at the same address guesses."""
    statuses = [forwarded(limited, "192.0.2.1", "x").status for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    assert forwarded(limited, "192.0.2.2", "x").status == 401
    assert forwarded(limited, "192.0.2.1", credential(limited.directory, "good")).status == 200
    # Values that the caller itself sends are further left.
    assert forwarded(limited, "192.0.2.9, 192.0.2.1", "x").status == 429


def test_machines_of_one_ipv6_network_are_one_caller(limited: Service) -> None:
    """Each machine has 2^64 addresses to call from."""
    statuses = [forwarded(limited, f"2001:db8:0:1::{number}", "x").status for number in range(6)]
    assert statuses == [401] * 5 + [429]
    assert forwarded(limited, "2001:db8:0:2::1", "x").status == 401


def test_forwarding_headers_of_anybody_else_are_not_believed(tmp_path: Path) -> None:
    """Without TRUSTED_PROXIES, any caller could choose another address for each call, and one for the log."""
    with Service(tmp_path, {"SECRET_KEY": KEY, "RATE_LIMIT": "2/minute"}) as service:
        statuses = [forwarded(service, f"192.0.2.{number}", "x").status for number in range(3)]
        assert statuses == [401, 401, 429]
        assert "192.0.2" not in service.log
        assert "address=127.0.0.1" in service.log


def test_an_address_that_is_none_is_not_logged(limited: Service) -> None:
    """A trusted proxy may pass on an invented one."""
    for made_up in ("sgt_made.up", "fe80::1%sgt_made.up", "x" * 5000, "\x9b31mred"):
        assert forwarded(limited, made_up, "x").status in (401, 429)
    assert "sgt_made" not in limited.log
    assert "red" not in re.findall("address=.*", limited.log)[-1]


def test_it_passes_again_after_retry_after(tmp_path: Path) -> None:
    """The header is right."""
    settings = {"SECRET_KEY": KEY, "RATE_LIMIT": "2/second"}
    with Service(tmp_path, settings, credential=credential(tmp_path)) as service:
        while (reply := service.call("POST", "/app/token")).status == 200:
            pass
        assert reply.headers["Retry-After"] == "1"
        time.sleep(1)
        assert service.call("POST", "/app/token").status == 200


def test_several_limits_hold_together(tmp_path: Path) -> None:
    """The tightest one decides, and the headers name each."""
    settings = {"SECRET_KEY": KEY, "RATE_LIMIT": "100/second;3/hour"}
    with Service(tmp_path, settings, credential=credential(tmp_path)) as service:
        replies = [service.call("POST", "/app/token") for _ in range(4)]
        assert [reply.status for reply in replies] == [200] * 3 + [429]
        assert replies[0].headers["RateLimit-Policy"] == '"issue/1";q=100;w=1, "issue/3600";q=3;w=3600'
        assert int(replies[3].headers["Retry-After"]) > 3000


def test_without_it_nothing_is_counted_or_told(production: Service) -> None:
    """There are no headers, and no limit."""
    reply = production.call("POST", "/app/token")
    assert reply.status == 200
    assert "RateLimit" not in reply.headers


def test_a_missing_library_is_one_line(tmp_path: Path) -> None:
    """`limits` is an optional dependency."""
    program = "import sys; sys.modules['limits'] = None; from signer.web.access.limits import Limits; Limits('1/minute')"
    made = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    assert "ConfigurationError: RATE_LIMIT needs: pip install 'signer-tokens[limits]'" in made.stderr


def test_a_network_is_what_one_caller_has() -> None:
    """A whole IPv4 address, also in IPv6 notation; 64 bits of an IPv6 address."""
    assert network("192.0.2.1") == "192.0.2.1"
    assert network("::ffff:192.0.2.1") == "192.0.2.1"
    assert network("64:ff9b::192.0.2.1") == "64:ff9b::192.0.2.1"
    assert network("2001:db8::1:2:3:4") == "2001:db8::"
    assert network(None) == ""
    assert current() == Call()


def listens(port: int) -> bool:
    """Whether a server listens on this port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The URL of a private Redis server."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        eventually(lambda: listens(port))
        yield f"redis://127.0.0.1:{port}"
        process.terminate()


def test_on_redis_all_machines_count_together(redis: str) -> None:
    """Two counters share a client's count. If one cannot count, that is an error, and the call does not
    pass."""

    async def run() -> None:
        origin.set(Call(actor="billing"))
        here, there = Limits("3/minute", redis), Limits("3/minute", redis)
        for limits in (here, there, here):
            await limits.count(ISSUE)
        for limits in (here, there):
            with pytest.raises(RateLimited):
                await limits.count(ISSUE)
        nowhere = Limits("3/minute", f"redis://127.0.0.1:{free_port()}")
        with pytest.raises(StoreError):
            await nowhere.count(ISSUE)
        for limits in (here, there, nowhere):
            await limits.close()

    asyncio.run(run())


def test_an_engine_without_a_driver_is_an_error() -> None:
    """The message names the setting."""
    for url in ("nonsense://", "redis://:secret@[::1", "redis://:secret@h:99999/0"):
        with pytest.raises(ConfigurationError, match="RATE_LIMIT_STORAGE") as caught:
            Limits("1/minute", url)
        assert "secret" not in str(caught.value)


def test_a_client_named_like_an_address_is_not_that_address(limited: Service) -> None:
    """Calls of strangers do not count as the client's."""
    for _ in range(6):
        forwarded(limited, "192.0.2.77", "x")
    mine = credential(limited.directory, "192.0.2.77")
    assert forwarded(limited, "192.0.2.77", mine).status == 200


def test_rotating_is_counted_as_issuing(limited: Service) -> None:
    """It makes tokens, too."""
    mine = credential(limited.directory, "rotating")
    token = limited.call("POST", "/app/token", {"scope": "read"}, credential=mine).json["token"]
    statuses = []
    for _ in range(5):
        reply = limited.call("POST", "/app/rotate", {"token": token}, credential=mine)
        statuses.append(reply.status)
    assert statuses == [200] * 4 + [429]


def test_counters_hold_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many addresses strangers use: the oldest windows are forgotten, and windows that have ended do
    no harm."""
    monkeypatch.setattr("signer.web.access.counters.MAX_WINDOWS", 100)

    async def run() -> None:
        counters = Counters()
        for number in range(1000):
            assert await counters.incr(str(number), 60) == 1
            assert len(counters._windows) <= 100
        assert await counters.get("999") == 1
        assert await counters.get("0") == 0
        await counters.clear("999")
        assert await counters.get("999") == 0
        assert await counters.incr("short", 0.01, amount=5) == 5
        await asyncio.sleep(0.02)
        assert await counters.incr("short", 60) == 1
        assert await counters.get_expiry("short") > time.time() + 59
        assert await counters.check()
        assert await counters.reset() > 0

    asyncio.run(run())


@pytest.mark.slow
def test_workers_count_together_on_redis(tmp_path: Path, redis: str) -> None:
    """Exactly, whichever worker answers. Without the server, nothing is issued, but everything can be
    validated."""
    settings = {
        "SECRET_KEY": KEY, "RATE_LIMIT": "10/minute", "RATE_LIMIT_STORAGE": f"{redis}/0", "WEB_CONCURRENCY": "3",
    }  # fmt: skip
    with (
        Service(tmp_path, settings, credential=credential(tmp_path)) as service,
        ThreadPoolExecutor(8) as pool,
    ):
        statuses = list(pool.map(lambda _: service.call("POST", "/app/token").status, range(40)))
        assert sorted(statuses) == [200] * 10 + [429] * 30
    settings["RATE_LIMIT_STORAGE"] = f"redis://:secret@127.0.0.1:{free_port()}"
    with Service(tmp_path, settings, credential=credential(tmp_path)) as service:
        reply = service.call("POST", "/app/token")
        assert (reply.status, reply.json["code"]) == (503, "store_unavailable")
        assert not service.says_valid("x")
        assert "secret" not in service.log
    shown = cli(tmp_path, "check", **settings).stdout
    assert "secret" not in shown
    assert "RATE_LIMIT_STORAGE" in shown
