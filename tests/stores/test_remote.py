"""A list that is the copy of a service's, kept by GET /app/revocations."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from service import KEY, Service

from signer import Signer, TokenError, Verifier, open_store
from signer.errors import (
    ConfigurationError,
    StoreError,
    StoreRequired,
    TokenRevoked,
    TokenRotated,
    TokenUsed,
)
from signer.stores.base import Row
from signer.stores.feed import PART, Told, part_after, row_of
from signer.stores.memory import MemoryStore
from signer.stores.remote import RemoteStore

EXP = 1_900_000_000
BOUND = 1.0


def credential(scope: str = "token:issue token:revoke token:introspect revocations:read") -> str:
    return Signer(KEY).issue(purpose="signer:client", sub="edge", client_id="edge", scope=scope)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": "off", "TOKEN_GRACE_SECONDS": "0"}
    with Service(tmp_path, settings, credential=credential()) as running:
        yield running


@pytest.fixture
def opened(service: Service) -> Iterator[Callable[..., RemoteStore]]:
    stores = []

    def open_copy(staleness: float = BOUND, secret: str = "") -> RemoteStore:
        store = RemoteStore(f"http://edge:{secret or credential()}@127.0.0.1:{service.port}", staleness, 0.5)
        stores.append(store)
        return store

    yield open_copy
    for store in stores:
        store.close()


def eventually(holds: Callable[[], bool], within: float = 5.0) -> float:
    """Seconds until it does."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + within
        time.sleep(0.01)
    return time.monotonic() - began


def refuses(signer: Signer | Verifier, token: str, error: type[TokenError]) -> Callable[[], bool]:
    def refused() -> bool:
        try:
            signer.validate(token)
        except error:
            return True
        return False

    return refused


@pytest.mark.parametrize(
    ("request_", "how", "error"),
    [
        ({}, lambda token: ("/app/revoke", {"token": token}), TokenRevoked),
        ({"sub": "a/b:ü"}, lambda token: ("/app/revoke", {"sub": "a/b:ü"}), TokenRevoked),
        ({"sid": "s"}, lambda token: ("/app/revoke", {"sid": "s"}), TokenRevoked),
        ({"client_id": "app"}, lambda token: ("/app/revoke", {"client_id": "app"}), TokenRevoked),
        ({"max_uses": 1}, lambda token: ("/app/consume", {"token": token}), TokenUsed),
        ({}, lambda token: ("/app/rotate", {"token": token}), TokenRotated),
    ],
    ids=["token", "sub", "sid", "client_id", "used", "rotated"],
)
def test_what_is_done_there_is_known_here_within_the_bound(
    service: Service,
    opened: Callable[..., RemoteStore],
    request_: dict[str, Any],
    how: Callable[[str], tuple[str, Any]],
    error: type[TokenError],
) -> None:
    """Whatever it is; and what else was issued stays good."""
    signer = Signer(KEY, opened(3.0), grace=0)
    is_others = "client_id" in request_
    token = Signer(KEY).issue(**request_) if is_others else service.issue(**request_)
    other = service.issue(sub="other", sid="other")
    assert signer.validate(token).purpose == "access"
    path, body = how(token)
    assert service.call("POST", path, body).status == 200
    assert eventually(refuses(signer, token, error)) < 3.0
    assert signer.validate(other).sub == "other"
    assert service.says_valid(other)


def test_a_verifier_refuses_what_was_revoked(service: Service, opened: Callable[..., RemoteStore]) -> None:
    """With the key of one purpose and a copy."""
    verifier = Verifier(Signer(KEY).purpose_key("access"), store=opened(3.0))
    token, other, once = service.issue(), service.issue(), service.issue(max_uses=1)
    assert verifier.validate(token).purpose == verifier.validate(once).purpose == "access"
    service.call("POST", "/app/revoke", {"token": token})
    service.call("POST", "/app/consume", {"token": once})
    for each, error in ((token, TokenRevoked), (once, TokenUsed)):
        eventually(refuses(verifier, each, error))
    assert verifier.validate(other)


def test_a_copy_begins_with_all_there_is(service: Service, opened: Callable[..., RemoteStore]) -> None:
    """Also where that is more than a part."""
    tokens = [Signer(KEY).issue() for _ in range(2 * PART + 10)]
    with closing(open_store(f"sqlite:///{service.directory}/tokens.db")) as there:
        signer = Signer(KEY, there)
        with signer.together():
            for token in tokens:
                signer.revoke(token)
    here = Signer(KEY, opened())
    for token in tokens[:: PART // 10]:
        with pytest.raises(TokenRevoked):
            here.validate(token)


def test_it_goes_on_when_the_service_comes_back(service: Service, opened: Callable[..., RemoteStore]) -> None:
    """From where it was; and meanwhile it refuses what it cannot know."""
    store = opened()
    signer = Signer(KEY, store)
    token, other = service.issue(), service.issue()
    service.call("POST", "/app/revoke", {"token": token})
    eventually(refuses(signer, token, TokenRevoked))
    copy = store._copy
    service.kill()
    eventually(lambda: store.freshness.age > BOUND)
    for each in (token, other):
        with pytest.raises(StoreError, match="REVOCATION_STALENESS_SECONDS"):
            signer.validate(each)
    with Service(service.directory, service.settings, port=service.port, credential=service.credential):
        eventually(lambda: store.freshness.age < BOUND)
        assert signer.validate(other)
        with pytest.raises(TokenRevoked):
            signer.validate(token)
        assert store._copy is copy
        service.call("POST", "/app/revoke", {"token": other})
        eventually(refuses(signer, other, TokenRevoked))


def test_another_list_is_read_anew(service: Service, opened: Callable[..., RemoteStore]) -> None:
    """What the copy knew of the one before is forgotten; the service is the one to say what is revoked."""
    store = opened()
    copy = store._copy
    service.kill()
    for file in service.directory.glob("tokens.db*"):
        file.unlink()
    with Service(service.directory, service.settings, port=service.port, credential=service.credential):
        eventually(lambda: store._copy is not copy)
        signer = Signer(KEY, store)
        token = service.issue()
        service.call("POST", "/app/revoke", {"token": token})
        eventually(refuses(signer, token, TokenRevoked))


@pytest.mark.parametrize("secret", ["wrong", credential("token:issue")])
def test_a_credential_that_may_not_read_is_said_at_once(
    opened: Callable[..., RemoteStore], secret: str
) -> None:
    """And is in no message."""
    with pytest.raises(StoreError, match="revocations:read") as error:
        opened(secret=secret)
    assert secret not in str(error.value)
    assert error.value.__cause__ is None


def test_a_copy_changes_nothing(service: Service, opened: Callable[..., RemoteStore]) -> None:
    """What must be known everywhere is done at the service."""
    signer = Signer(KEY, opened())
    token = signer.issue(max_uses=1)
    for change in (signer.revoke, signer.consume, signer.rotate, signer.revoke_subject):
        with pytest.raises((StoreRequired, TokenError)):
            change(token)
    with pytest.raises(StoreRequired, match="at the service"):
        signer.revoke(token)


def test_a_closed_copy_says_so(opened: Callable[..., RemoteStore]) -> None:
    """Again is a no-op."""
    store = opened()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.lookup("", 0, ())


def test_a_copy_is_not_carried_across_fork(opened: Callable[..., RemoteStore]) -> None:
    """Nobody keeps it fresh there."""
    store = opened()
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            store.lookup("", 0, ())
        except StoreError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"fork" in os.read(read, 1000)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://tokens.example.org", "CLIENT:CREDENTIAL"),
        ("https://edge:secret@tokens.example.org?x=y", "CLIENT:CREDENTIAL"),
        ("https://edge:secret@", "CLIENT:CREDENTIAL"),
    ],
)
def test_a_url_that_names_no_service_is_refused(url: str, message: str) -> None:
    """Without telling the secret in it."""
    with pytest.raises(ConfigurationError, match=message) as error:
        open_store(url, staleness=5)
    assert "secret" not in str(error.value)


def test_a_copy_without_a_bound_is_refused() -> None:
    """There is no asking at every turn."""
    with pytest.raises(ConfigurationError, match="REVOCATION_STALENESS_SECONDS"):
        open_store("https://edge:secret@tokens.example.org")


@pytest.mark.parametrize("since", ["x", "WzFd", "W10", "%00", "a" * 5000, "bnVsbA", "W1tdLFtdLFtdXQ"])
def test_a_cursor_that_none_ever_was_begins_anew(service: Service, since: str) -> None:
    """As one does that is forgotten."""
    reply = service.call("GET", f"/app/revocations?since={since}")
    assert (reply.status, reply.json["is_anew"]) == (200, True)


def test_a_cursor_of_another_history_begins_anew() -> None:
    """The same number is not the same moment."""
    one, other = MemoryStore(), MemoryStore()
    for store in (one, other):
        store.revoke("access/x", EXP)
    cursor = part_after(one).next
    assert not part_after(one, cursor).is_anew
    assert part_after(other, cursor).is_anew
    assert part_after(other, cursor).rows == [Told("access/x", EXP, revoked=True)]


def test_guesses_are_not_told() -> None:
    """They are counted where codes are checked, and say who is trying to log in."""
    store = MemoryStore()
    store.use("/guesses/x", EXP, 5)
    assert part_after(store).rows == []


def test_a_row_is_told_as_it_is() -> None:
    """And read as it was told."""
    store = MemoryStore()
    store.rotate("access/x", EXP, 7)
    store.use("access/y", EXP, 3)
    generation = store.advance("sub:alice", 9, 100)
    assert [row_of(told) for told in part_after(store).rows] == [
        Row("sub:alice", 100, generation=generation),
        Row("access/x", EXP, rotated_at=7),
        Row("access/y", EXP, uses=1),
    ]
