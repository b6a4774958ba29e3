"""HTTP parsing with limits, and a way around it."""

import re
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

#: An answer: status, headers, and all of its body.
Whole = tuple[int, list[tuple[bytes, bytes]], bytes]

#: Bytes of a message that are not body: request line, headers, chunk sizes and trailers. Counted by what
#: arrives at once, so that somewhat more may pass.
MAX_HEAD: Final = 64 * 1024
#: Requests of one connection that wait for the answer to the one before them; uvicorn alone keeps any number.
MAX_PIPELINED: Final = 100
#: How requests begin that are shown to the application before they are parsed: many tokens in a path, and one
#: path with a body.
VALID: Final = "/app/valid/"
TOKEN: Final = "/app/token"  # noqa: S105 - a path
_QUICK: Final = (f"GET {VALID}".encode(), f"POST {TOKEN} ".encode())
#: The head of a request with a path that nothing is encoded in, and headers of visible ASCII.
_PLAIN: Final = re.compile(
    rb"(GET|POST) (/[A-Za-z0-9._/-]{1,8000}) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]+: [!-~](?:[ -~]*[!-~])?\r\n)+)\r\n"
)
_HEADER: Final = re.compile(rb"([^:]+): ([^\r]+)\r\n")
_LENGTH: Final = b"content-length"
#: With any of these it may have a body of another kind, or is the last one of its connection.
_FRAMING: Final = frozenset(
    {_LENGTH, b"transfer-encoding", b"connection", b"proxy-connection", b"upgrade", b"expect"}
)
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

    An application may have a method `at_once`, which takes a scope and a whole body and gives a Whole, or
    None. Requests that are asked most, of the plainest kind, are shown to that first: to parse any request
    there may be, and to make a task and messages of it, takes three times as long as to validate a token.
    """

    _head = 0
    _head_is_complete = False
    #: A message has begun and is not complete: what comes is a part of it, whatever it looks like.
    _is_within = False
    _is_draining = False

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
        if data.startswith(_QUICK) and self._is_answered(data):
            return
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

    def _is_answered(self, data: bytes) -> bool:
        """Whether `data` was one whole request of the plainest kind, and has its answer."""
        is_free = (
            self._head == 0
            and not self._is_within
            and self._is_idle()
            and not self._is_draining
            and not self.flow.write_paused
        )
        match = _PLAIN.match(data) if is_free and hasattr(self.app, "at_once") else None
        if match is None or match.end() > MAX_HEAD:
            return False
        body = data[match.end() :]
        headers = [(name.lower(), value) for name, value in _HEADER.findall(match[3])]
        framing = [header for header in headers if header[0] in _FRAMING]
        # A body that is here to its last byte, and ends there.
        if framing != ([(_LENGTH, b"%d" % len(body))] if match[1] == b"POST" else []) or (
            body and not framing
        ):
            return False
        scope = {
            "type": "http",
            "method": match[1].decode(),
            "path": match[2].decode(),
            "root_path": self.root_path,
            "headers": headers,
            "client": self.client,
        }
        answer: Whole | None = self.app.at_once(scope, body)
        if answer is None:
            return False
        self._unset_keepalive_if_required()
        status, told, content = answer
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *told)]
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], b"".join(lines), content))
        self.on_response_complete()
        return True
