"""The log on standard error: a line a record, for people or for machines, in UTC."""

import json
import logging
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from ...files import without_waiting, writer

#: What a terminal obeys or a reader takes for a line's end.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: Bytes that are written at once: lines of several workers do not mix within (PIPE_BUF).
_AT_ONCE: Final = 4096
#: The lines of requests, as the formatters below would make them. The logger keeps the name it had at first:
#: whoever collects logs may select by it.
_TEXT_LINE: Final = (
    "%s INFO signer.web.middleware request method=%s route=%s status=%d duration_ms=%.2f code=%s actor=%s"
    " address=%s request_id=%s\n"
)
_JSON_LINE: Final = (
    '{"time": "%s", "level": "info", "logger": "signer.web.middleware", "message": "request", "method": "%s",'
    ' "route": "%s", "status": %d, "duration_ms": %.2f, "code": "%s", "actor": "%s", "address": "%s",'
    ' "request_id": "%s"}\n'
)


def configure_logging(level: str, form: str) -> None:
    """Log from `level` on, as "text" or "json"; without uvicorn's access log, whoever started the server,
    since that has paths in it, and so tokens."""
    handler = _Handler() if sys.stderr else logging.NullHandler()
    handler.setFormatter(JSONFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # uvicorn's own command has given it handlers of its own by now.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"


class _Handler(logging.Handler):
    # A line is lost where nobody reads: an event loop that waited for it would serve nobody.
    def __init__(self) -> None:
        super().__init__()
        self._written = writer(without_waiting(sys.stderr.fileno()))

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._written(f"{self.format(record)}\n".encode(errors="backslashreplace"))


class RequestLines:
    """The lines of requests, at `info`. Of the machinery of logging, which would take a third of a request's
    time, they have the form only, and many are written together.

    Args:
        form: "text" or "json".
    """

    def __init__(self, form: str) -> None:
        self._written = writer(without_waiting(sys.stderr.fileno()))
        self._template = _JSON_LINE if form == "json" else _TEXT_LINE
        self._lines: list[str] = []

    def add(self, now: float, *said: str | float) -> None:
        """Note a request that was answered at `now`, in seconds since 1970. `said` fills the other places of
        the templates; no text in it may hold a character that JSON escapes."""
        self._lines.append(self._template % (_time(now), *said))

    def write(self) -> None:
        """Write these lines."""
        lines, self._lines = self._lines, []
        for text in _packed(lines, _AT_ONCE):
            # Lost where nobody reads.
            with suppress(OSError):
                self._written(text.encode())


def _packed(lines: Iterable[str], size: int) -> Iterable[str]:
    """The same lines, as few texts of up to `size` characters; a longer line is one by itself."""
    packed = ""
    for line in lines:
        if packed and len(packed) + len(line) > size:
            yield packed
            packed = ""
        packed += line
    yield packed


class TextFormatter(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record.created)} {record.levelname} {record.name} {record.getMessage()}"
        line = _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], line)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JSONFormatter(logging.Formatter):
    """One JSON object, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": _time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def _time(now: float) -> str:
    return _moment(int(now * 1000))


# In many of these nothing happens, and in others as much as a service can do.
@lru_cache(2)
def _moment(milliseconds: int) -> str:
    second, fraction = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:03d}Z"
