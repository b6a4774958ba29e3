"""Answers on the short way, compared with those of the application under uvicorn's own protocol."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from support.clock import HANG
from support.service import KEY, ROOT, Service

from signer import Signer, open_store
from signer.policy import TRUST

T = TypeVar("T")
TOKEN = Signer(KEY).issue(sub="42")
UVICORN = ("-m", "uvicorn", "app:app", "--app-dir", str(ROOT), "--port", "{port}", "--no-server-header")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """`python app.py`, and the same application through nothing but ASGI."""
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": "stdout", "AUDIT_VALIDATIONS": "true"}
    directory = tmp_path_factory.mktemp("both")
    with (
        Service(directory, settings) as own,
        Service(directory, settings, (*UVICORN, "--no-proxy-headers")) as plain,
    ):
        yield [own, plain]


def exchanged(service: Service, sent: bytes, patience: float = HANG) -> bytes:
    """All bytes that are returned, without the parts that always differ."""
    answers = service.send_raw(sent, patience=patience)
    received = re.sub(rb"(date|x-request-id): [^\r]*", rb"\1: ...", answers)
    return re.sub(rb"allow: [^\r]*", rb"allow: ...", received)  # of a set


def told_by(services: list[Service], ask: Callable[[Service], T]) -> list[T]:
    """The result for each service. All are asked at once, so that waiting for a missing answer takes no
    longer for two."""
    with ThreadPoolExecutor(len(services)) as pool:
        return [*pool.map(ask, services)]


def request(first: str, *headers: str, body: str = "") -> bytes:
    return "\r\n".join([first, "Host: localhost", *headers, "", body]).encode()


GOOD = f"/app/valid/{TOKEN}"
REQUESTS = {
    "a good token": request(f"GET {GOOD} HTTP/1.1"),
    "no token": request("GET /app/valid/ HTTP/1.1"),
    "another token": request(f"GET {GOOD}x HTTP/1.1"),
    "slashes": request(f"GET {GOOD}/a/b HTTP/1.1"),
    "percent-encoded": request(f"GET /app/valid/{TOKEN.replace('.', '%2E')} HTTP/1.1"),
    "a query": request(f"GET {GOOD}?a=b HTTP/1.1"),
    "the whole URL": request(f"GET http://localhost{GOOD} HTTP/1.1"),
    "HTTP/1.0": request(f"GET {GOOD} HTTP/1.0"),
    "HTTP/1.0, kept alive": request(f"GET {GOOD} HTTP/1.0", "Connection: keep-alive"),
    "the last one": request(f"GET {GOOD} HTTP/1.1", "Connection: close"),
    "the last one, to a proxy": request(f"GET {GOOD} HTTP/1.1", "Proxy-Connection: close"),
    "an id of its own": request(f"GET {GOOD} HTTP/1.1", "X-Request-ID: mine"),
    "two ids": request(f"GET {GOOD} HTTP/1.1", "X-Request-ID: a", "X-Request-ID: b"),
    "an origin": request(f"GET {GOOD} HTTP/1.1", "Origin: https://example.org"),
    "a credential": request(f"GET {GOOD} HTTP/1.1", "Authorization: Bearer x"),
    "HEAD": request(f"HEAD {GOOD} HTTP/1.1"),
    "POST": request(f"POST {GOOD} HTTP/1.1"),
    "PUT": request(f"PUT {GOOD} HTTP/1.1"),
    "a body": request(f"GET {GOOD} HTTP/1.1", "Content-Length: 5", body="hello"),
    "a body in chunks": request(f"GET {GOOD} HTTP/1.1", "Transfer-Encoding: chunked", body="5\r\nhello\r\n0\r\n\r\n"),
    "a body, and another request": request(f"GET {GOOD} HTTP/1.1", "Content-Length: 5", body="hello") + request("GET /healthz HTTP/1.1"),
    "no headers": f"GET {GOOD} HTTP/1.1\r\n\r\n".encode(),
    "kept alive": request(f"GET {GOOD} HTTP/1.1", "Connection: keep-alive"),
    "kept alive, and more": request(f"GET {GOOD} HTTP/1.1", "Connection: keep-alive, X-Request-ID", "X-Request-ID: mine"),
    "long headers": request(f"GET {GOOD} HTTP/1.1", f"X-Long: {'x' * 8000}"),
    "an expectation": request(f"GET {GOOD} HTTP/1.1", "Content-Length: 5", "Expect: 100-continue", body="hello"),
    "an upgrade": request(f"GET {GOOD} HTTP/1.1", "Connection: Upgrade", "Upgrade: h2c"),
    "one after the other": request(f"GET {GOOD} HTTP/1.1") * 3 + request(f"GET {GOOD}x HTTP/1.1") * 2,
    "between others": (
        request("GET /healthz HTTP/1.1") + request(f"GET {GOOD} HTTP/1.1") + request("GET /nowhere HTTP/1.1")
        + request(f"GET {GOOD}x HTTP/1.1") + request("GET /healthz HTTP/1.1", "Connection: close") + request(f"GET {GOOD} HTTP/1.1")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_the_answer_is_the_same_to_the_byte(both: list[Service], name: str) -> None:
    """Headers, their order, whether the connection stays open, and the order of answers."""
    own, plain = told_by(both, lambda service: exchanged(service, REQUESTS[name]))
    assert own == plain
    assert own.startswith(b"HTTP/1.1 ")


def test_log_metrics_and_trail_are_the_same(both: list[Service]) -> None:
    """One line each, with the route's template and the request's id."""
    told = []
    for service in both:
        exchanged(service, request(f"GET {GOOD} HTTP/1.1", "X-Request-ID: same-id-on-both"))
        service.wait_for_log("request_id=same-id-on-both")
        (line,) = re.findall(
            r"request (method=.* )duration_ms=\S+ (.*request_id=same-id-on-both)\n", service.log
        )
        (trail,) = [
            json.loads(entry)
            for entry in service.log.splitlines()
            if '"request_id":"same-id-on-both"' in entry
        ]
        trail.pop("time")
        told.append((line, trail))
    assert told[0] == told[1]
    assert "route=/app/valid/{token}" in told[0][0][0]


def test_a_hundred_in_one_piece_are_answered_in_turn(both: list[Service]) -> None:
    """The first at once, and the others after other connections had their turn."""
    for service in both:
        received = service.send_raw(request(f"GET {GOOD} HTTP/1.1") * 100)
        assert received.count(b'{"status_code":200,"status":true}') == 100


@pytest.mark.slow
@pytest.mark.parametrize("path", [GOOD, "/healthz"])
def test_a_client_that_does_not_read_fills_no_memory(both: list[Service], path: str) -> None:
    """uvicorn alone reads on after each answer and keeps what it has read: a client could send 200 MB a
    second."""
    own = both[0]
    thousand = request(f"GET {path} HTTP/1.1") * 1000
    sent = 0
    with socket.create_connection(("127.0.0.1", own.port), timeout=2) as connection, suppress(OSError):
        while sent < 100_000_000:
            connection.sendall(thousand)
            sent += len(thousand)
    assert sent < 100_000_000
    assert own.says_valid(TOKEN)
    status = Path(f"/proc/{own.process.pid}/status").read_text()
    assert int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) < 150_000


def test_without_a_list_the_answer_is_503(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With `status: false`, as everywhere, and it is counted once."""
    directory = tmp_path_factory.mktemp("gone")
    settings = {"SECRET_KEY": KEY, "ANONYMOUS_SCOPES": "metrics:read"}
    with Service(directory, settings) as service:
        (directory / "tokens.db").rename(directory / "away.db")
        time.sleep(2 * TRUST)
        reply = service.call("GET", GOOD)
        assert (reply.status, reply.json["status"], reply.headers["Retry-After"]) == (503, False, "1")
        page = service.call("GET", "/metrics").raw.decode()
        assert re.search(
            r'signer_events_total\{event="validate",kid="\w+",outcome="store_unavailable"\} 1.0', page
        )
        (directory / "away.db").rename(directory / "tokens.db")
        assert service.says_valid(TOKEN)


@pytest.mark.parametrize("settings", [{}, {"SECRET_KEY": KEY, "CORS_ORIGINS": "https://example.org"}])
def test_whoever_stands_before_the_application_is_heard(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]
) -> None:
    """The guard of the development service, and CORS."""
    with Service(tmp_path_factory.mktemp("guarded"), settings) as service:
        reply = service.call("GET", "/app/valid/x", headers={"Origin": "https://example.org"})
        if settings:
            assert reply.headers["Access-Control-Allow-Origin"] == "https://example.org"
        else:
            assert (reply.status, reply.json["code"]) == (403, "development_only")


def test_revoked_is_revoked(both: list[Service]) -> None:
    """Also if another process revokes, as soon as that is acknowledged."""
    own = both[0]
    with closing(open_store(f"sqlite:///{own.directory}/tokens.db")) as store:
        signer = Signer(KEY, store)
        for _ in range(50):
            token = signer.issue()
            assert own.says_valid(token)
            signer.revoke(token)
            assert not own.says_valid(token)


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (f"POST /app/valid/x HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: {len(request(f'GET {GOOD} HTTP/1.1'))}", ""),
        (f"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{len(request(f'GET {GOOD} HTTP/1.1')):x}", "\r\n0\r\n\r\n"),
        ("GET /healthz HTTP/1.1\r\nX-Long: a", ""),
        ("GET /healthz HTTP/1.1", ""),
    ],
)  # fmt: skip
def test_what_is_a_part_of_another_request_is_none_itself(both: list[Service], head: str, tail: str) -> None:
    """A body or a header that looks like a request and arrives in a piece of its own (request smuggling)."""

    def received(service: Service) -> bytes:
        answers = b""
        with socket.create_connection(("127.0.0.1", service.port), timeout=HANG) as connection:
            for piece in (
                f"{head}\r\nHost: a\r\n\r\n" if "Content-Length" in head else f"{head}\r\n",
                request(f"GET {GOOD} HTTP/1.1").decode(),
                tail,
            ):
                connection.sendall(piece.encode())
                time.sleep(0.2)
            with suppress(TimeoutError):
                while more := connection.recv(65536):
                    answers += more
                    connection.settimeout(1)  # for one too many
        return answers

    for answers in told_by(both, received):
        assert answers.count(b"HTTP/1.1 ") == 1
        assert b'"status":true' not in answers


@pytest.mark.parametrize("cut", [1, 5, 15, 16, 30, 100, -20, -4, -3, -1])
def test_a_request_in_pieces_is_answered_once(both: list[Service], cut: int) -> None:
    """Wherever it is cut, and whatever follows it."""
    whole = request(f"GET {GOOD} HTTP/1.1")
    answers = []
    for service in both:
        with socket.create_connection(("127.0.0.1", service.port), timeout=HANG) as connection:
            received = b""
            for _ in range(2):
                connection.sendall(whole[:cut])
                time.sleep(0.05)
                connection.sendall(whole[cut:])
                received += answer(connection)
            connection.sendall(whole)
            received += answer(connection)
        answers.append(re.sub(rb"(date|x-request-id): [^\r]*", rb"\1: ...", received))
    assert answers[0] == answers[1]
    assert answers[0].count(b'{"status_code":200,"status":true}') == 3


def answer(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b'{"status_code":200,"status":true}'):
        received += connection.recv(65536)
    return received


@pytest.fixture(scope="module")
def issuers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """The same two services, where issuing does not have to wait."""
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": "off", "ANONYMOUS_SCOPES": "token:issue"}
    directory = tmp_path_factory.mktemp("issuers")
    with (
        Service(directory, settings) as own,
        Service(directory, settings, (*UVICORN, "--no-proxy-headers")) as plain,
    ):
        yield [own, plain]


CREDENTIAL = "Authorization: Bearer " + Signer(KEY).issue(
    purpose="signer:client", sub="cli", client_id="cli", scope="token:issue read"
)
JSON = "Content-Type: application/json"


def post(body: str, *headers: str, length: int | None = None, path: str = "/app/token") -> bytes:
    size = len(body.encode()) if length is None else length
    return request(f"POST {path} HTTP/1.1", *headers, f"Content-Length: {size}", body=body)


POSTS = {
    "a subject": post('{"sub": "42"}', JSON, CREDENTIAL),
    "nothing": post("", CREDENTIAL),
    "no length": request("POST /app/token HTTP/1.1", CREDENTIAL),
    "all there is": post('{"sub":"é","scope":"read","ttl":60,"aud":"web","sid":"s","data":[1],"max_uses":2,"bind":"b"}', JSON, CREDENTIAL),
    "anonymous": post('{"sub": "42"}', JSON),
    "a forged credential": post("{}", JSON, CREDENTIAL + "x"),
    "two credentials": post("{}", JSON, CREDENTIAL, CREDENTIAL),
    "Basic": post("{}", JSON, "Authorization: Basic Y2xpOng="),
    "more than the caller has": post('{"scope": "write"}', JSON, CREDENTIAL),
    "a purpose of the service's own": post('{"purpose": "signer:client"}', JSON, CREDENTIAL),
    "no JSON": post("{", JSON, CREDENTIAL),
    "a member too many": post('{"on_sundays": true}', JSON, CREDENTIAL),
    "no type": post("{}", CREDENTIAL),
    "another type": post("{}", "Content-Type: text/plain", CREDENTIAL),
    "a charset": post("{}", "Content-Type: Application/JSON; charset=utf-8", CREDENTIAL),
    "half of it": post('{"sub": "42"}', JSON, CREDENTIAL, length=200),
    "two lengths": post("{}", JSON, CREDENTIAL, "Content-Length: 2"),
    "two other lengths": post("{}", JSON, CREDENTIAL, "Content-Length: 3"),
    "a length with a sign": request("POST /app/token HTTP/1.1", JSON, "Content-Length: +2", body="{}"),
    "a length with zeros": request("POST /app/token HTTP/1.1", JSON, "Content-Length: 02", body="{}"),
    "in chunks": request("POST /app/token HTTP/1.1", JSON, CREDENTIAL, "Transfer-Encoding: chunked", body="2\r\n{}\r\n0\r\n\r\n"),
    "chunks and a length": post("2\r\n{}\r\n0\r\n\r\n", JSON, CREDENTIAL, "Transfer-Encoding: chunked"),
    "an expectation": post("{}", JSON, CREDENTIAL, "Expect: 100-continue"),
    "the last one": post("{}", JSON, CREDENTIAL, "Connection: close"),
    "an id of its own": post("{}", JSON, CREDENTIAL, "X-Request-ID: mine"),
    "another path": post("{}", JSON, CREDENTIAL, path="/app/token/"),
    "a longer path": post("{}", JSON, CREDENTIAL, path="/app/tokens"),
    "one after the other": post("{}", JSON, CREDENTIAL) * 3,
    "one within the other": post(post("{}", JSON, CREDENTIAL).decode(), JSON, CREDENTIAL),
    "PUT": request("PUT /app/token HTTP/1.1", JSON, CREDENTIAL, "Content-Length: 2", body="{}"),
    "GET": request("GET /app/token HTTP/1.1", CREDENTIAL),
}  # fmt: skip


@pytest.mark.parametrize("name", POSTS)
def test_an_issuing_request_is_answered_the_same(issuers: list[Service], name: str) -> None:
    """Whatever is in it, and wherever it ends; only the token differs."""
    patience = 1 if name == "half of it" else HANG
    own, plain = (
        re.sub(rb'(token|jti)":"[^"]*"|exp":\d+', rb"\1", answers)
        for answers in told_by(issuers, lambda service: exchanged(service, POSTS[name], patience))
    )
    assert own == plain
    assert own.startswith(b"HTTP/1.1 ") or name == "half of it"


def test_where_the_answers_differ(issuers: list[Service]) -> None:
    """A request that is refused by its head is the last of its connection, and a malformed one comes after an
    answer."""
    too_long = post('{"sub": "' + "x" * 100_000 + '"}', JSON, CREDENTIAL)
    own, plain = (exchanged(service, too_long) for service in issuers)
    assert own.startswith(b"HTTP/1.1 413 ")
    assert own == plain.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    more_than_it_says = post('{"sub": "42"}', JSON, CREDENTIAL, length=5)
    own, plain = (exchanged(service, more_than_it_says) for service in issuers)
    assert b'"code":"request_malformed"' in own.removesuffix(plain)
    assert own.count(b"HTTP/1.1 400 ") == 2


def test_an_issuing_request_is_logged_the_same(issuers: list[Service]) -> None:
    """With the caller, and with the code of the error."""
    told = []
    for service in issuers:
        for body in ("{}", '{"scope": "write"}'):
            exchanged(service, post(body, JSON, CREDENTIAL, "X-Request-ID: same-id-on-both"))
        service.wait_for_log("request_id=same-id-on-both", 2)
        told.append(
            re.findall(r"request (method=.* )duration_ms=\S+ (.*request_id=same-id-on-both)\n", service.log)
        )
    assert told[0] == told[1]
    assert [line[0] for line in told[0]] == [
        "method=POST route=/app/token status=200 ",
        "method=POST route=/app/token status=403 ",
    ]
    assert "code=scope_insufficient actor=cli" in told[0][1][1]


def conversation(service: Service, requests: list[bytes]) -> list[bytes]:
    """The answers to requests that are sent one by one on one connection."""
    answers = []
    with socket.create_connection(("127.0.0.1", service.port), timeout=HANG) as connection:
        for sent in requests:
            connection.sendall(sent)
            received = b""
            while not received.endswith(b"}"):  # uvicorn sends a head, and then a body
                received += connection.recv(65536)
            answers.append(
                re.sub(rb'(date|x-request-id): [^\r]*|(token|jti)":"[^"]*"|exp":\d+', b"", received)
            )
    return answers


def test_each_request_of_a_connection_is_known_by_its_own_headers(issuers: list[Service]) -> None:
    """Headers that differ are parsed again: a credential, an id or a length counts for one request only."""
    requests = [
        post('{"scope": "read"}', JSON, CREDENTIAL),
        post('{"scope": "read"}', JSON),
        post('{"sub": "42"}', JSON, CREDENTIAL),
        post('{"sub": "42"}', JSON, CREDENTIAL),
        request(f"GET {GOOD} HTTP/1.1", JSON, CREDENTIAL),
        request(f"GET {GOOD} HTTP/1.1"),
        request(f"GET {GOOD} HTTP/1.1", "X-Request-ID: mine"),
        request(f"GET {GOOD} HTTP/1.1"),
        post("{}", JSON, CREDENTIAL.replace("Bearer", "Basic")),
        post("{}", "Content-Type: text/plain", CREDENTIAL),
        post("{}", JSON, CREDENTIAL),
    ]
    own, plain = (conversation(service, requests) for service in issuers)
    assert own == plain
    statuses = [int(answer.split()[1]) for answer in own]
    assert statuses == [200, 401, 200, 200, 200, 200, 200, 200, 401, 415, 200]


FORWARDED = {
    "nothing": [],
    "an address": ["X-Forwarded-For: 192.0.2.7"],
    "two addresses": ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-For: 192.0.2.8"],
    "no address": ["X-Forwarded-For: nobody", "X-Forwarded-Proto: https"],
}


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """The same two services behind a trusted proxy."""
    settings = {
        "SECRET_KEY": KEY,
        "AUDIT_LOG": "off",
        "ANONYMOUS_SCOPES": "token:issue",
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    directory = tmp_path_factory.mktemp("proxied")
    with (
        Service(directory, settings) as own,
        Service(directory, settings, (*UVICORN, "--no-proxy-headers")) as plain,
    ):
        yield [own, plain]


@pytest.mark.parametrize("name", FORWARDED)
def test_a_proxy_is_believed_the_same(proxied: list[Service], name: str) -> None:
    """The log has the caller's address."""
    told = []
    for service in proxied:
        lines = service.log.count(" address=")
        answers = conversation(
            service,
            [request(f"GET {GOOD} HTTP/1.1", *FORWARDED[name]), post("{}", JSON, *FORWARDED[name])],
        )
        service.wait_for_log(" address=", lines + 2)
        told.append((answers, re.findall(r" address=(\S+)", service.log)[-2:]))
    assert told[0] == told[1]
    answers, addresses = told[0]
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    expected = {
        "an address": "192.0.2.7",
        "two addresses": "192.0.2.8",
        "both": "192.0.2.7",
        "no address": "-",
    }
    assert addresses == [expected.get(name, "127.0.0.1")] * 2


@pytest.mark.parametrize(
    "beginning",
    [
        request("POST /app/revoke HTTP/1.1", JSON, "Content-Length: 1000"),
        request("POST /app/revoke HTTP/1.1", "Transfer-Encoding: chunked", body="3e8\r\n"),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Something: ",
        b"GET ",
    ],
    ids=["body", "chunk", "header", "line"],
)
@pytest.mark.parametrize(
    "within", [request(f"GET {GOOD} HTTP/1.1"), post("{}", JSON, CREDENTIAL)], ids=["GET", "POST"]
)
def test_what_is_within_a_message_is_no_request(
    issuers: list[Service], beginning: bytes, within: bytes
) -> None:
    """Also if the message before it was answered, and this one was refused by its head: a proxy would give
    the answer to the next caller."""

    def received(service: Service) -> list[bytes]:
        with socket.create_connection(("127.0.0.1", service.port), timeout=HANG) as connection:
            connection.sendall(request("GET /healthz HTTP/1.1") + beginning)
            time.sleep(0.3)
            connection.sendall(within)
            answers = b""
            with suppress(TimeoutError):
                while chunk := connection.recv(65536):
                    answers += chunk
                    connection.settimeout(1)  # for one too many
            return re.findall(rb"HTTP/1.1 \d+", answers)

    own, plain = told_by(issuers, received)
    assert own == plain
    assert len(own) <= 2
