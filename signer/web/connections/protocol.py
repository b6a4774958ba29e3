"""HTTP connections: how far each one is read, how long it may stay as it is, and a way around all that for
the plainest requests."""

import asyncio
import logging
from typing import Any, Final, cast
from weakref import WeakKeyDictionary, WeakSet

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from ...policy import DRAIN_TIME, HEAD_TIME, LEAST_TAKEN, LINGER_TIME, MOST_IGNORED, TAKE_TIME
from .cork import CorkedTransport
from .deadline import Deadline
from .parser import Head, Messages, Refused
from .plain import QUICK, PlainWay, Whole, rendered
from .scopes import ends_of, scope_of

#: Bytes that are read at a time. A connection keeps no more of requests that wait for the one before them;
#: the rest waits in the kernel, and then at the client.
MOST_READ: Final = 16 * 1024
_REASONS: Final = {
    400: b"Invalid HTTP request received.",
    408: b"The head of the request did not arrive in time.",
    431: b"The head of the request is too long.",
}
#: Of servers that end. A connection that was accepted just before is made when the others have been told.
_ending: Final = WeakSet[ServerState]()
#: What all connections of an event loop read into, and take away before the next one does.
_buffers: Final = WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview]()

logger = logging.getLogger("uvicorn.error")


class _Flow(FlowControl):
    """uvicorn's, which reads on whenever an application asks for a body; not so while requests wait."""

    _is_ahead = False

    def hold(self, *, is_ahead: bool) -> None:
        """Read only while the client is not ahead."""
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

    uvicorn's own protocol parses all that has come, however much; answers what is malformed before what was
    asked earlier; and waits without end for a client that says nothing, or half of something.

    To uvicorn's RequestResponseCycle, which runs the application, this is the transport: how to close depends
    on what the client still sends.

    An application may have a method `at_once`, which takes a scope and a whole body and gives a Whole, or
    None. Requests that are asked most, of the plainest kind, are shown to that first: to parse any request
    there may be, and to make a task and messages of it, takes three times as long as to validate a token.
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
        #: The way around the parser, where the application has one.
        self._plain: PlainWay | None = None
        #: What answers the request that was parsed, and what came after that.
        self._cycle: RequestResponseCycle | None = None
        self._rest = b""
        self._keeps_alive = False
        self._is_draining = False
        #: The last answer is written. What comes now is ignored, and counted.
        self._is_ending = False
        self._ignored = 0
        #: Bytes that the client had yet to take when its time began.
        self._untaken = 0

    # The transport calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection begins."""
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
        """It has ended. No circle of references may keep it: the garbage collector looks seldom."""
        self._state.connections.discard(cast(Any, self))
        self._is_ending = True
        self._rest = b""
        self._abandon()
        self._flow.resume_writing()
        self._deadline.close()
        self._messages.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to put what comes."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come."""
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
        """The client sends no more. The transport below closes itself now."""
        self.transport.send()

    def pause_writing(self) -> None:
        """The client does not take what is sent."""
        self._flow.pause_writing()
        self._await_taking(TAKE_TIME)

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._flow.resume_writing()
        self._await_request()

    # The server calls this.

    def shutdown(self) -> None:
        """The server ends: the next answer is the last one."""
        _ending.add(self._state)
        self._is_draining = True
        self._plain = None
        if self._cycle:
            self._cycle.keep_alive = False
        else:
            self._deadline.set(DRAIN_TIME)

    # A cycle calls these.

    def write(self, data: bytes) -> None:
        """As asyncio.Transport."""
        self.transport.write(data)

    def is_closing(self) -> bool:
        """As asyncio.Transport."""
        return self._is_ending or self.transport.is_closing()

    def close(self) -> None:
        """As asyncio.Transport; but a client that still sends is heard, to no effect."""
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
            # uvicorn resumes reading when the application asks for more of a body. After the last part of it
            # nobody asks, and the connection would stay paused.
            self._flow.resume_reading()
            self._messages.next()
            self._parse()
            self._await_request()

    # The parser calls these: see messages.Recipient.

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
            keep_alive=False,  # an answer before the end of the request is the connection's last
            on_response=self._on_answered,
        )
        task = self._loop.create_task(self._cycle.run_asgi(self._app))
        task.add_done_callback(self._state.tasks.discard)
        self._state.tasks.add(task)

    def on_body(self, part: bytes) -> None:
        """Give the application that."""
        if self._cycle:
            self._cycle.body += part
            self._cycle.message_event.set()
            if len(self._cycle.body) > HIGH_WATER_LIMIT:
                self._flow.pause_reading()

    def on_end(self) -> None:
        """Tell it so."""
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
            cycle.keep_alive = False  # that answer comes first, and is the last one
            return
        self._abandon()
        if not (cycle and cycle.response_started):
            self.transport.write(rendered(_refusal(status), self._state.default_headers))
            logger.warning(_REASONS[status].decode())
        self.close()

    def _abandon(self) -> None:
        """Let the application know that nobody waits for it."""
        if self._cycle:
            self._cycle.disconnected = True
            self._cycle.message_event.set()
            self._cycle = None

    # How long it stays.

    def _await_request(self) -> None:
        if self._cycle or self._is_ending or self._flow.write_paused:
            return  # it is the application's time, or the client's to take what is sent
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
