"""How changes of a list in SQLite become durable, and how all processes of the machine hear of them."""

import secrets
import sqlite3
import threading
from contextlib import AbstractContextManager, suppress
from time import monotonic
from typing import Final

from ...errors import StoreError
from ...policy import LOG_SIZE
from ..contract import Point, Row
from ..grouping import Grouping
from ..newest import Moment
from .opened import OpenedFiles
from .statements import ADD_CHANGES, FORGET, NEWEST_CHANGE, add_lines

#: Seconds that a change waits for another process's, if the change before it has waited in vain.
IMPATIENCE: Final = 0.25
#: Lines of the log that are written, or forgotten, at once; older versions of SQLite accept 999 values.
_LOT: Final = 128
#: Notes a change of no row.
NOTHING: Final = Row("", 0)


class Writer(Grouping[sqlite3.Connection, Row]):
    """The changes of one process."""

    def __init__(self, opened: OpenedFiles) -> None:
        super().__init__(opened.write_lock)
        self._opened = opened
        self._writer = opened.writer
        self._wait = opened.timeout
        #: The number of changes in the list when this process began the last one.
        self._made = 0

    def _check_open(self) -> None:
        self._opened.guard.check()

    def _acquire(self, lock: threading.Lock) -> None:
        self._opened.acquire(lock, self._wait)

    def _translated(self) -> AbstractContextManager[None]:
        return self._opened.translated()

    def _begun(self) -> sqlite3.Connection:
        if self._writer.in_transaction:
            return self._writer
        self._opened.check_identity()
        self._take_turn()
        point = self._newest_change()
        self._opened.check_history(self._writer, point, self._opened.newest.get())
        # No other process can change the list now. So any other count in the bell is that of another list, or
        # of a process that died.
        if self._opened.bell.rung_for() != point.number:
            self._opened.bell.ring(point.number)
        self._made = point.number
        return self._writer

    def _take_turn(self) -> None:
        latest = monotonic() + self._wait + IMPATIENCE
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            self._set_wait(min(self._opened.timeout, IMPATIENCE))
            raise
        # SQLite waits for some locks without a limit, and by now no caller waits for the change any more.
        if monotonic() > latest:
            raise StoreError(f"The list {self._opened.path} was locked for longer than a change waits.")
        self._set_wait(self._opened.timeout)

    def _set_wait(self, seconds: float) -> None:
        if seconds != self._wait:
            self._wait = seconds
            self._writer.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def _commit(self) -> None:
        opened = self._opened
        with opened.translated():
            if not self._writer.in_transaction:
                return  # nothing was to be changed, or it could not begin, and the caller knows that
            self._check_failure()
            if not (point := self._log()):
                return
            self._writer.execute("COMMIT")
            # A process that has read the list since the commit may have rung for it already. A count beyond
            # the list's was not written by a process that changed this list, and does not count as a ring.
            rung = opened.bell.rung_for()
            if rung < point.number or rung > self._newest_change().number:
                opened.bell.ring(point.number)
            # A file that was deleted during the commit took the change with it, and that is no success.
            opened.check_identity()
            opened.newest.see(Moment(*point))

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")

    def _log(self) -> Point | None:
        known, mark = self._made, secrets.randbits(63)
        rows = [
            (known + number, mark, row.name, row.expires_at, row.generation)
            for number, row in enumerate(self.changed, 1)
        ]
        for start in range(0, len(rows), _LOT):
            lot = rows[start : start + _LOT]
            self._writer.execute(add_lines(len(lot)), [value for row in lot for value in row])
        changes = known + len(rows)
        if not rows:
            return None
        self._writer.execute(ADD_CHANGES, (changes, mark))
        if known // _LOT != changes // _LOT:
            self._writer.execute(FORGET, (changes - LOG_SIZE,))
        return Point(changes, mark)

    def _newest_change(self) -> Point:
        found = self._writer.execute(NEWEST_CHANGE).fetchone()
        if found is None:
            raise StoreError(f"The list {self._opened.path} lost its state: restore it from a backup.")
        return Point(*map(int, found))
