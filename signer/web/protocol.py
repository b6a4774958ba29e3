"""HTTP parsing with limits."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of a message that are not body: request line, headers, chunk sizes and trailers. Counted by what
#: arrives at once, so that somewhat more may pass.
MAX_HEAD: Final = 64 * 1024
_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class CappedProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol, which alone keeps a request line or header of any length in memory, and
    takes trailers for headers: a credential that no proxy has looked at (RFC 9110, section 6.5.1)."""

    _head = 0
    _head_is_complete = False

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD and not self.transport.is_closing():
            # Where an earlier request still waits for its answer, this one would be taken for it.
            if self.cycle is None or self.cycle.response_complete:
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
