"""HTTP parsing with limits, and a way around it."""

import asyncio
from typing import Any, Final
from weakref import WeakSet

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .cork import CorkedTransport
from .plain import QUICK, Reader, Whole, rendered

#: Bytes of a message that are not body: request line, headers, chunk sizes and trailers. Counted by what
#: arrives at once, so that somewhat more may pass.
MAX_HEAD: Final = 64 * 1024
#: Requests of one connection that wait for the answer to the one before them; uvicorn alone keeps any number.
MAX_PIPELINED: Final = 100
#: Seconds in which a connection that waits for its next request still gets an answer when the server ends:
#: who sends one at this moment would otherwise find it closed.
DRAIN_TIME: Final = 1.0
_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)
#: Of servers that end. A connection that was accepted just before is made when the others have been told.
_ending: Final = WeakSet[ServerState]()


class CappedProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol, which alone keeps a request line or header of any length in memory, and
    any number of requests of a client that does not read the answers; takes trailers for headers, and so for
    a credential that no proxy has looked at (RFC 9110, section 6.5.1); and closes connections at once when
    the server ends.

    An application may have a method `at_once`, which takes a scope and a whole body and gives a Whole, or
    None. Requests that are asked most, of the plainest kind, are shown to that first: to parse any request
    there may be, and to make a task and messages of it, takes three times as long as to validate a token.
    """

    transport: CorkedTransport
    _head = 0
    _head_is_complete = False
    #: A message has begun and is not complete: what comes is a part of it, whatever it looks like.
    _is_within = False
    _is_draining = False
    #: When the last plain request was answered, in seconds of the loop's clock.
    _answered = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reader = Reader()

    def shutdown(self) -> None:
        _ending.add(self.server_state)
        self._is_draining = True
        if self._is_idle():
            self.loop.call_later(DRAIN_TIME, self._close_if_idle)
        else:
            super().shutdown()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(CorkedTransport(transport, self.loop))
        if self.server_state in _ending:
            self.shutdown()

    def eof_received(self) -> None:
        # The transport below closes itself now.
        self.transport.send()
        super().eof_received()

    def data_received(self, data: bytes) -> None:
        answer = self._answer(data) if data.startswith(QUICK) else None
        if answer is None:
            self._parse(data)
        else:
            self.transport.write(answer)

    def _parse(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if len(self.pipeline) > MAX_PIPELINED:
            self.transport.abort()
        if self._head > MAX_HEAD and not self.transport.is_closing():
            # Where an earlier request still waits for its answer, this one would be taken for it.
            if self._is_idle():
                self.transport.write(_REFUSAL)
            self.transport.close()

    def on_message_begin(self) -> None:
        self._is_within = True
        self._head_is_complete = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_is_complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_is_complete = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head = max(self._head - len(body), 0)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_within = False
        self._head = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._is_draining:
            cycle.keep_alive = False  # the answer says so, and the next request goes elsewhere
        super()._start_asgi_task(cycle, app)

    def _answer(self, data: bytes) -> bytes | None:
        """The whole answer, if `data` is one whole request of the plainest kind."""
        is_free = (
            self._head == 0
            and not self._is_within
            and self._is_idle()
            and not self._is_draining
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )
        request = self._reader.read(data) if is_free and hasattr(self.app, "at_once") else None
        if request is None:
            return None
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.path,
            "root_path": self.root_path,
            "headers": request.headers,
            "client": self.client,
        }
        answer: Whole | None = self.app.at_once(scope, request.body)
        if answer is None:
            return None
        self.server_state.total_requests += 1
        self._answered = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._keep_alive_for(self.timeout_keep_alive)
        return rendered(answer, self.server_state.default_headers)

    def timeout_keep_alive_handler(self) -> None:
        # To set this timer anew for each plain request would take a tenth of its time.
        left = self._answered + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._keep_alive_for(left)
        else:
            super().timeout_keep_alive_handler()

    def _keep_alive_for(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)
