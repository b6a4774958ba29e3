"""The parser of one connection. It gives httptools the bytes of one request at a time, and refuses a request
that is longer than allowed."""

from typing import Final, Protocol
from urllib.parse import unquote

import httptools
from msgspec import Struct

from ...policy import MAX_HEAD, MAX_HEADERS

#: The end of every head, and of every message in chunks. httptools accepts no other end of a line.
_END: Final = b"\r\n\r\n"


class Refused(Exception):
    """The bytes are no request, or a longer one than allowed. What follows them cannot be parsed.

    Attributes:
        status: the HTTP status of the answer.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Head(Struct):
    """The part of a request before its body. Header names are in lower case."""

    method: str = ""
    target: bytes = b""
    #: The parts of the target: its path, as sent and decoded, and its query.
    raw_path: bytes = b""
    path: str = ""
    query: bytes = b""
    version: str = ""
    headers: list[tuple[bytes, bytes]] = []
    #: Bytes of the body; 0 if there is none, or one in chunks.
    length: int = 0
    is_chunked: bool = False
    expects_continue: bool = False
    keeps_alive: bool = False


class Recipient(Protocol):
    """Receives each request in turn."""

    def on_head(self, head: Head) -> None:
        """The head is complete."""

    def on_body(self, part: bytes) -> None:
        """A part of the body has arrived."""

    def on_end(self) -> None:
        """The request is complete."""


class Messages:
    """Parses each request to its end and no further. If a client sends many requests before it reads the
    answers, they are parsed one by one, and a refusal keeps its place in the order of answers.

    The recipient and the parser refer to each other through this object, until `close` is called.
    """

    #: No byte has arrived since the end of the last request.
    is_between = True
    #: The request has ended, and `next` was not called since.
    is_whole = False

    def __init__(self, recipient: Recipient) -> None:
        self._recipient = recipient
        self._parser = httptools.HttpRequestParser(self)
        # Bytes after a request that is the connection's last are ignored; they are no error.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.next()

    def next(self) -> None:
        """Begin with the next request."""
        self.is_between, self.is_whole = True, False
        self._head = Head()
        self._is_in_head = True
        #: Bytes outside of the body, and bytes that are missing from a body of known length.
        self._overhead = self._lacking = 0
        #: The last few bytes that were parsed, because the end may have begun there.
        self._last = b""

    def close(self) -> None:
        """Parse nothing more."""
        del self._parser, self._recipient

    def feed(self, data: bytes) -> bytes:
        """Parse to the end of this request, and return the bytes after it.

        Raises:
            Refused: the request cannot be parsed further.
        """
        while data and not self.is_whole:
            self.is_between = False
            size = self._lacking or self._until_end(data)
            self._parse(data[:size])
            data = data[size:]
        return data

    def _until_end(self, data: bytes) -> int:
        """How many of these bytes belong to this head, or can belong to this message in chunks."""
        joined = self._last + data
        end = joined.find(_END) + len(_END)
        is_found = end >= len(_END)
        size = end - len(self._last) if is_found else len(data)
        self._last = b"" if is_found else joined[1 - len(_END) :]
        self._overhead += size
        return size

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # a server can ignore it (RFC 9110, section 7.8) and answer as usual
        except httptools.HttpParserError:
            raise Refused(431 if self._is_too_long else 400) from None
        self._check()

    @property
    def _is_too_long(self) -> bool:
        return self._overhead > MAX_HEAD or len(self._head.headers) > MAX_HEADERS

    def _check(self) -> None:
        if self._is_too_long:
            raise Refused(431)

    # httptools calls the following methods, and stops at any exception.

    def on_message_begin(self) -> None:
        """Refuse a second request in the same bytes: it would be answered instead of the first."""
        if self.is_whole:
            raise Refused(400)

    def on_url(self, part: bytes) -> None:
        """A part of the target."""
        self._head.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; a trailer is ignored, because no proxy has checked it (RFC 9110, section 6.5.1)."""
        if not self._is_in_head:
            return
        head, name = self._head, name.lower()
        head.headers.append((name, value))
        if name == b"content-length":
            head.length = int(value)
        elif name == b"transfer-encoding":
            head.is_chunked = True
        elif name == b"expect" and value.lower() == b"100-continue":
            head.expects_continue = True

    def on_headers_complete(self) -> None:
        """The end of the head."""
        self._check()
        head, parser = self._head, self._parser
        if parser.should_upgrade() and (head.length or head.is_chunked):
            raise Refused(400)  # httptools would parse the body as the next request
        head.method = parser.get_method().decode("ascii")
        url = httptools.parse_url(head.target)
        head.raw_path, head.query = url.path, url.query or b""
        head.path = unquote(url.path.decode("ascii"))
        head.version = parser.get_http_version()
        is_older = head.version == "1.0"
        head.keeps_alive = not is_older and parser.should_keep_alive()
        head.expects_continue = head.expects_continue and not is_older  # RFC 9110, section 10.1.1
        self._is_in_head = False
        self._overhead, self._lacking = 0, head.length
        self._recipient.on_head(head)

    def on_body(self, part: bytes) -> None:
        """A part of the body."""
        if self._lacking:
            self._lacking -= len(part)
        else:
            self._overhead = max(self._overhead - 2 * len(part), 0)
        self._recipient.on_body(part)

    def on_message_complete(self) -> None:
        """The end of the message."""
        self._check()
        self.is_whole = True
        self._recipient.on_end()
