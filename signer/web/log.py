"""The log on standard error: a line a record, for people or for machines, in UTC."""

import json
import logging
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from ..files import without_waiting, write

#: What a terminal obeys or a reader takes for a line's end.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


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
        self._descriptor = without_waiting(sys.stderr.fileno())

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            write(self._descriptor, f"{self.format(record)}\n".encode(errors="backslashreplace"))


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record says beside its message: `extra={"fields": {…}}`."""
    found: dict[str, Any] = getattr(record, "fields", {})
    return found


class TextFormatter(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        said = "".join(f" {name}={value}" for name, value in fields(record).items())
        line = f"{_time(record)} {record.levelname} {record.name} {record.getMessage()}{said}"
        line = _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], line)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JSONFormatter(logging.Formatter):
    """One JSON object, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields(record),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")
