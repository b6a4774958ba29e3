"""The files of a list in SQLite, opened by one process, and whether they are still the files of that list."""

import ctypes
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import sleep
from typing import Final
from weakref import WeakSet

from ...errors import StoreError
from ...policy import TRUST
from ..contract import Point
from ..forks import ForkGuard
from ..newest import Moment, Newest, follows
from .bell import Bell
from .bell import make as make_bell
from .file import SUFFIXES, connect
from .file import create as create_list
from .snapshot import SQLiteSnapshot
from .statements import MARK

_of_this_process: Final = WeakSet["OpenedFiles"]()
_BELL: Final = "-bell"


class OpenedFiles:
    """Three connections to the list at `path`, and its bell. Arguments as of SQLiteStore.

    Raises:
        StoreError: the file is missing, not a list, or of a later version.
    """

    def __init__(self, path: Path, *, create: bool, timeout: float, newest: Newest) -> None:
        self.timeout: Final = timeout
        self.newest: Final = newest
        self.guard: Final = ForkGuard()
        self.write_lock: Final = threading.Lock()
        self._read_lock = threading.Lock()
        self._copy_lock = threading.Lock()
        self.path = path
        with self.translated(), ExitStack() as opened:
            self._open(opened, create=create)
            opened.pop_all()

    def _open(self, opened: ExitStack, *, create: bool) -> None:
        # Absolute, or after a later chdir it would name another file. SQLite follows links, so this must,
        # too.
        self.path = self.path.resolve()
        str(self.path).encode()  # raises for a name that SQLite could not open, before a file is made
        self._files = tuple(f"{self.path}{suffix}" for suffix in (*SUFFIXES, _BELL))
        is_new = create and create_list(self.path)
        if not self.path.exists():
            raise StoreError(
                f"There is no list {self.path}: put it back. If there never was one, make it once:"
                " python -m signer create-list"
            )
        #: For look-ups, for those who copy the list, and for changes.
        self.reader, self._copier, self.writer = (
            opened.enter_context(closing(connect(self.path, self.timeout))) for _ in range(3)
        )
        _of_this_process.add(self)
        for reader in (self.reader, self._copier):
            reader.execute("PRAGMA query_only = ON")
        # In WAL mode a reader waits only if it is locked out, and an event loop must not wait for that.
        self.reader.execute("PRAGMA busy_timeout = 0")
        if make_bell(Path(self._files[-1])) and not is_new:
            sleep(TRUST)  # other processes may still listen to a bell that was deleted
        self.bell = opened.enter_context(closing(Bell(Path(self._files[-1]))))
        self._identity = self._identify()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for look-ups.

        Raises:
            StoreError: the list cannot be read, or is another.
        """
        self.guard.check()
        self.acquire(self._read_lock, self.timeout)
        try:
            with self.translated():
                self.check_identity()
                yield self.reader
        finally:
            self._read_lock.release()

    @contextmanager
    def apart(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, for what reads the whole file: look-ups must not wait for that.

        Raises:
            StoreError: as reading.
        """
        with self.translated(), closing(connect(self.path, self.timeout)) as connection:
            self.check_identity()
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[SQLiteSnapshot]:
        """See Store.snapshot."""
        self.guard.check()
        self.acquire(self._copy_lock, self.timeout)
        try:
            with self.translated():
                self.check_identity()
                with self.snapshot_on(self._copier) as snapshot:
                    yield snapshot
        finally:
            self._copy_lock.release()

    @contextmanager
    def snapshot_on(self, reader: sqlite3.Connection) -> Iterator[SQLiteSnapshot]:
        """The same on a connection of the caller's."""
        seen = self.newest.get()
        reader.execute("BEGIN")
        try:
            snapshot = SQLiteSnapshot.of(reader)
            self.heed(reader, snapshot.point, seen)
            yield snapshot
        finally:
            reader.execute("COMMIT")

    def acquire(self, lock: threading.Lock, seconds: float) -> None:
        """Acquire a connection's lock.

        Raises:
            StoreError: another thread holds it for longer than that.
        """
        if not lock.acquire(timeout=seconds):
            raise StoreError(f"The list {self.path} cannot answer: an earlier call has not ended.")

    def heed(self, connection: sqlite3.Connection, point: Point, seen: Moment) -> None:
        """Call this before any caller learns what a list at `point` says; `seen` is from before it was read.

        Raises:
            StoreError: it is older than a list that was seen before.
        """
        self.check_history(connection, point, seen)
        # The process that made the newest change may have died before it rang: every process must hear of it.
        if self.bell.rung_for() < point.number:
            self.bell.ring(point.number)

    def check_history(self, connection: sqlite3.Connection, point: Point, seen: Moment) -> None:
        """Return only if a list at `point` follows the moment `seen`, and note that it was seen.

        Raises:
            StoreError: it does not.
        """
        known = None
        if point.number > seen.number:
            known = connection.execute(MARK, (seen.number,)).fetchone()
        if not follows(point, seen, known and known[0]):
            self.newest.miss(seen)
            raise StoreError(
                f"The list {self.path} was overwritten with an older one, or exchanged for it: put the newer"
                " one back, or restart to accept this one."
            )
        self.newest.see(Moment(*point))

    def check_identity(self) -> None:
        """Return only if the files are those that were opened.

        Raises:
            StoreError: one was replaced. OSError: one is gone.
        """
        if self._identify() != self._identity:
            raise StoreError(
                f"The list {self.path} was replaced while running: put the file back, or restart to"
                " accept the new one."
            )

    def _identify(self) -> tuple[tuple[int, int], ...]:
        found = map(os.stat, self._files)
        return tuple((status.st_dev, status.st_ino) for status in found)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Within it, errors of SQLite and of the file system become StoreError."""
        try:
            yield
        # The last two: values in the file, or characters in its name, of a kind that cannot be used.
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            raise StoreError(f"The list {self.path} cannot answer: {error}.") from error

    def close(self) -> None:
        """Close connections and bell. Repeating it changes nothing."""
        for connection, lock in (
            (self.reader, self._read_lock),
            (self._copier, self._copy_lock),
            (self.writer, self.write_lock),
        ):
            # A connection in which a call hangs stays open until the process ends.
            if lock.acquire(timeout=self.timeout):
                connection.close()
                lock.release()
        self.bell.close()

    def leave_behind(self) -> None:
        """Never close the connections, not even when the interpreter ends. In the child of a fork, closing
        them would write back what the parent had read, and remove the -wal of processes that wrote since
        (sqlite.org/howtocorrupt.html, section 2.6)."""
        for connection in (self.reader, self._copier, self.writer):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _leave_behind() -> None:
    for opened in list(_of_this_process):
        opened.leave_behind()


os.register_at_fork(after_in_child=_leave_behind)
