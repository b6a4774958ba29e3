"""The audit trail: one JSON object a line for every change, written down before it is made.

    {"time":"2026-11-24T15:04:05.678Z","request_id":"…","actor":"billing","address":"192.0.2.7",
     "event":"consume","outcome":"ok","jti":"…","sub":"42","purpose":"reset","kid":"kHd3aP"}

A change that is made has a line, whatever happens afterwards; one that fails after its line was written gets
a second one, with the code of the error. So a crash may leave a line of a change that nobody was told of,
and never a change without a line. Names are those of events.Event and events.Origin; what is not known is
left out. A token is never in it.
"""

import json
import logging
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec.structs import asdict, replace

from .errors import AuditError, ConfigurationError, CredentialInvalid, ScopeInsufficient
from .events import OK, Event, Origin, origin
from .files import is_file, sync_directory, without_waiting, write
from .policy import AUDIT_TIMEOUT, MAX_LINE

logger = logging.getLogger(__name__)

#: Instead of a file's name: standard output.
STDOUT: Final = "stdout"
#: Seconds in which another process is done with the line that it is writing, also on a busy machine.
_MOMENT: Final = 0.1
#: Seconds between two looks whether it is.
_GLANCE: Final = 0.002
#: Of every value but `sub`: they are shorter where we issued the token.
_MAX_VALUE: Final = 64
_MAX_SUB: Final = 255
_sync = getattr(os, "fdatasync", os.fsync)


class AuditTrail:
    """A Hook that keeps the trail.

    Args:
        target: a file's path, or STDOUT.
        validations: write a line for every validation, too; without waiting for the disk.
        clock: seconds since 1970, UTC.

    Raises:
        ConfigurationError: the file cannot be opened, or there is no standard output.
    """

    def __init__(
        self, target: str, *, validations: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = None if target == STDOUT else Path(target).absolute()
        self._validations = validations
        self._clock = clock
        # One durable line at a time, and none while the file is exchanged under its descriptor.
        self._lock = threading.Lock()
        #: The thread whose lines become durable together, and those of them that are not yet.
        self._grouping = threading.Lock()
        self._owner: int | None = None
        self._unsynced: list[tuple[Context, Event]] = []
        self._is_torn = False
        self._is_failing = False
        try:
            self._descriptor = self._opened()
        except OSError as error:
            raise ConfigurationError(f"AUDIT_LOG: the audit trail cannot be opened: {error}.") from None

    def before(self, event: Event) -> None:
        """Write the line of a change, and return when it is durable.

        Raises:
            AuditError: it cannot be written.
        """
        try:
            self._await_reader()
            with self._lock:
                if self._is_deleted():
                    self._exchange()
                self._is_torn = self._ends_within_a_line()
                self._write(event)
                if self._owner == threading.get_ident():
                    self._unsynced.append((copy_context(), event))
                else:
                    self._make_durable([(copy_context(), event)])
        except OSError as error:
            raise AuditError(f"The audit trail cannot be written: {error}.") from error

    @contextmanager
    def together(self) -> Iterator[None]:
        """The lines of changes that this thread begins within it are durable at its end; others wait.

        Raises:
            AuditError: they are not.
        """
        with self._grouping:
            self._owner = threading.get_ident()
            try:
                yield
                self._end_together()
            finally:
                self._owner = None
                self._unsynced.clear()

    def _end_together(self) -> None:
        try:
            with self._lock:
                self._make_durable(self._unsynced)
        except OSError as error:
            raise AuditError(f"The audit trail cannot be written: {error}.") from error

    def after(self, event: Event) -> None:
        """Write a line where the change failed, a caller was refused, or validations are asked for."""
        if not self._is_told(event):
            return
        try:
            self._write(event)
            self._is_failing = False
        except OSError as error:
            # Once: this may be said of every request.
            if not self._is_failing:
                logger.error("The audit trail cannot be written: %s.", error)  # noqa: TRY400 - no traceback
            self._is_failing = True

    def reopen(self) -> None:
        """Go on in a new file of the same name, after the old one was moved away (logrotate). Where that
        cannot be opened, go on in the old one."""
        if self._path is None:
            return
        try:
            with self._lock:
                self._exchange()
            logger.info("Opened the audit trail anew: %s", self._path)
        except OSError as error:
            logger.error("The audit trail goes on in the old file: %s.", error)  # noqa: TRY400

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

    def _is_told(self, event: Event) -> bool:
        if event.is_change:
            # What went well was told before; but for how much a purge found.
            return event.outcome not in (OK, AuditError.code) or event.rows is not None
        if event.name == "validate":
            return self._validations
        # All else strangers could repeat until the disk is full. Wrong credentials RATE_LIMIT counts.
        return event.outcome in (CredentialInvalid.code, ScopeInsufficient.code)

    def _opened(self) -> int:
        if self._path is None:
            # Where it was closed, its number may be that of the list by now.
            if sys.stdout is None:
                raise OSError("there is no standard output")
            return without_waiting(sys.stdout.fileno())
        # Read, too: the end of it tells whether the last line is whole. A named pipe that nobody reads is an
        # error, and not a start that hangs.
        flags = os.O_WRONLY if self._path.is_fifo() else os.O_RDWR | os.O_CREAT
        descriptor = os.open(self._path, flags | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        sync_directory(self._path.parent)
        return descriptor

    def _is_deleted(self) -> bool:
        return (
            self._path is not None and is_file(self._descriptor) and os.fstat(self._descriptor).st_nlink == 0
        )

    def _exchange(self) -> None:
        self._make_durable(self._unsynced)  # in the file that they are in
        new = self._opened()
        # In place: whoever writes at this moment does so into the one file or the other.
        os.dup2(new, self._descriptor, inheritable=False)
        os.close(new)

    def _await_reader(self) -> None:
        # Without the lock, for which others wait.
        if not is_file(self._descriptor):
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll(AUDIT_TIMEOUT * 1000)

    def _write(self, event: Event) -> None:
        line = b"\n" * self._is_torn + self._line(event)
        try:
            self._is_torn = write(self._descriptor, line) < len(line)
        except BlockingIOError:
            raise OSError("nobody reads it") from None
        if self._is_torn:
            raise OSError("no space for the whole line")

    def _ends_within_a_line(self) -> bool:
        # Another process, or this one before it was restarted, may have found no space for the rest of its
        # line. If the end moves while we look, another process is writing.
        end = self._end_within_a_line()
        until = time.monotonic() + _MOMENT
        while end is not None and end == self._end_within_a_line():
            if time.monotonic() > until:
                return True
            time.sleep(_GLANCE)
        return False

    def _end_within_a_line(self) -> int | None:
        """Where the trail ends, if that is not the end of a line."""
        end = os.fstat(self._descriptor).st_size if is_file(self._descriptor) else 0
        is_torn = self._is_torn
        if end:
            with suppress(OSError):  # standard output need not be readable
                is_torn = os.pread(self._descriptor, 1, end - 1) != b"\n"
        return end if is_torn else None

    def _make_durable(self, written: list[tuple[Context, Event]]) -> None:
        if not written or not is_file(self._descriptor):
            return
        try:
            _sync(self._descriptor)
        except OSError:
            # The lines may be there all the same, and the changes will not be made.
            for context, event in written:
                with suppress(OSError):
                    context.run(self._write, replace(event, outcome=AuditError.code))
            raise

    def _line(self, event: Event) -> bytes:
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        about = asdict(event)
        source = origin.get(Origin())
        told = {
            "time": moment.replace("+00:00", "Z"),
            "request_id": source.request_id,
            "actor": source.actor,
            "address": source.address,
            "event": about.pop("name"),
            **about,
        }
        line = _encoded(told, _MAX_SUB)
        return line if len(line) <= MAX_LINE else _encoded(told, _MAX_VALUE)


def _encoded(told: dict[str, object], longest_sub: int) -> bytes:
    said = {
        name: _defused(value, name, longest_sub) if isinstance(value, str) else value
        for name, value in told.items()
        if value is not None
    }
    # In ASCII: JSON escapes there all that a terminal might obey, or a reader take for the end of the line.
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


def _defused(value: str, name: str, longest_sub: int) -> str:
    if name == "sub":
        return value[:longest_sub]
    return re.sub("[^ -~]", "?", value[:_MAX_VALUE])
