"""The audit trail: for every change one line with a JSON object, written before the change is made.

    {"time":"2026-11-24T15:04:05.678Z","request_id":"…","actor":"billing","address":"192.0.2.7",
     "event":"consume","outcome":"ok","jti":"…","sub":"42","purpose":"reset","kid":"kHd3aP"}

Every change that is made has a line, whatever happens afterwards. A change that fails after its line was
written gets a second line, with the code of the error. So a crash may leave a line about a change that was
not made or not acknowledged, but never a change without a line. The names are those of events.Event and
events.Origin; unknown values are left out. No line contains a token.
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

#: In place of a file's name, this means standard output.
STDOUT: Final = "stdout"
#: Seconds after which another process has finished the line that it is writing, even on a busy machine.
_MOMENT: Final = 0.1
#: Seconds between two checks of that.
_GLANCE: Final = 0.002
#: Characters of every value except `sub`. In tokens that we issued, they are shorter.
_MAX_VALUE: Final = 64
_MAX_SUB: Final = 255
_sync = getattr(os, "fdatasync", os.fsync)


class AuditTrail:
    """A Hook that writes the audit trail.

    Args:
        target: a file's path, or STDOUT.
        validations: whether to write a line for every validation, too. These do not wait for the disk.
        clock: returns the time in seconds since 1970 (UTC).

    Raises:
        ConfigurationError: the file cannot be opened, or there is no standard output.
    """

    def __init__(
        self, target: str, *, validations: bool = False, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = None if target == STDOUT else Path(target).absolute()
        self._validations = validations
        self._clock = clock
        # One durable line at a time, and none while the descriptor is switched to a new file.
        self._lock = threading.Lock()
        #: The thread whose lines become durable together, and its lines that are not durable yet.
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
        """Write the line of a change. Return when it is durable.

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
        """The lines of all changes that this thread begins within the `with` block become durable at its end.
        Other threads that call this wait.

        Raises:
            AuditError: at the end: they are not durable.
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
        """Write a line if a change failed, a caller was refused, or validations are to be recorded."""
        if not self._has_line(event):
            return
        try:
            self._write(event)
            self._is_failing = False
        except OSError as error:
            # Log it once, because every request may fail in this way.
            if not self._is_failing:
                logger.error("The audit trail cannot be written: %s.", error)  # noqa: TRY400 - no traceback
            self._is_failing = True

    def reopen(self) -> None:
        """Continue in a new file of the same name, after the old one was moved away (logrotate). If the new
        file cannot be opened, continue in the old one."""
        if self._path is None:
            return
        try:
            with self._lock:
                self._exchange()
            logger.info("Opened the audit trail anew: %s", self._path)
        except OSError as error:
            logger.error("The audit trail goes on in the old file: %s.", error)  # noqa: TRY400

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _has_line(self, event: Event) -> bool:
        if event.is_change:
            # A successful change already has its line; but the number of purged rows is known only now.
            return event.outcome not in (OK, AuditError.code) or event.rows is not None
        if event.name == "validate":
            return self._validations
        # Strangers could repeat anything else until the disk is full; RATE_LIMIT counts wrong credentials.
        return event.outcome in (CredentialInvalid.code, ScopeInsufficient.code)

    def _opened(self) -> int:
        if self._path is None:
            # If it was closed, its descriptor may have been reused for the revocation list.
            if sys.stdout is None:
                raise OSError("there is no standard output")
            return without_waiting(sys.stdout.fileno())
        # Opened for reading, too, to see whether the last line is complete. A named pipe that nobody reads is
        # an error; without O_NONBLOCK, the start would hang.
        flags = os.O_WRONLY if self._path.is_fifo() else os.O_RDWR | os.O_CREAT
        descriptor = os.open(self._path, flags | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        sync_directory(self._path.parent)
        return descriptor

    def _is_deleted(self) -> bool:
        return (
            self._path is not None and is_file(self._descriptor) and os.fstat(self._descriptor).st_nlink == 0
        )

    def _exchange(self) -> None:
        self._make_durable(self._unsynced)  # while the descriptor still belongs to their file
        new = self._opened()
        # The number of the descriptor stays, so a thread that writes now uses the old file or the new one.
        os.dup2(new, self._descriptor, inheritable=False)
        os.close(new)

    def _await_reader(self) -> None:
        # Without the lock, because other threads wait for that.
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
        # Another process, or this one before a restart, may have found no space for the rest of its line. If
        # the end moves between two checks, another process is writing.
        end = self._end_within_a_line()
        until = time.monotonic() + _MOMENT
        while end is not None and end == self._end_within_a_line():
            if time.monotonic() > until:
                return True
            time.sleep(_GLANCE)
        return False

    def _end_within_a_line(self) -> int | None:
        """The size of the trail, if it does not end with a complete line; else None."""
        end = os.fstat(self._descriptor).st_size if is_file(self._descriptor) else 0
        is_torn = self._is_torn
        if end:
            with suppress(OSError):  # standard output may not be readable
                is_torn = os.pread(self._descriptor, 1, end - 1) != b"\n"
        return end if is_torn else None

    def _make_durable(self, written: list[tuple[Context, Event]]) -> None:
        if not written or not is_file(self._descriptor):
            return
        try:
            _sync(self._descriptor)
        except OSError:
            # The lines may be in the file nevertheless, but their changes will not be made: say so.
            for context, event in written:
                with suppress(OSError):
                    context.run(self._write, replace(event, outcome=AuditError.code))
            raise

    def _line(self, event: Event) -> bytes:
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds")
        about = asdict(event)
        source = origin.get(Origin())
        members = {
            "time": moment.replace("+00:00", "Z"),
            "request_id": source.request_id,
            "actor": source.actor,
            "address": source.address,
            "event": about.pop("name"),
            **about,
        }
        line = _encoded(members, _MAX_SUB)
        return line if len(line) <= MAX_LINE else _encoded(members, _MAX_VALUE)


def _encoded(members: dict[str, object], longest_sub: int) -> bytes:
    shown = {
        name: _defused(value, name, longest_sub) if isinstance(value, str) else value
        for name, value in members.items()
        if value is not None
    }
    # In ASCII: JSON escapes all that a terminal might obey, or that a reader might take for a line's end.
    return json.dumps(shown, separators=(",", ":")).encode() + b"\n"


def _defused(value: str, name: str, longest_sub: int) -> str:
    if name == "sub":
        return value[:longest_sub]
    return re.sub("[^ -~]", "?", value[:_MAX_VALUE])
