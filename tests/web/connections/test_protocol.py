"""The protocol and its transport alone, on real sockets: what is read and sent, when, in which order, and how
long a connection stays open."""

import asyncio
import gc
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from math import inf
from typing import Any, cast

import pytest
import uvicorn
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clock import HANG
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from signer.policy import LEAST_TAKEN, MAX_HEADERS
from signer.web.connections import parser as messages
from signer.web.connections import protocol
from signer.web.connections.cork import MOST_CORKED, MOST_KEPT, CorkedTransport
from signer.web.connections.deadline import Deadline
from signer.web.connections.parser import Messages
from signer.web.connections.protocol import MOST_READ, CappedProtocol

GET = b"GET /app/valid/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: Seconds that no test waits for.
LATER = 1000
SMALL = 32 * 1024


class Counted:
    """An application whose answers say how often it was called, and in how many rounds of the loop."""

    def __init__(self) -> None:
        self.asked = 0

    def at_once(self, scope: Any, body: bytes) -> Any:
        self.asked += 1
        return 200, [(b"content-length", b"5")], b"%05d" % self.asked

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})


@pytest.fixture(params=[uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    def run(test: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(test, HANG))

    return run


async def soon(holds: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    while not holds():  # noqa: ASYNC110 - of what others do, who set no event
        await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(
    app: Any, kind: Any = CappedProtocol, *, keep_alive: float = LATER
) -> AsyncIterator[tuple[int, ServerState]]:
    """A server of this application, whose connections have small buffers; its port."""
    config = uvicorn.Config(
        app,
        timeout_keep_alive=cast(int, keep_alive),
        log_config=None,
        proxy_headers=False,
        lifespan="off",
        ws="none",
    )
    config.load()
    state = ServerState()
    listener = socket.create_server(("127.0.0.1", 0))
    for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        listener.setsockopt(socket.SOL_SOCKET, size, SMALL)
    server = await asyncio.get_running_loop().create_server(lambda: kind(config, state, {}), sock=listener)
    try:
        yield server.sockets[0].getsockname()[1], state
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await soon(lambda: not state.connections)


class Echo:
    """Answers with the path and the body of a request. It reads the body first, except for `/early` and
    `/deaf`. For `/wait` and `/deaf` it waits until the test lets it continue; for `/begun`, after it has
    begun to answer. Long answers are `/long` in one piece, and `/pieces` in many. `/whole` is as long, for a
    transport that buffers everything."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_go_on = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        self.asked.append(path)
        body = b"" if path in {"/early", "/deaf", "/begun"} else await self._read(receive)
        if body is None:
            return
        if path in {"/wait", "/deaf"}:
            await self.may_go_on.wait()
        pieces = [(path.encode() + body).ljust(LENGTHS.get(path, 0))] * (MANY if path == "/pieces" else 1)
        length = b"%d" % sum(map(len, pieces))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        if path == "/begun":
            await self.may_go_on.wait()
        for left, piece in zip(reversed(range(len(pieces))), pieces, strict=True):
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})

    async def _read(self, receive: Any) -> bytes | None:
        body: bytes = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                return body
        return None  # the client has left


LENGTHS = {"/long": 1024 * 1024, "/pieces": 1000, "/whole": 1024 * 1024}
#: Requests that fill the buffers of client and server.
MANY = 5000


async def unlimited(state: ServerState) -> None:
    """Have the transport of the one connection not report that its buffer is full."""
    await soon(lambda: bool(state.connections))
    only(state).transport._transport.set_write_buffer_limits(2 * LENGTHS["/whole"])


def get(path: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: a", *headers, "", ""]).encode() + body


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client whose buffers are small, too."""
    client = socket.socket()
    for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        client.setsockopt(socket.SOL_SOCKET, size, SMALL)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=SMALL)
    try:
        yield reader, writer
    finally:
        if not writer.is_closing():
            writer.transport.abort()


def only(state: ServerState) -> CappedProtocol:
    """The one connection."""
    (connection,) = state.connections
    return cast(CappedProtocol, connection)


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", received)]


def test_answers_of_one_round_are_made_before_the_first_is_sent(
    run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not too many of them."""
    app, sent_at = Counted(), []
    send = CorkedTransport.send

    def noted(transport: CorkedTransport) -> None:
        sent_at.append(app.asked)
        send(transport)

    monkeypatch.setattr(CorkedTransport, "send", noted)

    async def test() -> None:
        async with serving(app) as (port, state):
            callers = [socket.create_connection(("127.0.0.1", port), 2) for _ in range(3 * MOST_CORKED)]
            await soon(lambda: len(state.connections) == len(callers))
            for caller in callers:
                caller.sendall(GET)
            await soon(lambda: app.asked == len(callers))
            await asyncio.sleep(0.1)
            answers = {caller.recv(1000)[-5:] for caller in callers}
            assert answers == {b"%05d" % number for number in range(1, len(callers) + 1)}
            for caller in callers:
                caller.close()
        sending = sorted(set(sent_at))
        assert sending[0] > 1
        assert max(later - earlier for earlier, later in zip([0, *sending], sending, strict=False)) <= (
            MOST_CORKED + 1
        )

    run(test())


def test_whoever_says_no_more_still_gets_the_answers(run: Callable[[Any], None]) -> None:
    """The client ends its side of the connection in the same round as its requests arrive."""

    async def test() -> None:
        async with serving(Counted()) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            writer.write_eof()
            assert (await reader.read()).endswith(b"\r\n\r\n00001")
            writer.close()

    run(test())


def test_an_answer_that_is_made_is_sent_before_the_server_closes(run: Callable[[Any], None]) -> None:
    """`shutdown` and `close` in the round of the answer."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        made: asyncio.Future[CorkedTransport] = loop.create_future()

        class Closing(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                corked = CorkedTransport(transport, loop)
                corked.write(b"one ")
                corked.write(b"two")
                made.set_result(corked)
                corked.close()
                corked.write(b"three")

        server = await loop.create_server(Closing, "127.0.0.1")
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert await reader.read() == b"one two"
        assert (await made).is_closing()
        writer.close()
        server.close()

    run(test())


def test_much_is_not_kept(run: Callable[[Any], None]) -> None:
    """A long answer is sent at once, so that the transport's own limits apply. After an abort, nothing is
    sent."""

    async def test() -> None:
        loop = asyncio.get_running_loop()

        class Long(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                corked = CorkedTransport(transport, loop)
                corked.write(b"x")
                corked.write(b"y" * (MOST_KEPT + 1))
                corked.write(b"z")
                corked.abort()

        server = await loop.create_server(Long, "127.0.0.1")
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        received = b""
        try:
            while part := await reader.read(1000_000):
                received += part
        except ConnectionResetError:
            pass
        assert received == b"x" + b"y" * (MOST_KEPT + 1)
        writer.close()
        server.close()

    run(test())


def test_one_connection_that_cannot_be_sent_to_holds_up_no_other(
    run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That connection is closed."""
    app, sent = Counted(), []
    send = CorkedTransport.send

    def fails_first(transport: CorkedTransport) -> None:
        sent.append(transport)
        if transport is sent[0]:
            raise ZeroDivisionError
        send(transport)

    async def test() -> None:
        async with serving(app) as (port, state):
            callers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            await soon(lambda: len(state.connections) == len(callers))
            monkeypatch.setattr(CorkedTransport, "send", fails_first)
            for _, writer in callers:
                writer.write(GET)
            read = [asyncio.create_task(reader.read(1000)) for reader, _ in callers]
            await asyncio.wait(read)
            answered = [not each.exception() and each.result().startswith(b"HTTP/1.1 200 ") for each in read]
            assert sorted(answered) == [False, True, True, True]
            for _, writer in callers:
                writer.close()

    run(test())
    assert "An answer cannot be sent" in caplog.text


# How far a client is read, and in which order it is answered.


def test_a_client_is_read_no_further_than_it_is_answered(run: Callable[[Any], None]) -> None:
    """A client that does not read its answers has to wait with its requests."""

    async def test() -> None:
        app = Echo()
        async with serving(app) as (port, state), connected(port) as (reader, writer):
            sent = b"".join(get(f"/{number}") for number in range(MANY))
            writer.write(get("/wait") + sent)
            await soon(lambda: app.asked == ["/wait"])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 1)
            assert len(only(state)._rest) <= MOST_READ
            assert app.asked == ["/wait"]
            app.may_go_on.set()
            received = b""
            while received.count(b"HTTP/1.1 200") <= MANY:
                received += await reader.read(1_000_000)
            assert app.asked == ["/wait", *(f"/{number}" for number in range(MANY))]
            # The body of the last answer may not have arrived.
            assert [int(path) for path in re.findall(rb"\r\n\r\n/(\d+)", received)][: MANY - 1] == list(
                range(MANY - 1)
            )

    run(test())


@pytest.mark.parametrize("is_cut", [True, False])
@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (get("/", "X: " + "a" * 20_000), 431),
        (get("/", *["X: a"] * 101), 431),
    ],
    ids=["nonsense", "lengths", "long", "many"],
)
def test_a_refusal_comes_after_the_answers_to_what_was_asked_before(
    run: Callable[[Any], None], bad: bytes, status: int, is_cut: bool
) -> None:
    """Otherwise a client that has revoked a token would take the refusal for the answer to that."""

    async def test() -> None:
        app = Echo()
        async with serving(app) as (port, _), connected(port) as (reader, writer):
            writer.write(get("/wait") + get("/next") + (b"" if is_cut else bad))
            await soon(lambda: app.asked == ["/wait"])
            writer.write((bad if is_cut else b"") + get("/after"))
            await asyncio.sleep(0.1)
            app.may_go_on.set()
            received = await reader.read()
            assert statuses(received) == [200, 200, status]
            assert b"connection: close" in received
            assert app.asked == ["/wait", "/next"]

    run(test())


def test_a_body_that_cannot_be_read_is_refused_in_its_turn(run: Callable[[Any], None]) -> None:
    """The application is told that the client has left."""

    async def test() -> None:
        app = Echo()
        async with serving(app) as (port, state), connected(port) as (reader, writer):
            writer.write(get("/first") + get("/second", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n"))
            await soon(lambda: app.asked == ["/first", "/second"])
            writer.write(b"nonsense\r\n" + get("/third"))
            assert statuses(await reader.read()) == [200, 400]
            await soon(lambda: not state.tasks)
            assert app.asked == ["/first", "/second"]

    run(test())


@pytest.mark.parametrize("framing", ["Content-Length: 600000", "Transfer-Encoding: chunked"])
def test_an_answer_before_the_end_of_the_request_is_the_last(
    run: Callable[[Any], None], framing: str
) -> None:
    """What arrives after it is no request, and does not reset the connection before the answer was read."""

    async def test() -> None:
        app = Echo()
        async with serving(app) as (port, state), connected(port) as (reader, writer):
            writer.write(get("/early", framing))
            await soon(lambda: app.asked == ["/early"])
            for _ in range(20):
                writer.write(get("/within") * 1000)
                await writer.drain()
            received = await reader.read()
            assert statuses(received) == [200]
            assert b"connection: close" in received
            assert received.endswith(b"/early")
            assert app.asked == ["/early"]
            writer.close()
            await soon(lambda: not state.connections)

    run(test())


def test_a_request_that_ends_after_its_answer_began_is_the_last(run: Callable[[Any], None]) -> None:
    """As that answer says."""

    async def test() -> None:
        app = Echo()
        async with serving(app) as (port, _), connected(port) as (reader, writer):
            writer.write(get("/begun", "Content-Length: 5"))
            assert b"connection: close" in await reader.readuntil(b"\r\n\r\n")
            writer.write(b"hello" + get("/never"))
            await asyncio.sleep(0.1)
            app.may_go_on.set()
            assert await reader.read() == b"/begun"
            assert app.asked == ["/begun"]

    run(test())


def test_a_body_that_nobody_reads_fills_no_memory(run: Callable[[Any], None]) -> None:
    """The client has to wait, and can send the rest once it has its answer."""

    async def test() -> None:
        app = Echo()
        async with serving(app) as (port, state), connected(port) as (reader, writer):
            writer.write(get("/deaf", "Content-Length: 100000000") + b"x" * 600_000)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 1)
            cycle = only(state)._cycle
            assert cycle
            assert len(cycle.body) <= HIGH_WATER_LIMIT + MOST_READ
            app.may_go_on.set()
            await writer.drain()
            assert (await reader.read()).endswith(b"/deaf")

    run(test())


def test_a_request_that_is_whole_when_it_is_answered_leaves_the_connection_open(
    run: Callable[[Any], None],
) -> None:
    """Whether its body was read or not, the next request is answered."""

    async def test() -> None:
        app = Echo()
        async with serving(app) as (port, _), connected(port) as (reader, writer):
            for path in ("/early", "/other"):
                writer.write(get(path, "Content-Length: 5", body=b"hello"))
                received = await reader.readuntil(path.encode())
                assert statuses(received) == [200]
                assert b"connection: close" not in received

    run(test())


def test_what_comes_after_a_last_request_does_not_reset_the_connection(run: Callable[[Any], None]) -> None:
    """The client can read its answer, however much it sends after the request."""

    async def test() -> None:
        app = Echo()
        async with serving(app) as (port, _), connected(port) as (reader, writer):
            writer.write(get("/wait", "Connection: close") + get("/after") * 10_000)
            await soon(lambda: app.asked == ["/wait"])
            app.may_go_on.set()
            await writer.drain()
            assert (await reader.read()).endswith(b"/wait")
            assert app.asked == ["/wait"]

    run(test())


@pytest.mark.parametrize("limits", [(0.2, LATER), (LATER, 1000)], ids=["seconds", "bytes"])
def test_who_sends_on_after_the_last_answer_is_not_heard_for_ever(
    run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, limits: tuple[float, int]
) -> None:
    """The service reads on neither for long, nor for many bytes."""
    for limit, value in zip(("LINGER_TIME", "MOST_IGNORED"), limits, strict=True):
        monkeypatch.setattr(protocol, limit, value)

    async def test() -> None:
        async with serving(Echo()) as (port, state), connected(port) as (reader, writer):
            writer.write(get("/early", "Content-Length: 600000"))
            await reader.readuntil(b"/early")
            writer.write(b"x" * 1001)
            await soon(lambda: not state.connections)

    run(test())


def test_two_requests_in_one_piece_are_not_answered_as_one(
    run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If httptools ever found the end of a head at another place than this parser, the first answer would be
    the last."""
    monkeypatch.setattr(messages, "_END", b"never in it")

    async def test() -> None:
        app = Echo()
        async with serving(app) as (port, _), connected(port) as (reader, writer):
            writer.write(get("/a") + get("/b"))
            received = await reader.read()
            assert statuses(received) == [200]
            assert b"connection: close" in received
            assert app.asked == ["/a"]

    run(test())


# How long a connection stays open.

KEEP_ALIVE, HEAD_TIME = 0.3, 0.6
STATES = {
    "silent": (b"", None, KEEP_ALIVE),
    "an answer": (GET, 200, KEEP_ALIVE),
    "another answer": (get("/else"), 404, KEEP_ALIVE),
    "a byte": (b"G", 408, HEAD_TIME),
    "half a line": (b"GET /app/valid/", 408, HEAD_TIME),
    "half a head": (GET[:-2], 408, HEAD_TIME),
    "an empty line": (b"\r\n", 408, HEAD_TIME),
    "a byte after an answer": (GET + b"G", 408, HEAD_TIME),
    "a byte after another answer": (get("/else") + b"G", 408, HEAD_TIME),
}


@pytest.mark.parametrize("name", STATES)
def test_a_client_that_says_no_more_is_given_up(
    run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever it has sent before."""
    monkeypatch.setattr(protocol, "HEAD_TIME", HEAD_TIME)
    sent, status, seconds = STATES[name]

    async def test() -> None:
        async with (
            serving(Counted(), keep_alive=KEEP_ALIVE) as (port, state),
            connected(port) as (reader, writer),
        ):
            begun = time.monotonic()
            writer.write(sent)
            answered = statuses(await reader.read())
            assert time.monotonic() - begun > 0.9 * seconds
            assert answered[-1:] == ([] if status is None else [status])
            writer.close()
            await soon(lambda: not state.connections)

    run(test())


@pytest.mark.parametrize("other", [GET, get("/else")], ids=["plain", "other"])
def test_a_connection_is_kept_for_as_long_after_each_answer(run: Callable[[Any], None], other: bytes) -> None:
    """One timer serves many plain requests, and other requests, too."""

    async def test() -> None:
        async with serving(Counted()) as (port, state), connected(port) as (reader, writer):
            for request in (GET, other, GET, other):
                begun = asyncio.get_running_loop().time()
                writer.write(request)
                await reader.readuntil(b"\r\n\r\n")
                assert only(state)._deadline._at >= begun + LATER

    run(test())


def test_a_deadline_is_the_one_that_was_set_last(run: Callable[[Any], None]) -> None:
    """Whether it is earlier or later than the one set before."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        passed: list[float] = []
        deadline = Deadline(loop, lambda: passed.append(loop.time()))
        begun = loop.time()
        deadline.set(LATER)
        deadline.set(0.05)
        deadline.set(0.3)
        await soon(lambda: bool(passed))
        assert passed[0] >= begun + 0.29
        deadline.set(0.05)
        deadline.set(inf)
        await asyncio.sleep(0.2)
        deadline.set(0.05)
        deadline.close()
        await asyncio.sleep(0.2)
        assert len(passed) == 1

    run(test())


def test_a_head_has_its_time_from_its_first_byte(
    run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a client goes on sending it."""
    monkeypatch.setattr(protocol, "HEAD_TIME", HEAD_TIME)

    async def test() -> None:
        async with serving(Counted()) as (port, _), connected(port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n")
            receiving = asyncio.create_task(reader.read())
            while not receiving.done():
                writer.write(b"X: y\r\n")
                await asyncio.sleep(0.05)
            assert statuses(receiving.result()) == [408]

    run(test())


@pytest.mark.parametrize("path", ["/long", "/pieces", "/whole"])
@pytest.mark.parametrize("headers", [(), ("Connection: close",), ("Content-Length: 5",)])
def test_an_answer_that_nobody_takes_is_given_up(
    run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, path: str, headers: tuple[str, ...]
) -> None:
    """Also the last answer of a connection, because closing waits until everything is sent."""
    monkeypatch.setattr(protocol, "TAKE_TIME", 0.3)

    async def test() -> None:
        app = Echo()
        keep_alive = LATER if headers == ("Connection: close",) else 0.3
        async with serving(app, keep_alive=keep_alive) as (port, state), connected(port) as (_, writer):
            if path == "/whole":
                await unlimited(state)
            writer.write(get(path, *headers))
            await soon(lambda: bool(app.asked))
            if headers == ("Content-Length: 5",):
                writer.write(b"hello")
            await soon(lambda: not state.connections)
            await soon(lambda: not state.tasks)

    run(test())


@pytest.mark.parametrize("path", ["/long", "/pieces", "/whole"])
@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
def test_an_answer_that_is_taken_late_arrives(
    run: Callable[[Any], None], path: str, headers: tuple[str, ...]
) -> None:
    """Although an idle connection would be closed by now, this one has an answer to deliver."""

    async def test() -> None:
        async with serving(Echo(), keep_alive=0.3) as (port, state), connected(port) as (reader, writer):
            if path == "/whole":
                await unlimited(state)
            writer.write(get(path, *headers))
            await asyncio.sleep(0.8)
            received = await reader.read(1_000_000)
            while len(received) < LENGTHS[path]:
                part = await reader.read(1_000_000)
                assert part
                received += part

    run(test())


def test_an_answer_that_is_taken_slowly_arrives(run: Callable[[Any], None]) -> None:
    """A client that accepts enough within each time limit gets all of it; one that stops is given up."""

    async def test() -> None:
        async with serving(Echo()) as (port, state), connected(port) as (reader, writer):
            writer.write(get("/long"))
            await soon(lambda: bool(state.connections))
            connection = only(state)
            await soon(lambda: connection._flow.write_paused)
            for _ in range(3):
                # Until the client has read more than the kernel's buffers.
                untaken = connection.transport.get_write_buffer_size()
                while connection.transport.get_write_buffer_size() > untaken - LEAST_TAKEN:
                    await reader.read(SMALL)
                connection._on_time()
                assert not connection.is_closing()
            connection._on_time()
            await soon(lambda: not state.connections)

    run(test())


@pytest.mark.parametrize(
    "sent", [b"", GET[:-2], get("/early", "Content-Length: 5")], ids=["silent", "head", "body"]
)
def test_a_server_that_ends_waits_for_nobody_who_has_not_asked(
    run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """It waits only for a moment, because a request may be on its way."""
    monkeypatch.setattr(protocol, "DRAIN_TIME", 0.1)
    for time_limit in ("HEAD_TIME", "LINGER_TIME"):
        monkeypatch.setattr(protocol, time_limit, LATER)

    async def test() -> None:
        async with serving(Echo()) as (port, state), connected(port) as (_, writer):
            writer.write(sent)
            await soon(lambda: bool(state.connections))
            await asyncio.sleep(0.1)
            for connection in list(state.connections):
                connection.shutdown()
            await soon(lambda: not state.connections)

    run(test())


# What a connection leaves behind.


def test_nothing_is_left_to_the_garbage_collector(run: Callable[[Any], None]) -> None:
    """It runs so seldom that connections waiting for it would fill the memory."""
    kinds = {CappedProtocol, Messages, Deadline, CorkedTransport, RequestResponseCycle}

    def alive() -> list[Any]:
        # Not isinstance(), which asks lazy objects of other libraries for their class, and some of them fail.
        return [each for each in gc.get_objects() if type(each) in kinds]

    async def test() -> None:
        app = Echo()
        async with serving(app) as (port, state):
            for sent in (
                b"", GET, GET[:-2], b"nonsense", get("/a") * 1000, get("/wait") + get("/a") * 1000, get("/long"),
                get("/a", "Content-Length: 5", body=b"he"), get("/a", "Transfer-Encoding: chunked", body=b"x"),
                get("/early", "Content-Length: 5"), get("/a", "X: " + "a" * 20_000), get("/a", "Connection: close"),
            ):  # fmt: skip
                for is_polite in (True, False):
                    async with connected(port) as (reader, writer):
                        writer.write(sent)
                        with suppress(TimeoutError):
                            await asyncio.wait_for(reader.read(100), 0.1)
                        if is_polite:
                            writer.close()
                    app.may_go_on.set()
                    await soon(lambda: not state.connections and not state.tasks)
                    app.may_go_on.clear()
            await soon(lambda: not alive())

    gc.collect()
    gc.disable()
    try:
        run(test())
    finally:
        gc.enable()


def test_a_large_body_that_comes_at_once_leaves_the_connection_open(
    run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading pauses while the application has much to read, and after the last part it asks for no more."""
    monkeypatch.setitem(globals(), "SMALL", 1024 * 1024)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        async with serving(Echo()) as (port, _):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setblocking(False)
                for length in range(60_000, 100_000, 2500):
                    await loop.sock_sendall(client, get("/a", f"Content-Length: {length}"))
                    await asyncio.sleep(0.01)  # the application is waiting for the body
                    client.send(b" " * length)
                    answer = b""
                    while len(answer) < length:
                        more = await loop.sock_recv(client, length)
                        assert more, length
                        answer += more

    run(test())


@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_of_headers_holds_for_plain_requests_too(run: Callable[[Any], None], more: int) -> None:
    """For requests that arrive whole and are read without the parser."""
    fields = [f"X-{number}: y" for number in range(MAX_HEADERS - 1 + more)]

    async def test() -> None:
        async with serving(Counted()) as (port, _), connected(port) as (reader, writer):
            writer.write(get("/app/valid/x", *fields))
            status = (await reader.readline()).split()[1]
            assert status == (b"431" if more else b"200")

    run(test())


# Behaviour that is the same as under uvicorn's own protocol.

FRAGMENTS = [
    get("/a"),
    get("/b%20c?d=e"),
    get("/c", "Content-Length: 5", body=b"hello"),
    get("/d", "Content-Length: 30000", body=get("/within").ljust(30_000)),
    get("/e", "Transfer-Encoding: chunked", body=b"3\r\nabc\r\n4\r\n\r\n\r\n\r\n0\r\nX: y\r\n\r\n"),
    get("/f", "Expect: 100-continue", "Content-Length: 2", body=b"ok"),
    get("/g", "Connection: upgrade", "Upgrade: h2c"),
    get("/h").replace(b"GET", b"HEAD"),
    b"GET * HTTP/1.1\r\n\r\n",
]
LAST = [
    get("/i", "Connection: close") + get("/never"),
    b"GET /j HTTP/1.0\r\n\r\n",
    b"nonsense\r\n\r\n",
    get("/k", "X : y"),
    get("/l", "Content-Length: x"),
]


async def answers(kind: Any, pieces: list[bytes], pause: float) -> bytes:
    """All bytes that are returned, without "100 Continue", which depends on what arrives together with the
    head."""
    async with serving(Echo(), kind) as (port, _), connected(port) as (reader, writer):
        receiving = asyncio.create_task(reader.read())
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause)
        received = await receiving
        writer.close()
    return received.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")


@given(
    st.lists(st.sampled_from(FRAGMENTS), max_size=6),
    st.sampled_from(LAST),
    st.lists(st.integers(0, 70_000), max_size=6),
)
@settings(max_examples=30, deadline=None)
@pytest.mark.slow
def test_requests_at_random_are_answered_as_one_by_one_by_uvicorn(
    requests: list[bytes], last: bytes, places: list[int]
) -> None:
    """To the byte, wherever they are cut, and all at once."""
    whole = b"".join([*requests, last])
    # Only before that request: later, the connection may be closed, and bytes that arrive would reset it.
    most = len(whole.partition(b"GET /never")[0])
    ends = sorted({place % most for place in places} | {0, len(whole)})
    pieces = [whole[begin:end] for begin, end in pairwise(ends)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        own = runner.run(asyncio.wait_for(answers(CappedProtocol, pieces, 0), HANG))
        uvicorns = answers(HttpToolsProtocol, [*requests, last], 0.01)
        assert own == runner.run(asyncio.wait_for(uvicorns, HANG))
