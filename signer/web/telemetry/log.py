"""The log on standard error: one line for each record, as text or as JSON, with times in UTC."""

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

#: Characters that a terminal may obey, or that a reader may take for the end of the line.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: Bytes that are written at once. A pipe takes as many without mixing in lines of other workers (PIPE_BUF).
_AT_ONCE: Final = 4096
#: The lines of requests, as the formatters below would write them. The logger keeps its first name, because
#: log collectors may select lines by it.
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
    """Log records of this level and above, in the form "text" or "json". uvicorn's access log is switched
    off, even under uvicorn's own command, because it has paths in it, and so tokens."""
    handler = _Handler() if sys.stderr else logging.NullHandler()
    handler.setFormatter(JSONFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # uvicorn's own command has already installed its handlers.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"


class _Handler(logging.Handler):
    # If nobody reads, a line is lost: an event loop that waited for the reader would serve no one.
    def __init__(self) -> None:
        super().__init__()
        self._written = writer(without_waiting(sys.stderr.fileno()))

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._written(f"{self.format(record)}\n".encode(errors="backslashreplace"))


class RequestLines:
    """The lines of requests, at level `info`. They look like those of the module `logging`, which itself
    would take a third of a request's time. Many are written together.

    Args:
        form: "text" or "json".
    """

    def __init__(self, form: str) -> None:
        self._written = writer(without_waiting(sys.stderr.fileno()))
        self._template = _JSON_LINE if form == "json" else _TEXT_LINE
        self._lines: list[str] = []

    def add(self, now: float, *values: str | float) -> None:
        """Keep the line of a request until `write`.

        Args:
            now: when it was answered, in seconds since 1970.
            values: the other values of the templates, in order. They must not contain characters that JSON
                escapes.
        """
        self._lines.append(self._template % (_time(now), *values))

    def write(self) -> None:
        """Write the lines that `add` has kept."""
        lines, self._lines = self._lines, []
        for text in _packed(lines, _AT_ONCE):
            # If nobody reads, they are lost.
            with suppress(OSError):
                self._written(text.encode())


def _packed(lines: Iterable[str], size: int) -> Iterable[str]:
    """These lines, joined to texts of up to `size` characters. A longer line is a text by itself."""
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
    """A line that is one JSON object, in ASCII."""

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


# A busy service writes many lines in one millisecond.
@lru_cache(2)
def _moment(milliseconds: int) -> str:
    second, fraction = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:03d}Z"
