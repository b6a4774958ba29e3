"""The protocol and its transport alone, on real sockets: what is sent when, and until when a connection is kept."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from signer.web.cork import MOST_CORKED, MOST_KEPT, CorkedTransport
from signer.web.protocol import CappedProtocol

GET = b"GET /app/valid/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
KEEP_ALIVE = 1


class Counted:
    """An application that answers at once how often it was asked, and in how many rounds of the loop."""

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
            runner.run(asyncio.wait_for(test, 20))

    return run


async def soon(holds: Callable[[], bool]) -> None:
    """Wait until it does."""
    while not holds():  # noqa: ASYNC110 - of what others do, who set no event
        await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[tuple[int, ServerState]]:
    """A server of this application; its port."""
    config = uvicorn.Config(
        app, timeout_keep_alive=KEEP_ALIVE, log_config=None, proxy_headers=False, lifespan="off", ws="none"
    )
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: CappedProtocol(config, state, {}), "127.0.0.1"
    )
    try:
        yield server.sockets[0].getsockname()[1], state
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0.05)


def test_answers_of_one_round_are_made_before_the_first_is_sent(
    run: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not too many of them."""
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


def test_a_connection_is_kept_for_as_long_after_each_answer(run: Callable[[Any], None]) -> None:
    """One timer serves many plain requests, and one that takes the common way has its own."""

    async def test() -> None:
        async with serving(Counted()) as (port, state):
            for other in (GET, b"GET /else HTTP/1.1\r\nHost: localhost\r\n\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                for request in (GET, other, GET):
                    writer.write(request)
                    assert (await reader.read(1000)).startswith(b"HTTP/1.1 ")
                    last = time.monotonic()
                    await asyncio.sleep(0.7 * KEEP_ALIVE)
                assert await reader.read() == b""
                assert 0.95 * KEEP_ALIVE < time.monotonic() - last < 10 * KEEP_ALIVE
                assert not state.connections
                writer.close()

    run(test())


def test_whoever_says_no_more_still_gets_the_answers(run: Callable[[Any], None]) -> None:
    """The end of what a client sends arrives in the same round as its requests."""

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
    """A long answer leaves at once, so that the transport's own limits hold; after an abort nothing does."""

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
    """Its own is ended."""
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
