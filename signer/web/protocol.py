"""HTTP parsing with limits, and answers without a task."""

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

#: An answer: status, headers, and all of its body.
Whole = tuple[int, list[tuple[bytes, bytes]], bytes]

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


class CappedProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol, which alone keeps a request line or header of any length in memory, and
    any number of requests of a client that does not read the answers; takes trailers for headers, and so for
    a credential that no proxy has looked at (RFC 9110, section 6.5.1); and closes connections at once when
    the server ends.

    An application may have a method `at_once`, which takes a scope and gives a Whole, or None. What it
    answers is written while the request is parsed: a task of its own and the messages of ASGI take longer
    than to validate a token."""

    _head = 0
    _head_is_complete = False
    _is_draining = False
    _has_answered = False

    def shutdown(self) -> None:
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

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        self._has_answered = False
        super().data_received(data)
        if len(self.pipeline) > MAX_PIPELINED:
            self.transport.abort()
        if self._head > MAX_HEAD and not self.transport.is_closing():
            # Where an earlier request still waits for its answer, this one would be taken for it.
            if self._is_idle():
                self.transport.write(_REFUSAL)
            self.transport.close()

    def on_message_begin(self) -> None:
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
        self._head = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._is_draining:
            cycle.keep_alive = False  # the answer says so, and the next request goes elsewhere
        # One for each piece of data: of a thousand requests in it, those of others would wait for all.
        may_answer = hasattr(app, "at_once") and not self._has_answered and not self.flow.write_paused
        answer: Whole | None = app.at_once(cycle.scope) if may_answer else None
        if answer is None:
            super()._start_asgi_task(cycle, app)
        else:
            self._has_answered = True
            self._write(cycle, answer)

    def _write(self, cycle: RequestResponseCycle, answer: Whole) -> None:
        status, headers, body = answer
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], b"".join(lines), body))
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
