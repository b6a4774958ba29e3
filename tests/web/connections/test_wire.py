"""Attacks of hostile clients on a service in a process of its own."""

import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from support.service import KEY, Service

from signer import Signer

TOKEN = Signer(KEY).issue(sub="42")
#: As many bytes as uvloop reads at a time.
SEGMENT = 244 * 1024
FORM, JSON = "application/x-www-form-urlencoded", "application/json"


def post(path: str, *headers: str, body: str = "", credential: str | None = None) -> bytes:
    shown = [f"Authorization: Bearer {credential}"] if credential else []
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *shown, *headers, "", body]).encode()


def received(connection: socket.socket) -> bytes:
    """All bytes until the service closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", answers)]


def memory(service: Service) -> int:
    """The resident bytes of its process."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


@pytest.fixture
def connection(production: Service) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", production.port), timeout=30) as opened:
        yield opened


CONDEMNED = {
    "too long": ("{}", "Content-Length: 600000"),
    "much too long": ("{}", "Content-Length: 18446744073709551615"),
    "another type": ("text/xml", "Content-Length: 10"),
    "another type in chunks": ("text/xml", "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("expectation", [(), ("Expect: 100-continue",)], ids=["", "expected"])
@pytest.mark.parametrize("name", CONDEMNED)
@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/app/token", JSON), ("/app/tokens", JSON), (f"/app/valid/{TOKEN}", JSON), ("/app/valid", JSON), ("/app/revoke", JSON),
        ("/oauth/introspect", FORM), ("/oauth/revoke", FORM), ("/oauth/token", FORM),
    ],
)  # fmt: skip
def test_a_body_that_the_head_condemns_is_not_awaited(
    production: Service,
    connection: socket.socket,
    path: str,
    media_type: str,
    *,
    name: str,
    expectation: tuple[str, ...],
) -> None:
    """Nor is the client asked to send it. The body never arrives, and after ten seconds the answer would be
    408."""
    declared, framing = CONDEMNED[name]
    declared = declared.format(media_type) if declared != "{}" else media_type
    headers = (f"Content-Type: {declared}", framing, *expectation)
    connection.sendall(post(path, *headers, credential=production.credential))
    answer = received(connection)
    refused = 413 if declared == media_type else 400 if path.startswith("/oauth/") else 415
    assert statuses(answer) == [refused]
    assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/healthz"), ("GET", f"/app/valid/{TOKEN}"), ("HEAD", "/healthz"), ("POST", "/app/token"), ("GET", "/auth"), ("PUT", "/nowhere")],
)  # fmt: skip
def test_an_answer_before_the_body_closes_the_connection(
    connection: socket.socket, method: str, path: str
) -> None:
    """What arrives after it is a part of the body, whatever it looks like, and so no request."""
    connection.sendall(post(path, "Content-Length: 1000").replace(b"POST", method.encode()))
    answer = connection.recv(65536)
    with suppress(OSError):
        connection.sendall(post("/app/token"))
    answer += received(connection)
    assert len(statuses(answer)) == 1
    assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.parametrize("bad", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n"])
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_change_is_answered_before_what_is_malformed_behind_it(
    tmp_path: Path, bad: bytes, is_cut: bool
) -> None:
    """Otherwise the caller would take the refusal for the answer to its revocation, which was made."""
    token = Signer(KEY).issue(
        purpose="signer:client", sub="a", client_id="a", scope="token:revoke token:introspect"
    )
    with (
        Service(tmp_path, {"SECRET_KEY": KEY}) as service,
        closing(sqlite3.connect(tmp_path / "tokens.db", isolation_level=None)) as lock,
        socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection,
    ):
        lock.execute("BEGIN IMMEDIATE")
        change = f'{{"token":"{TOKEN}"}}'
        asked = post(
            "/app/revoke",
            f"Content-Type: {JSON}",
            f"Content-Length: {len(change)}",
            body=change,
            credential=token,
        )
        connection.sendall(asked + (b"" if is_cut else bad))
        if is_cut:
            connection.sendall(bad)
        # Both have arrived once a later connection is answered.
        assert service.call("GET", "/healthz").status == 200
        lock.execute("ROLLBACK")
        answers = received(connection)
        assert statuses(answers) == [200, 400 if bad.startswith(b"nonsense") else 431]
        assert not service.says_valid(TOKEN)


def test_segments_of_tiny_requests_leave_no_memory_behind(production: Service) -> None:
    """Each has 14,000 requests, and the clients read no answer; another client is served meanwhile."""
    tiny = (b"GET / HTTP/1.1\r\n\r\n" * (SEGMENT // 18))[:SEGMENT]

    def attack() -> int:
        with ExitStack() as stack:
            for _ in range(30):
                address = ("127.0.0.1", production.port)
                attacker = stack.enter_context(socket.create_connection(address, timeout=30))
                attacker.setblocking(False)
                with suppress(BlockingIOError):
                    attacker.send(tiny)
            assert production.says_valid(TOKEN)
            return memory(production)

    attack()
    before = memory(production)
    highest = max(attack() for _ in range(4))
    assert highest - before < 20_000_000
    assert production.call("GET", "/healthz").status == 200


def test_requests_in_one_segment_are_all_answered(production: Service) -> None:
    """In their order, to a client that reads the answers."""
    paths = [f"/{number}" for number in range(2000)]
    with socket.create_connection(("127.0.0.1", production.port), timeout=30) as connection:
        connection.sendall(b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() for path in paths))
        connection.sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert statuses(received(connection)) == [404] * len(paths) + [200]


def test_a_form_may_come_in_pieces(production: Service) -> None:
    """If the head is in order, the body is awaited and asked for."""
    body = f"token={quote(TOKEN)}"
    head = post(
        "/oauth/introspect", f"Content-Type: {FORM}", f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close",
        credential=production.credential,
    )  # fmt: skip
    with socket.create_connection(("127.0.0.1", production.port), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for begin in range(0, len(body), 100):
            connection.sendall(body[begin : begin + 100].encode())
        assert b'"active":true' in received(connection)


@pytest.mark.slow
def test_whoever_asks_nothing_is_gone_in_time(production: Service) -> None:
    """After five seconds, or after ten if a head has begun."""
    half = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
    ways = {b"": [], b"G": [408], half: [408], half + b"\r\n": [200], half + b"\r\nG": [200, 408]}
    with ExitStack() as stack:
        opened = {}
        for sent in ways:
            address = ("127.0.0.1", production.port)
            opened[sent] = stack.enter_context(socket.create_connection(address, timeout=60))
            opened[sent].sendall(sent)
        assert {sent: statuses(received(connection)) for sent, connection in opened.items()} == ways
