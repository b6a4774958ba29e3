"""A list that is the copy of a service's, kept by GET /app/revocations."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.clock import eventually
from support.service import KEY, Service

from signer import Signer, Store, TokenError, Verifier, open_store
from signer.errors import (
    ConfigurationError,
    StoreError,
    StoreRequired,
    TokenRevoked,
    TokenRotated,
    TokenUsed,
)
from signer.policy import MAX_CURSOR
from signer.stores.contract import Row
from signer.stores.copies.feed import PART_SIZE, FeedPart, FeedRow, part_after, row_of
from signer.stores.copies.remote import RemoteStore, _parsed
from signer.stores.memory import MemoryStore
from signer.stores.timed import TimedStore
from signer.tokens.claims import Claims
from signer.tokens.codec import Codec
from signer.tokens.keys import KeyRing, base64url

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
    """Every kind of change. Other tokens stay valid."""
    signer = Signer(KEY, opened(3.0), grace=0)
    is_others = "client_id" in request_
    token = Signer(KEY).issue(**request_) if is_others else service.issue(**request_)
    other = service.issue(sub="other", sid="other")
    assert signer.validate(token).purpose == "access"
    path, body = how(token)
    assert service.call("POST", path, body).status == 200
    eventually(refuses(signer, token, error))
    assert signer.validate(other).sub == "other"
    assert service.says_valid(other)


def test_a_verifier_refuses_what_was_revoked(service: Service, opened: Callable[..., RemoteStore]) -> None:
    """With the key of one purpose, and a copy."""
    verifier = Verifier(Signer(KEY).purpose_key("access"), store=opened(3.0))
    token, other, once = service.issue(), service.issue(), service.issue(max_uses=1)
    assert verifier.validate(token).purpose == verifier.validate(once).purpose == "access"
    service.call("POST", "/app/revoke", {"token": token})
    service.call("POST", "/app/consume", {"token": once})
    for each, error in ((token, TokenRevoked), (once, TokenUsed)):
        eventually(refuses(verifier, each, error))
    assert verifier.validate(other)


def test_a_copy_refuses_a_generation_that_cannot_be(
    service: Service, opened: Callable[..., RemoteStore]
) -> None:
    """An attacker with a leaked key chose it, so that no revocation of a group would refuse the token."""
    here = Signer(KEY, opened(60.0))
    service.call("POST", "/app/revoke", {"sub": "42"})
    token = service.issue(sub="42")
    assert here.validate(token).gen > 0
    now = int(time.time())
    for generation, is_refused in (((now + 60) * 1000, False), ((now + 600) * 1000, True), (2**53, True)):
        claims = Claims(jti="f" * 22, exp=now + 600, purpose="access", sub="42", gen=generation)
        with pytest.raises(TokenRevoked) if is_refused else nullcontext():
            here.validate(Codec(KeyRing(KEY)).encode(claims, now))


def test_a_copy_begins_with_all_there_is(service: Service, opened: Callable[..., RemoteStore]) -> None:
    """Even if that takes more than one part."""
    tokens = [Signer(KEY).issue() for _ in range(2 * PART_SIZE + 10)]
    with closing(open_store(f"sqlite:///{service.directory}/tokens.db")) as there:
        signer = Signer(KEY, there)
        with signer.together():
            for token in tokens:
                signer.revoke(token)
    here = Signer(KEY, opened())
    for token in tokens[:: PART_SIZE // 10]:
        with pytest.raises(TokenRevoked):
            here.validate(token)


def test_it_goes_on_when_the_service_comes_back(service: Service, opened: Callable[..., RemoteStore]) -> None:
    """It continues where it was, and until then refuses every token."""
    store = opened()
    signer = Signer(KEY, store)
    token, other = service.issue(), service.issue()
    service.call("POST", "/app/revoke", {"token": token})
    eventually(refuses(signer, token, TokenRevoked))
    copy = store._copy
    service.kill()
    eventually(lambda: store.view.freshness.age > BOUND)
    for each in (token, other):
        with pytest.raises(StoreError, match="REVOCATION_STALENESS_SECONDS"):
            signer.validate(each)
    with Service(service.directory, service.settings, port=service.port, credential=service.credential):
        eventually(lambda: store.view.freshness.age < BOUND)
        assert signer.validate(other)
        with pytest.raises(TokenRevoked):
            signer.validate(token)
        assert store._copy is copy
        service.call("POST", "/app/revoke", {"token": other})
        eventually(refuses(signer, other, TokenRevoked))


def test_another_list_is_refused(service: Service, opened: Callable[..., RemoteStore]) -> None:
    """Although the restarted service accepts it. A copy that is opened anew accepts it, too."""
    store = opened()
    token = service.issue()
    service.call("POST", "/app/revoke", {"token": token})
    eventually(refuses(Signer(KEY, store), token, TokenRevoked))
    service.kill()
    for file in service.directory.glob("tokens.db*"):
        file.unlink()
    with Service(service.directory, service.settings, port=service.port, credential=service.credential):
        for _ in range(3):  # its changes pass the number that was seen
            service.call("POST", "/app/revoke", {"token": service.issue()})
        said = "went back to an older state, or is another: restart to accept it"
        eventually(lambda: said in _refusal(store), 60)
        with pytest.raises(StoreError):
            Signer(KEY, store).validate(token)
        assert Signer(KEY, opened()).validate(token)


def _refusal(store: RemoteStore) -> str:
    try:
        store.lookup("", EXP, ())
    except StoreError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("more", [0, 1, PART_SIZE + 1])
def test_a_moment_of_another_list_does_not_follow(more: int) -> None:
    """However many changes each has. The previous version of the service sends no moment, and is accepted."""
    one, other = MemoryStore(), MemoryStore()
    seen = part_after(one).newest
    for number in range(more):
        other.revoke(str(number), EXP)
    assert not part_after(other, seen=seen).follows
    for number in range(more):
        one.revoke(str(number), EXP)
    assert part_after(one, seen=seen).follows
    for text in ("", "x", "WzFd"):
        assert part_after(other, seen=text).follows


@pytest.mark.parametrize(
    ("secret", "reason"),
    [("wrong", "has expired or was revoked"), (credential("token:issue"), "revocations:read")],
)
def test_a_credential_that_may_not_read_is_said_at_once(
    opened: Callable[..., RemoteStore], secret: str, reason: str
) -> None:
    """And the credential is in no message."""
    with pytest.raises(StoreError, match=reason) as error:
        opened(secret=secret)
    assert secret not in str(error.value)
    assert error.value.__cause__ is None


def test_a_copy_changes_nothing(service: Service, opened: Callable[..., RemoteStore]) -> None:
    """Changes must be known everywhere, so they are made at the service."""
    signer = Signer(KEY, opened())
    token = signer.issue(max_uses=1)
    for change in (signer.revoke, signer.consume, signer.rotate, signer.revoke_subject):
        with pytest.raises((StoreRequired, TokenError)):
            change(token)
    with pytest.raises(StoreRequired, match="at the service"):
        signer.revoke(token)


def test_a_closed_copy_says_so(opened: Callable[..., RemoteStore]) -> None:
    """Closing it again changes nothing."""
    store = opened()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.lookup("", 0, ())


def test_a_copy_is_not_carried_across_fork(opened: Callable[..., RemoteStore]) -> None:
    """In the child, no thread keeps it fresh."""
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
        ("https://edge:secret@host:99999", "CLIENT:CREDENTIAL"),
        ("https://edge:secret@host:0", "CLIENT:CREDENTIAL"),
        ("https://edge:secret@host:abc", "CLIENT:CREDENTIAL"),
        ("https://edge:sec[ret@host", "CLIENT:CREDENTIAL"),
        ("https://edge:secret\uff0f@host", "CLIENT:CREDENTIAL"),
        ("https://edge:secret@host\n", "CLIENT:CREDENTIAL"),
        ("https://edge:secret@other@host", "CLIENT:CREDENTIAL"),
    ],
)
def test_a_url_that_names_no_service_is_refused(url: str, message: str) -> None:
    """The message does not contain its secret."""
    with pytest.raises(ConfigurationError, match=message) as error:
        open_store(url, staleness=5)
    assert "secret" not in str(error.value)


def test_a_copy_without_a_bound_is_refused() -> None:
    """Such a list cannot be asked for every validation."""
    with pytest.raises(ConfigurationError, match="REVOCATION_STALENESS_SECONDS"):
        open_store("https://edge:secret@tokens.example.org")


@pytest.mark.parametrize("since", ["x", "WzFd", "W10", "%00", "a" * 5000, "bnVsbA", "W1tdLFtdLFtdXQ"])
def test_a_cursor_that_none_ever_was_begins_anew(service: Service, since: str) -> None:
    """As a cursor does that the log has forgotten."""
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
    assert part_after(other, cursor).rows == [FeedRow("access/x", EXP, revoked=True)]


def test_guesses_are_not_told() -> None:
    """They are counted where codes are checked, and would show who is trying to log in."""
    store = MemoryStore()
    store.use("/guesses/x", EXP, 5)
    assert part_after(store).rows == []


def test_a_row_is_told_as_it_is() -> None:
    """And read as it was sent."""
    store = MemoryStore()
    store.rotate("access/x", EXP, 7)
    store.use("access/y", EXP, 3)
    generation = store.advance("sub:alice", 9, 100)
    assert [row_of(told) for told in part_after(store).rows] == [
        Row("sub:alice", 100, generation=generation),
        Row("access/x", EXP, rotated_at=7),
        Row("access/y", EXP, uses=1),
    ]


def test_the_longest_ids_are_told() -> None:
    """Wherever a part ends. If a cursor were cut off, the list would begin anew, for ever."""
    store = MemoryStore()
    names = ["\x00" * 255 + f"{number:04}" for number in range(2 * PART_SIZE + 1)]
    for name in names:
        store.revoke(f"chain:{'p' * 64}/{name}", EXP)
    told, cursor = [], ""
    for _ in range(3):
        part = part_after(store, cursor)
        assert len(part.next) < MAX_CURSOR
        told += [row.name.rpartition("/")[2] for row in part.rows]
        cursor = part.next
    assert sorted(told) == names


@pytest.mark.parametrize("start", [[], [1], ["x", "y", "z"], [0, "a", 1], [2**62, "", ""], [9, 9, 9, 9]])
def test_a_crafted_cursor_is_no_bug(lists: Callable[[], Store], start: list[Any]) -> None:
    """The list begins anew, or continues from some place."""
    store = lists()
    store.revoke("access/x", EXP)
    with store.snapshot() as snapshot:
        point = snapshot.point
    cursor = base64url(msgspec.json.encode([point.number, point.mark, start]))
    with suppress(StoreError):
        part_after(store, cursor)
    assert store.lookup("access/x", EXP, ()).revoked


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def lists(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/list.db"}
    url = urls.get(request.param) or request.getfixturevalue(f"{request.param}_url")
    with closing(open_store(url)) as store:
        yield lambda: store


def test_a_cursor_of_another_engine_begins_anew(lists: Callable[[], Store]) -> None:
    """A service's list may move to another engine while others copy it; the numbers of one engine mean
    nothing to the other."""
    store = lists()
    store.revoke("access/x", EXP)
    part = part_after(store, base64url(msgspec.json.encode([3, 2**62, None])))
    assert part.is_anew
    assert part.rows == [FeedRow("access/x", EXP, revoked=True)]


class Dripping:
    """A server whose answers come one byte at a time, until it is switched over."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.drips = False
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        body = msgspec.json.encode(FeedPart(rows=[], next="x", is_anew=False, is_whole=True, horizon=0))
        with connection, suppress(OSError):
            while connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                for byte in body:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.3 if self.drips else 0)


def test_an_answer_that_comes_drop_by_drop_is_given_up() -> None:
    """Within the time for a part. The next part is requested on another connection."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(Dripping()))
        url = f"http://a:b@127.0.0.1:{server.port}"
        store = stack.enter_context(closing(RemoteStore(url, 1.0, 0.5)))
        server.drips = True
        eventually(lambda: store.view.freshness.age > 1.2)
        server.drips = False
        eventually(lambda: store.view.freshness.age < 0.5)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://a:b@tokens.example.org", "tokens.example.org", 443),
        ("http://a:b@tokens.example.org/x/", "tokens.example.org", 80),
        ("http://a:b@[2001:db8::5:443]", "2001:db8::5:443", 80),
        ("https://a:b@[::1]:8443", "::1", 8443),
    ],
)
def test_a_url_means_one_host(url: str, host: str, port: int) -> None:
    """To every parser."""
    assert _parsed(url)[1:3] == (host, port)


def test_its_look_ups_are_look_ups_in_the_metrics(opened: Callable[..., RemoteStore]) -> None:
    """As those of every other list, whichever way they are made."""
    reported: list[str] = []
    timed = TimedStore(opened(), lambda name, seconds: reported.append(name))
    timed.lookup("x", EXP, ())
    timed.view.recall("x", EXP, ())
    assert reported == ["lookup", "lookup"]
