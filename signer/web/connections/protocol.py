"""HTTP connections: how far each one is read, how long it can remain in one state, and a way around all of
that for plain requests."""

import asyncio
import logging
from typing import Any, Final, cast
from weakref import WeakKeyDictionary, WeakSet

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from ...policy import DRAIN_TIME, HEAD_TIME, LEAST_TAKEN, LINGER_TIME, MOST_IGNORED, TAKE_TIME
from .asgi import ends_of, scope_of
from .cork import CorkedTransport
from .deadline import Deadline
from .parser import Head, Messages, Refused
from .plain import QUICK, PlainWay, Whole, rendered

#: Bytes that are read at a time. A connection holds no more of the requests that wait for an earlier one; the
#: rest waits in the kernel, and then at the client.
MOST_READ: Final = 16 * 1024
_REASONS: Final = {
    400: b"Invalid HTTP request received.",
    408: b"The head of the request did not arrive in time.",
    431: b"The head of the request is too long.",
}
#: The states of servers that are ending. A connection that was accepted just before the end opens after the
#: other ones were told to close, and must learn of it here.
_ending: Final = WeakSet[ServerState]()
#: The buffer that all connections of an event loop read into. Each copies its bytes before the next reads.
_buffers: Final = WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview]()

logger = logging.getLogger("uvicorn.error")


class _Flow(FlowControl):
    """uvicorn's FlowControl resumes reading when an application asks for a body. This one does not while
    requests wait."""

    _is_ahead = False

    def hold(self, *, is_ahead: bool) -> None:
        """Stop reading while the client is ahead: while it has sent requests that wait for an earlier one."""
        was_ahead, self._is_ahead = self._is_ahead, is_ahead
        if is_ahead:
            self.pause_reading()
        elif was_ahead:
            self.resume_reading()

    def resume_reading(self) -> None:
        """As FlowControl."""
        if not self._is_ahead:
            super().resume_reading()


class CappedProtocol(asyncio.BufferedProtocol):
    """One connection to uvicorn's server. Requests are parsed and answered one after the other.

    uvicorn's own protocol parses everything that has arrived, however much it is; answers a malformed request
    before the ones sent earlier; and waits forever for a client that sends nothing, or half a request.

    uvicorn's RequestResponseCycle, which runs the application, uses this object as its transport, because how
    to close depends on what the client still sends.

    An application can have a method `at_once`: see PlainWay. Plain requests are shown to it first, because a
    parser, a task and its messages take three times as long as to validate a token.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._app: Any = config.loaded_app
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_event_loop()
        self._buffer = _buffers.get(self._loop) or _new_buffer(self._loop)
        self._deadline = Deadline(self._loop, self._on_time)
        self._messages = Messages(self)
        #: The way around the parser, if the application has one.
        self._plain: PlainWay | None = None
        #: What answers the request that was parsed, and the bytes after that request.
        self._cycle: RequestResponseCycle | None = None
        self._rest = b""
        self._keeps_alive = False
        self._is_draining = False
        #: The last answer was written. Bytes that arrive now are ignored, but counted.
        self._is_ending = False
        self._ignored = 0
        #: Bytes that the client had not yet accepted when its time limit began.
        self._untaken = 0

    # The transport calls the following methods.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self.transport = CorkedTransport(cast(asyncio.Transport, transport), self._loop)
        self._flow = _Flow(self.transport)
        self._ends = ends_of(self.transport)
        self._state.connections.add(cast(Any, self))
        at_once = getattr(self._app, "at_once", None)
        if at_once:
            self._plain = PlainWay(at_once, self._config.root_path, self._ends.client, self._state)
        self._await_request()
        if self._state in _ending:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended. Cut reference cycles, because the garbage collector runs seldom."""
        self._state.connections.discard(cast(Any, self))
        self._is_ending = True
        self._rest = b""
        self._abandon()
        self._flow.resume_writing()
        self._deadline.close()
        self._messages.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer for bytes that arrive."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have arrived."""
        if self._is_ending:
            self._ignore(nbytes)
            return
        data = self._buffer[:nbytes].tobytes()
        is_first = self._cycle is None and self._messages.is_between
        if is_first and data.startswith(QUICK) and self._plain and not self._flow.write_paused:
            answer = self._plain.answer(data)
            if answer is not None:
                self._state.total_requests += 1
                self._deadline.set(self._config.timeout_keep_alive)
                self.transport.write(answer)
                return
        self._rest += data
        self._parse()
        if is_first:
            self._await_request()

    def eof_received(self) -> None:
        """The client sends no more. The transport below closes itself after this."""
        self.transport.send()

    def pause_writing(self) -> None:
        """The client does not accept what is sent."""
        self._flow.pause_writing()
        self._await_taking(TAKE_TIME)

    def resume_writing(self) -> None:
        """The client has accepted most of it."""
        self._flow.resume_writing()
        self._await_request()

    # The server calls the following method.

    def shutdown(self) -> None:
        """The server is ending: the next answer is the last one."""
        _ending.add(self._state)
        self._is_draining = True
        self._plain = None
        if self._cycle:
            self._cycle.keep_alive = False
        else:
            self._deadline.set(DRAIN_TIME)

    # RequestResponseCycle calls the following methods.

    def write(self, data: bytes) -> None:
        """As asyncio.Transport."""
        self.transport.write(data)

    def is_closing(self) -> bool:
        """As asyncio.Transport."""
        return self._is_ending or self.transport.is_closing()

    def close(self) -> None:
        """As asyncio.Transport; but if the client is still sending, its bytes are read and ignored first."""
        if self.is_closing():
            return
        self._is_ending = True
        is_within = not (self._messages.is_between or self._messages.is_whole)
        if (is_within or self._rest) and self.transport.can_write_eof():
            self.transport.write_eof()
            self._flow.hold(is_ahead=False)
            self._flow.resume_reading()
            self._await_taking(DRAIN_TIME if self._is_draining else LINGER_TIME)
        else:
            self.transport.close()
            self._await_taking(TAKE_TIME)

    def _on_answered(self) -> None:
        self._state.total_requests += 1
        self._cycle = None
        if not self._is_ending:
            # uvicorn resumes reading when the application asks for more of a body. It does not ask after the
            # last part, and the connection would stay paused.
            self._flow.resume_reading()
            self._messages.next()
            self._parse()
            self._await_request()

    # The parser calls the following methods: see parser.Recipient.

    def on_head(self, head: Head) -> None:
        """Run the application."""
        self._keeps_alive = head.keeps_alive
        self._cycle = RequestResponseCycle(
            scope=cast(Any, scope_of(head, self._ends, self._config, self._app_state)),
            transport=cast(asyncio.Transport, self),
            flow=self._flow,
            logger=logger,
            access_logger=logger,
            access_log=False,
            default_headers=self._state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expects_continue,
            keep_alive=False,  # an answer before the end of its request is the connection's last
            on_response=self._on_answered,
        )
        task = self._loop.create_task(self._cycle.run_asgi(self._app))
        task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(task)

    def on_body(self, part: bytes) -> None:
        """Give the application this part of the body."""
        if self._cycle:
            self._cycle.body += part
            self._cycle.message_event.set()
            if len(self._cycle.body) > HIGH_WATER_LIMIT:
                self._flow.pause_reading()

    def on_end(self) -> None:
        """Tell the application that its body is complete."""
        if self._cycle:
            self._cycle.more_body = False
            self._cycle.message_event.set()
            if not self._cycle.response_started:
                self._cycle.keep_alive = self._keeps_alive and not self._is_draining

    def _parse(self) -> None:
        try:
            self._rest = self._messages.feed(self._rest)
        except Refused as refused:
            self._refuse(refused.status)
        else:
            self._flow.hold(is_ahead=bool(self._rest))

    def _refuse(self, status: int) -> None:
        cycle, self._rest = self._cycle, b""
        if cycle and not cycle.more_body:
            cycle.keep_alive = False  # that answer was asked for first, and becomes the last one
            return
        self._abandon()
        if not (cycle and cycle.response_started):
            self.transport.write(rendered(_refusal(status), self._state.default_headers))
            logger.warning(_REASONS[status].decode())
        self.close()

    def _abandon(self) -> None:
        """Tell the application that the client has left."""
        if self._cycle:
            self._cycle.disconnected = True
            self._cycle.message_event.set()
            self._cycle = None

    # How long the connection stays open.

    def _await_request(self) -> None:
        if self._cycle or self._is_ending or self._flow.write_paused:
            return  # the application is working, or another time limit is running
        seconds = self._config.timeout_keep_alive if self._messages.is_between else HEAD_TIME
        self._deadline.set(DRAIN_TIME if self._is_draining else seconds)

    def _await_taking(self, seconds: float) -> None:
        self._untaken = self.transport.get_write_buffer_size()
        self._deadline.set(seconds)

    def _on_time(self) -> None:
        if self._is_ending or self._flow.write_paused:
            self._check_taking()
        elif self._cycle is None and self._messages.is_between:
            self.close()
        elif self._cycle is None:
            self._refuse(408)

    def _check_taking(self) -> None:
        untaken = self.transport.get_write_buffer_size()
        if 0 < untaken <= self._untaken - LEAST_TAKEN:
            self._await_taking(TAKE_TIME)
        else:
            self.transport.abort()

    def _ignore(self, nbytes: int) -> None:
        self._ignored += nbytes
        if self._ignored > MOST_IGNORED:
            self.transport.abort()


def _new_buffer(loop: asyncio.AbstractEventLoop) -> memoryview:
    return _buffers.setdefault(loop, memoryview(bytearray(MOST_READ)))


def _refusal(status: int) -> Whole:
    reason = _REASONS[status]
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(reason)),
        (b"connection", b"close"),
    ]
    return status, headers, reason
