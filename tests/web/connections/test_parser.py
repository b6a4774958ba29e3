"""The parser of requests, compared with httptools alone."""

from itertools import pairwise
from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer.policy import MAX_HEAD, MAX_HEADERS
from signer.web.connections import parser as messages
from signer.web.connections.parser import Head, Messages, Refused

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\n"


class Kept:
    """What a parser has reported of each request: its head, its body, and whether it is complete."""

    def __init__(self) -> None:
        self.requests: list[list[Any]] = []

    def on_head(self, head: Head) -> None:
        self.requests.append([head.method, head.target, head.version, head.headers, b"", False])

    def on_body(self, part: bytes) -> None:
        self.requests[-1][4] += part

    def on_end(self) -> None:
        self.requests[-1][5] = True


class Stock(Kept):
    """The same, reported by httptools itself."""

    def __init__(self) -> None:
        super().__init__()
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def on_message_begin(self) -> None:
        self.target, self.is_in_head = b"", True
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_in_head:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.is_in_head = False
        method, version = self.parser.get_method().decode(), self.parser.get_http_version()
        self.requests.append([method, self.target, version, self.headers, b"", False])

    on_message_complete = Kept.on_end


def parsed(pieces: list[bytes]) -> tuple[list[Any], int | None]:
    """The requests in these pieces, and the status if one is refused."""
    kept = Kept()
    parser = Messages(kept)
    try:
        for piece in pieces:
            rest = parser.feed(piece)
            while parser.is_whole:
                parser.next()
                rest = parser.feed(rest)
            assert rest == b""
    except Refused as refused:
        return kept.requests, refused.status
    finally:
        parser.close()
    return kept.requests, None


def parsed_by_httptools(pieces: list[bytes]) -> tuple[list[Any], int | None]:
    stock = Stock()
    try:
        for piece in pieces:
            stock.parser.feed_data(piece)
    except httptools.HttpParserError:
        return stock.requests, 400
    return stock.requests, None


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(ends)]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_only_a_client_that_knows_it_is_told_to_continue(version: str) -> None:
    """RFC 9110, section 10.1.1: a server ignores the expectation of an HTTP/1.0 client."""
    heads: list[Head] = []
    kept = Kept()
    kept.on_head = heads.append  # type: ignore[method-assign,assignment]
    parser = Messages(kept)
    parser.feed(f"POST / HTTP/{version}\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n".encode())
    parser.close()
    assert [head.expects_continue for head in heads] == [version == "1.1"]


#: Parts of requests, valid or almost.
PARTS = [
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a?b=c HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 11\r\n\r\nab\r\n\r\ncd\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\r\n\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    b"\r\n", b"\n", b"\r", b"0\r\n\r\n", b"2\r\nab\r\n", b"\r\n\r\n", b"GET ", b"/ HTTP/1.1\r\n", b"A: b\r\n", b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n", b" ", b"\x00", b"a" * 100,
]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=8), st.lists(st.integers(0, 2000), max_size=10))
def test_it_finds_what_httptools_finds(parts: list[bytes], places: list[int]) -> None:
    """Wherever it is cut. Only bytes after a request for another protocol are treated differently."""
    data = b"".join(parts)
    assert parsed(cut(data, places)) == parsed([data])
    # httptools stops at bytes that arrive together with a request for an upgrade.
    if b"CONNECT" not in data and b"upgrade" not in data:
        assert parsed([data]) == parsed_by_httptools([data])


def test_a_request_is_not_parsed_before_the_one_before_it_is_answered() -> None:
    """However many arrive in one piece."""
    kept = Kept()
    parser = Messages(kept)
    rest = parser.feed(PARTS[0] * 1000)
    assert len(kept.requests) == 1
    assert rest == PARTS[0] * 999
    assert parser.feed(rest) == rest
    parser.next()
    assert parser.feed(rest) == PARTS[0] * 998
    parser.close()


@pytest.mark.parametrize("step", [1, 3, 1000, MAX_HEAD])
@pytest.mark.parametrize("more", [0, 1])
def test_a_head_may_be_so_long_and_no_longer(step: int, more: int) -> None:
    """To the byte, wherever it is cut. The recipient is not notified of a longer one."""
    head = HEAD + b"X: " + b"a" * (MAX_HEAD + more - len(HEAD) - 7) + b"\r\n\r\n"
    assert len(head) == MAX_HEAD + more
    pieces = [head[begin : begin + step] for begin in range(0, len(head), step)]
    requests, refusal = parsed(pieces * 2)
    assert (len(requests), refusal) == ((2, None) if more == 0 else (0, 431))


@pytest.mark.parametrize("more", [0, 1])
def test_a_head_may_have_so_many_headers(more: int) -> None:
    """A hundred, as in other servers."""
    requests, refusal = parsed([b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_HEADERS + more) + b"\r\n"])
    assert (len(requests), refusal) == ((1, None) if more == 0 else (0, 431))


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "framing",
    [
        b"1;" + b"a" * MAX_HEAD + b"\r\nx\r\n0\r\n\r\n",
        b"0\r\nX: " + b"a" * MAX_HEAD + b"\r\n\r\n",
        b"0\r\n" + b"A: b\r\n" * (MAX_HEAD // 6) + b"\r\n",
        b"1\r\nx\r\n" * (MAX_HEAD // 4) + b"0\r\n\r\n",
        b"\r\n" * MAX_HEAD,
    ],
    ids=["extension", "trailer", "trailers", "bytes", "empty lines"],
)
def test_what_frames_a_body_has_a_limit_too(framing: bytes) -> None:
    """The framing belongs neither to the head nor to the body, and the request is not complete."""
    for step in (1000, len(framing)):
        pieces = [framing[begin : begin + step] for begin in range(0, len(framing), step)]
        requests, refusal = parsed([b"" if framing[:2] == b"\r\n" else CHUNKED, *pieces])
        assert refusal == 431
        assert not any(request[5] for request in requests)


def test_a_head_and_what_frames_its_body_have_a_limit_each() -> None:
    """A long credential, and short chunks."""
    head = CHUNKED[:-2] + b"X: " + b"a" * 16_000 + b"\r\n\r\n"
    requests, refusal = parsed([head, b"1;" + b"a" * 16_000 + b"\r\nx\r\n0\r\n\r\n"])
    assert (refusal, requests[0][4:]) == (None, [b"x", True])


@pytest.mark.parametrize("size", [6, 100, 5000])
def test_a_long_body_in_short_chunks_is_no_long_head(size: int) -> None:
    """As sent by a client that writes a list item by item."""
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    requests, refusal = parsed([CHUNKED, *[chunk] * (500_000 // size), b"0\r\n\r\n"])
    assert refusal is None
    assert len(requests[0][4]) == 500_000 // size * size


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
        HEAD + b"Content-Length: +3\r\n\r\nabc",
        HEAD + b"Content-Length: 0x3\r\n\r\nabc",
        HEAD + b"Content-Length: -3\r\n\r\nabc",
        HEAD + b"Content-Length: \r\n\r\n",
        HEAD + b"Content-Length: 18446744073709551616\r\n\r\n",
        HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: identity\r\n\r\nabc",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"X: a\r\n b\r\n\r\n",
        HEAD + b" X: a\r\n\r\n",
        HEAD + b"X : a\r\n\r\n",
        HEAD + b"X: a\x00b\r\n\r\n",
        HEAD + b"X: a\rb\r\n\r\n",
        HEAD + b"X: a\n\r\n",
        HEAD + b"X: a\r\n\n",
        HEAD + b"X\r\n\r\n",
        HEAD + b": a\r\n\r\n",
        b"GET / HTTP/1.1\n\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        CHUNKED + b"3\nabc\n0\n\n",
        CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nabcd0\r\n\r\n",
        CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"0\r\nX: a\n\r\n",
        HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 30\r\n\r\n",
        HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nContent-Length: 30\r\n\r\n",
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(data: bytes) -> None:
    """A proxy might read it in the other way, and take a part of it for the next caller's request (request
    smuggling). Bytes after it are no request either."""
    for pieces in ([data + PARTS[0]], [data, PARTS[0]], [bytes([byte]) for byte in data + PARTS[0]]):
        requests, refusal = parsed(pieces)
        assert refusal == 400
        assert not any(request[5] for request in requests)


def test_a_proxy_that_asks_for_another_protocol_is_answered_in_this_one() -> None:
    """As curl and Java's client ask. httptools alone stops at bytes that arrive together with such a
    request."""
    requests, refusal = parsed([PARTS[7] + PARTS[0]])
    assert refusal is None
    assert [request[5] for request in requests] == [True, True]


def test_two_requests_in_one_piece_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If httptools ever found the end of a head at another place, they would be answered as one."""
    monkeypatch.setattr(messages, "_END", b"never in it")
    kept = Kept()
    parser = Messages(kept)
    with pytest.raises(Refused):
        parser.feed(PARTS[0] * 2)
    assert len(kept.requests) == 1
    assert parser.is_whole
    parser.close()
