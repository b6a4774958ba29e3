"""Plain requests: read and answered as a whole, without a parser for all that HTTP allows."""

import re
from collections.abc import Callable, Iterable, Sequence
from hmac import compare_digest
from itertools import chain
from typing import Any, Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from ...policy import MAX_HEADERS

Headers = Sequence[tuple[bytes, bytes]]
#: A whole answer: status, headers and body.
Whole = tuple[int, Headers, bytes]

#: The beginnings of requests that can be read in this way: one path with a token in it, and one with a body.
VALID: Final = "/app/valid/"
TOKEN: Final = "/app/token"  # noqa: S105 - a path
QUICK: Final = (f"GET {VALID}".encode(), f"POST {TOKEN} ".encode())
#: The first line of a request whose path has no encoded characters.
_LINE: Final = re.compile(rb"(GET|POST) (/[A-Za-z0-9._/-]{1,8000}) HTTP/1\.1\r\n")
#: Headers of printable ASCII, and one of them.
_FIELDS: Final = re.compile(rb"(?:[A-Za-z0-9-]+: [!-~](?:[ -~]*[!-~])?\r\n)+")
_FIELD: Final = re.compile(rb"([^:]+): ([^\r]+)\r\n")
_MAX_FIELDS: Final = 4096
_LENGTH: Final = b"content-length"
#: With one of these headers, the request may have a body in chunks, or be the last of its connection.
_FRAMING: Final = frozenset(
    {_LENGTH, b"transfer-encoding", b"connection", b"proxy-connection", b"upgrade", b"expect"}
)
#: A header that some clients send although it is the default.
_KEPT: Final = (b"connection", b"keep-alive")


class PlainRequest(NamedTuple):
    """A plain request. Header names are in lower case."""

    method: str
    path: str
    headers: Headers
    body: bytes


class Reader:
    """Reads the plain requests of one connection. It keeps the last headers, because they seldom change."""

    def __init__(self) -> None:
        #: The last headers: as bytes, parsed, and the Content-Length in them.
        self._fields: bytes | None = None
        self._headers: Headers = ()
        self._length: bytes | None = None

    def read(self, data: bytes) -> PlainRequest | None:
        """The request that these bytes are, from the first to the last; None if they may be anything else."""
        line = _LINE.match(data)
        if line is None:
            return None
        end = data.find(b"\r\n\r\n") + 2
        fields, body = data[line.end() : end], data[end + 2 :]
        # In constant time: the headers have a credential, and a proxy's connection carries many callers, who
        # could otherwise find out each other's by the time that a comparison takes.
        is_known = self._fields is not None and compare_digest(fields, self._fields)
        if not is_known and not self._are_plain(fields):
            return None
        method, path = line.groups()
        if self._length is None:
            is_whole = method == b"GET" and not body
        else:
            is_whole = method == b"POST" and self._length == b"%d" % len(body)
        return PlainRequest(method.decode(), path.decode(), self._headers, body) if is_whole else None

    def _are_plain(self, fields: bytes) -> bool:
        """Whether these headers leave no doubt about the length of the message. If so, they are kept."""
        if len(fields) > _MAX_FIELDS or not _FIELDS.fullmatch(fields):
            return False
        headers = tuple((name.lower(), value) for name, value in _FIELD.findall(fields))
        if len(headers) > MAX_HEADERS:
            return False
        framing = [header for header in headers if header[0] in _FRAMING and header != _KEPT]
        if len(framing) > 1 or (framing and framing[0][0] != _LENGTH):
            return False
        self._fields, self._headers = fields, headers
        self._length = framing[0][1] if framing else None
        return True


class PlainWay:
    """Has the application answer the plain requests of one connection, without task or messages.

    Args:
        at_once: the application's method: it takes a scope and a whole body, and returns the answer, or None
            if it has to wait for something.
        root_path: the prefix that a proxy took away.
        client: address and port of the client.
        state: the server's, which has the headers of every answer.
    """

    def __init__(
        self,
        at_once: Callable[[dict[str, Any], bytes], Whole | None],
        root_path: str,
        client: tuple[str, int] | None,
        state: ServerState,
    ) -> None:
        self._at_once = at_once
        self._root_path = root_path
        self._client = client
        self._state = state
        self._reader = Reader()

    def answer(self, data: bytes) -> bytes | None:
        """The bytes of the whole answer, if `data` is one whole plain request that can be answered now."""
        request = self._reader.read(data)
        if request is None:
            return None
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.path,
            "root_path": self._root_path,
            "headers": request.headers,
            "client": self._client,
        }
        answer = self._at_once(scope, request.body)
        return None if answer is None else rendered(answer, self._state.default_headers)


def rendered(answer: Whole, more: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The bytes of an answer. The headers in `more`, which are the server's, come first."""
    status, headers, content = answer
    headers = (*more, *headers)
    lines = b"%b: %b\r\n" * len(headers) % tuple(chain.from_iterable(headers))
    return b"%b%b\r\n%b" % (STATUS_LINE[status], lines, content)
