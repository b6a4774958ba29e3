"""Bad input of every kind gets a 4xx in one form; never a 500, never a traceback."""

import http.client
import json
import socket
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.clock import HANG
from support.service import KEY, Service, cli

JSON = {"Content-Type": "application/json"}
BODIES: list[tuple[str, bytes, int, str | None]] = [
    ("not json", b"hello", 400, None),
    ("half of json", b'{"ttl":', 400, None),
    ("trailing text", b"{} {}", 400, None),
    ("a byte order mark", b"\xef\xbb\xbf{}", 400, None),
    ("white space", b"  ", 400, None),
    ("null", b"null", 422, None),
    ("a list", b"[]", 422, None),
    ("a string", b'"x"', 422, None),
    ("invalid UTF-8", b'{"sub":"\xff"}', 400, None),
    ("a surrogate as bytes", b'{"sub":"\xed\xa0\x80"}', 400, None),
    ("half a surrogate pair", b'{"sub":"\\ud800"}', 400, None),
    ("half a pair in data", b'{"data":["\\udc00"]}', 400, None),
    ("NaN", b'{"ttl":NaN}', 400, None),
    ("Infinity in data", b'{"data":Infinity}', 400, None),
    ("50,000 brackets", b'{"data":' + b"[" * 50_000, 400, None),
    ("50,000 brackets at the top", b"[" * 50_000, 422, None),
    ("brackets in an unknown member", b'{"x":' + b"[" * 50_000, 422, "x"),
    ("data nested 40 deep", b'{"data":' + b"[" * 40 + b"]" * 40 + b"}", 422, "data"),
    ("a 5,000-digit integer", b'{"ttl":' + b"9" * 5000 + b"}", 422, "ttl"),
    ("a 5,000-digit integer in data", b'{"data":' + b"9" * 5000 + b"}", 422, "data"),
    ("a 70-bit integer in data", b'{"data":1180591620717411303424}', 422, "data"),
    ("a number too large", b'{"data":1e999}', 422, "data"),
    ("true for a number", b'{"ttl":true}', 422, "ttl"),
    ("a string for a number", b'{"ttl":"60"}', 422, "ttl"),
    ("a fraction", b'{"ttl":60.5}', 422, "ttl"),
    ("zero", b'{"ttl":0}', 422, "ttl"),
    ("a negative ttl", b'{"ttl":-1}', 422, "ttl"),
    ("a huge ttl", b'{"ttl":99999999999}', 422, "ttl"),
    ("the year 10000", b'{"ttl":253402300800}', 422, "ttl"),
    ("a number for a string", b'{"sub":1}', 422, "sub"),
    ("a control character", b'{"sub":"a\\u0000"}', 422, "sub"),
    ("a line end", b'{"sub":"a\\n"}', 422, "sub"),
    ("a list for a scope", b'{"scope":["read"]}', 422, "scope"),
    ("a purpose with a space", b'{"purpose":"a b"}', 422, "purpose"),
    ("the reserved purpose", b'{"purpose":"kid"}', 422, "purpose"),
    ("an unknown member", b'{"exp":1}', 422, "exp"),
    ("the caller's own client_id", b'{"client_id":"x"}', 422, "client_id"),
    ("zero uses", b'{"max_uses":0}', 422, "max_uses"),
    ("data too large", json.dumps({"data": "x" * 5000}).encode(), 422, "data"),
]


@pytest.mark.parametrize(
    ("body", "status", "field"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES]
)
def test_a_bad_body_names_what_is_wrong(
    production: Service, body: bytes, status: int, field: str | None
) -> None:
    """application/problem+json (RFC 9457) with a stable code, and the member that is wrong."""
    reply = production.call("POST", "/app/token", body, JSON)
    assert (reply.status, reply.json.get("field")) == (status, field), reply.raw
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json["status"] == status
    assert reply.json["code"] == {400: "request_malformed", 422: "request_invalid"}[status]
    if field:
        assert field in reply.json["detail"]
    assert len(reply.raw) < 1000


def test_a_token_in_the_wrong_place_is_not_repeated(production: Service) -> None:
    """Not even in the answer to its sender, because answers end up in logs."""
    token = production.issue()
    for body in ({token: 1}, {"ttl": token}, {"sub": token * 2}, {"purpose": token}):
        reply = production.call("POST", "/app/token", body)
        assert reply.status == 422
        assert token not in reply.raw.decode()


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
def test_a_body_must_say_that_it_is_json(production: Service, kind: str | None) -> None:
    """A page of another site can send text, but JSON only after a preflight request."""
    reply = production.call(
        "POST", "/app/token", b"{}", {"Content-Type": kind} if kind else {"Content-Type": ""}
    )
    assert (reply.status, reply.json["code"]) == (415, "media_type_unsupported")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_parameters_of_the_media_type_are_fine(production: Service, kind: str) -> None:
    """And an empty body needs no type."""
    assert production.call("POST", "/app/token", b"{}", {"Content-Type": kind}).status == 200
    assert production.call("POST", "/app/token", b"", {"Content-Type": ""}).status == 200


@pytest.mark.parametrize("path", ["/app/token", "/app/consume", "/app/revoke", "/app/valid/x"])
def test_a_body_of_2_mb_is_413(production: Service, path: str) -> None:
    """Whether its length is declared or it is sent in chunks."""
    reply = production.call("POST", path, b" " * 2_000_000)
    assert (reply.status, reply.json["code"]) == (413, "body_too_large")
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {production.credential}\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = f"{head}Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n".encode() + chunk * 3
    assert production.send_raw(sent).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("path", ["/app/tokens", "/app/valid"])
def test_a_body_for_many_tokens_may_be_longer_and_has_an_end(production: Service, path: str) -> None:
    """A hundred tokens fit into half a MiB."""
    long = b'{"tokens": ["x"]' + b" " * 500_000 + b"}"
    assert production.call("POST", path, long).status == 200
    reply = production.call("POST", path, b" " * 2_000_000)
    assert (reply.status, reply.json["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "path", ["//", "/app", "/app/", "/app/token/", "/app/tokens/", "/nothing", "/%00", "/healthz/"]
)
def test_an_unknown_path_is_404(production: Service, path: str) -> None:
    """In the same form, and never redirected: a redirect repeats the path in a header."""
    reply = production.call("GET", path)
    assert (reply.status, reply.json["code"]) == (404, "not_found")
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert "Location" not in reply.headers


def test_100000_brackets_are_413(production: Service) -> None:
    """They are longer than a body can be."""
    reply = production.call("POST", "/app/token", b"[" * 100_000)
    assert (reply.status, reply.json["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/app/token", {"POST"}),
        ("PUT", "/app/token", {"POST"}),
        ("OPTIONS", "/app/token", {"POST"}),
        ("GET", "/app/valid", {"POST"}),
        ("DELETE", "/app/valid/x", {"GET", "HEAD", "POST"}),
        ("POST", "/app/clear/all/tokens", {"DELETE"}),
        ("GET", "/app/clear/all/tokens", {"DELETE"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
    ],
)
def test_an_unknown_method_is_405_with_allow(
    production: Service, method: str, path: str, allowed: set[str]
) -> None:
    """In the same form."""
    reply = production.call(method, path)
    assert (reply.status, reply.json["code"]) == (405, "method_not_allowed")
    assert set(reply.headers["Allow"].split(", ")) == allowed


def test_every_change_of_one_character_is_refused(production: Service) -> None:
    """Each character of a token is changed, removed or doubled, over HTTP."""
    token = production.issue()
    for place in range(0, len(token), 3):
        for changed in (
            token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :],
            token[:place] + token[place + 1 :],
            token[: place + 1] + token[place:],
        ):
            if changed != token:
                assert not production.says_valid(changed), place
    for path in ("/app/consume", "/app/revoke"):
        reply = production.call("POST", path, {"token": token[:-1]})
        assert (reply.status, reply.json["code"]) == (409, "token_malformed")
    assert production.says_valid(token)


RAW: list[bytes] = [
    b"GET /app/valid/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /app/valid/%FF%FE%ED%A0%80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://[::1/app HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    b"GET /app/valid/" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST /app/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /app/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /app/token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"POST /app/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
    b"POST /app/token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\nContent-Length: 0\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01",
    b"\r\n\r\n\r\n",
    b"GET /healthz HTTP/9.9\r\n\r\n",
]


@pytest.mark.parametrize("data", RAW, ids=range(len(RAW)))
def test_raw_bytes_of_every_kind_leave_no_500_and_no_traceback(production: Service, data: bytes) -> None:
    """The service continues."""
    assert b" 500 " not in production.send_raw(data, half_close=True)[:20]
    assert production.call("GET", "/healthz").status == 200
    assert "Traceback" not in production.log


HEADERS = [
    "Accept", "Authorization", "Content-Type", "Cookie", "Expect", "Forwarded", "Host", "If-Modified-Since",
    "If-None-Match", "If-Range", "Origin", "Range", "Referer", "X-Forwarded-For", "X-Forwarded-Proto", "X-Request-ID",
]  # fmt: skip
VALUES = [
    "", "x", ";=,", "%", "*", "[::1", "a:b:c", "\xff\xfe", "9" * 5000, "Basic =", "Basic \xff", "Bearer ", "Digest x",
    "text/plain; version=x", "application/openmetrics-text; version=\xb2; escaping=", "bytes=-,9-1,a-", "bytes=" + "0-," * 99,
    "Mon, 32 Foo 99999 99:99:99 XXX", 'W/"x", "', "session=; session", "1.2.3.4%, for=[::1]:x",
]  # fmt: skip
QUERIES = ["", "=&&=%", "since=%FF&since=" + "9" * 5000, "since=bnVsbA", "scope=%ED%A0%80&aud=%00&purpose=%"]


@pytest.mark.slow
def test_odd_headers_and_queries_leave_no_500_on_any_route(tmp_path: Path) -> None:
    """Each alone, with every part of the service switched on that reads them, with a credential for
    everything and without."""
    scopes = "token:issue token:introspect token:revoke token:purge metrics:read revocations:read"
    made = cli(tmp_path, "client", "tests", "--scope", scopes, "--ttl", "1d", SECRET_KEY=KEY)
    authorization = {"Authorization": f"Bearer {made.stdout.strip()}"}
    settings = {
        "AUTH_COOKIE": "session",
        "CORS_ORIGINS": "https://app.example",
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    with Service(tmp_path, {"SECRET_KEY": KEY, **settings}) as service:
        described = service.call("GET", "/openapi.json").json["paths"]
        pages = {"/openapi.json": ["get"], "/docs": ["get"], "/static/docs.js": ["get"]}
        for path, methods in {**described, **pages}.items():
            for method in {"get", "post", "delete"}.intersection(methods):
                queries = [(f"{path}?{query}", sent) for query in QUERIES for sent in ({}, authorization)]
                headers = [(path, {**authorization, name: value}) for name in HEADERS for value in VALUES]
                for target, sent in queries + headers:
                    status = service.call(method.upper(), quote(target, safe="/?=&%-._~"), b"", sent).status
                    assert status != 500, (method, target, sent)
        assert "Traceback" not in service.log


@pytest.mark.parametrize(
    "parts",
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", b"a" * 100_000),
        (b"GET /app/valid/", b"a" * 100_000),
        (b"GET /healthz HTTP/1.1\r\n", b"X: a\r\n" * 10_000),
        (
            b"POST /app/token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X: a\r\n" * 10_000,
        ),
    ],
    ids=["header", "path", "headers", "trailers"],
)
def test_a_head_without_end_is_cut_off(production: Service, parts: tuple[bytes, bytes]) -> None:
    """After 64 KiB or so; uvicorn with httptools alone kept 60 MB of headers in memory."""
    start, more = parts
    sent = 0
    with socket.create_connection(("127.0.0.1", production.port), timeout=HANG) as connection:
        connection.sendall(start)
        try:
            while sent < 60_000_000:
                connection.sendall(more)
                sent += len(more)
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert sent < 20_000_000
    assert production.call("GET", "/healthz").status == 200
    assert "Traceback" not in production.log


def test_trailers_are_not_headers(production: Service) -> None:
    """No proxy checks them, so a credential in a trailer does not count (RFC 9110, section 6.5.1)."""
    credential = f"Authorization: Bearer {production.credential}\r\n".encode()
    head = b"POST /app/token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
    chunks = b"\r\n2\r\n{}\r\n0\r\n"
    assert production.send_raw(head + chunks + credential + b"\r\n").startswith(b"HTTP/1.1 401")
    assert production.send_raw(head + credential + chunks + b"\r\n").startswith(b"HTTP/1.1 200")


@pytest.mark.slow
def test_a_refused_head_does_not_pass_for_an_earlier_answer(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A change that waits, and after it, on the same connection, a head that is too long."""
    directory = tmp_path_factory.mktemp("order")
    with (
        Service(directory) as service,
        closing(sqlite3.connect(directory / "tokens.db", isolation_level=None)) as lock,
    ):
        lock.execute("BEGIN IMMEDIATE")
        body = b'{"sid": "x"}'
        head = b"POST /app/revoke HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        with socket.create_connection(("127.0.0.1", service.port), timeout=HANG) as connection:
            connection.sendall(head % len(body) + body)
            time.sleep(0.3)
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 300_000)
            answer = b""
            with suppress(ConnectionResetError):
                answer = connection.recv(65536)
        assert not answer.startswith(b"HTTP/1.1 431")
        lock.execute("ROLLBACK")


def test_a_head_that_is_too_long_is_431(production: Service) -> None:
    """A client that reads gets this answer."""
    answer = production.send_raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000)
    assert answer.startswith(b"HTTP/1.1 431")


def test_bodies_one_after_another_are_not_taken_for_a_head(production: Service) -> None:
    """A connection that stays open carries any number of requests."""
    body = b'{"token":"' + b"a" * 30_000 + b'"}'
    connection = http.client.HTTPConnection("127.0.0.1", production.port, timeout=HANG)
    for _ in range(20):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {production.credential}"}
        connection.request("POST", "/app/valid", body, headers)
        assert json.loads(connection.getresponse().read())["code"] == "token_malformed"
    connection.close()


def test_a_client_that_leaves_leaves_no_traceback(production: Service) -> None:
    """Within the head, within a body, and before the answer."""
    head = (
        "POST /app/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {production.credential}\r\n"
    ).encode()
    for data in (head[:50], head + b"Content-Length: 100\r\n\r\n{", head + b"Content-Length: 2\r\n\r\n{}"):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", production.port)) as connection:
                connection.sendall(data)
    production.wait_for_log("status=499")
    assert production.call("GET", "/healthz").status == 200
    assert "Traceback" not in production.log
    assert "ERROR" not in production.log


@pytest.mark.slow
def test_a_body_that_does_not_come_is_408(production: Service) -> None:
    """After ten seconds. It occupies no connection, and delays no shut-down, for longer."""
    head = (
        "POST /app/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
        f"Authorization: Bearer {production.credential}\r\n\r\n{{"
    ).encode()
    with socket.create_connection(("127.0.0.1", production.port), timeout=HANG) as connection:
        connection.sendall(head)
        answer = b"".join(
            iter(lambda: connection.recv(65536), b"")
        )  # until the service closes the connection
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"body_timeout" in answer


def test_answers_carry_no_banner_and_are_not_kept(production: Service) -> None:
    """No Server header; and no cache stores answers about tokens."""
    replies: list[Any] = [
        production.call("GET", path) for path in ("/healthz", "/app/valid/x", "/nothing", "/app/token")
    ]
    replies.append(production.call("POST", "/app/token"))
    for reply in replies:
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "Server" not in reply.headers
