"""How changes of a list in PostgreSQL become durable."""

import secrets
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from time import monotonic
from typing import Final

from ...errors import StoreError
from ...policy import LOG_SIZE
from ..contract import Point
from ..grouping import Grouping
from ..newest import NOTHING, Moment
from . import statements
from .link import Link, last_of
from .pool import Connection

#: Lines of the log that are forgotten at once.
_LOT: Final = 256
#: Notes a change of no row: no name, expiry or generation.
NO_ROW: Final = (b"", 0, 0)


class Writer(Grouping[Connection, tuple[bytes, int, int]]):
    """The changes of one process, each noted by name, expiry and generation."""

    def __init__(self, link: Link) -> None:
        # One of this process's threads at a time, or those that wait would leave readers no connection.
        super().__init__(threading.Lock())
        self._link = link
        #: The connection of the changes under way, from the first one on.
        self._writer: Connection | None = None
        self._held = ExitStack()
        #: The number of changes in the list when the first of them began.
        self._made = 0

    @property
    def has_begun(self) -> bool:
        """Whether the calling thread has made changes that are not committed yet."""
        return self.is_mine and self._writer is not None

    @contextmanager
    def deleting(self) -> Iterator[Connection]:
        """The connection to purge with: without the lock for changes, unless this thread makes changes
        together."""
        if self.is_mine:
            with self.writing() as writer:
                yield writer
                self.changed.append(NO_ROW)  # what is not noted is not committed
            return
        with self._link.translated(), ExitStack() as held:
            connection, _ = self._link.on_connection(
                held, lambda found: self._link.begin(found, statements.BEGIN_PURGE, NOTHING)
            )
            yield connection
            connection.execute("COMMIT")

    def _check_open(self) -> None:
        self._link.check_open()

    def _acquire(self, lock: threading.Lock) -> None:
        if not lock.acquire(timeout=self._link.timeout):
            raise StoreError(
                f"The changes before this one keep the list {self._link.name} too long: try again."
            )

    def _translated(self) -> AbstractContextManager[None]:
        return self._link.translated()

    def _begun(self) -> Connection:
        def begin(connection: Connection) -> int:
            seen = self._link.newest.get()
            row = self._link.begin(connection, statements.BEGIN, seen)
            self._link.checked(row, seen)
            return int(self._link.kept(row)[3])

        if self._writer is None:
            self._writer, self._made = self._link.on_connection(self._held, begin)
        self._writer.deadline = monotonic() + self._link.timeout
        return self._writer

    def _commit(self) -> None:
        if self._writer is None:
            return  # nothing was to be changed, or it could not begin, and the caller knows that
        self._check_failure()
        if not self.changed:
            return
        with self._link.translated():
            self._writer.deadline = monotonic() + self._link.timeout
            point = self._log(self._writer)
            self._writer.warning = ""
            # After a failure within the transaction, this is a ROLLBACK, and no error.
            if last_of(self._writer, statements.COMMIT).statusmessage != "COMMIT":
                raise StoreError(f"The list {self._link.name} did not commit: nothing was made.")
            self._link.newest.see(Moment(*point))
            # An administrator may end the wait for a synchronous standby; that is a warning, and no error.
            if self._writer.warning:
                raise StoreError(f"The list {self._link.name} may not be durable: {self._writer.warning}.")

    def _log(self, writer: Connection) -> Point:
        names, exps, generations = zip(*self.changed, strict=True)
        changes, mark = self._made + len(names), secrets.randbits(63)
        is_due = self._made // _LOT != changes // _LOT
        values = {
            "known": self._made,
            "changes": changes,
            "mark": mark,
            "names": list(names),
            "exps": list(exps),
            "generations": list(generations),
            "forgotten": changes - LOG_SIZE if is_due else -1,
        }
        writer.execute(statements.FINISH + statements.NOTIFY * self._link.can_notify, values)
        return Point(changes, mark)

    def _roll_back(self) -> None:
        try:
            self._held.close()
        finally:
            self._writer = None
