"""The list in one SQLite file, shared by every process of a machine.

The table is clustered by expiry: a look-up is one step, because the token carries `exp`, and a purge deletes
a range at one end. In WAL mode readers never wait; with synchronous=FULL, an acknowledged change survives a
power cut. The files are remembered by their inodes and checked: SQLite itself would go on with a file that
was deleted or replaced, and every revocation in it would be undone (sqlite.org/howtocorrupt.html, sections
1.5 and 2.4). An older copy that was written over the same file, or put in its place while a process starts,
is noticed by its count of changes and their marks. It is not noticed while the newest pages are in the -wal.

A process may die between its commit and its ring of the bell. So a process that reads the list, and finds
more changes in it than the bell was rung for, rings before it answers: a token that one process calls used,
no other process calls valid.

The parts: opened.py (files), lookups.py, trust.py (the index), writer.py (changes), snapshot.py.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from ...errors import StoreError
from ...policy import FILE_TIMEOUT, PURGE_STEP
from ..contract import Entry, Row
from ..direct import DirectView
from ..newest import Newest
from . import statements
from .lookups import Lookups
from .opened import OpenedFiles
from .snapshot import SQLiteSnapshot
from .trust import TrustedIndex
from .writer import NOTHING, Writer

logger = logging.getLogger(__name__)


class SQLiteStore:
    """A Store in the SQLite file at `path`.

    Args:
        path: the file. SQLite's own `-wal` and `-shm`, and the `-bell`, are beside it and belong to it.
        create: make the file if there is none; False if a missing file means a lost list.
        timeout: seconds that a change waits for those of other processes and threads. After one has waited in
            vain, the next ones wait for writer.IMPATIENCE, until one succeeds.
        patience: seconds after which a look-up is given up; see asking.Asker. With None, it runs in the
            caller's thread, and waits for the disk.
        only_reads: open a list even if it cannot be written now.
        newest: the newest moment of the list that was seen; None: by this process. Closed with the store.

    Raises:
        StoreError: the file is missing, not a list, of a later version, damaged or not writable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        timeout: float = FILE_TIMEOUT,
        patience: float | None = None,
        only_reads: bool = False,
        newest: Newest | None = None,
    ) -> None:
        self._opened = OpenedFiles(Path(path), create=create, timeout=timeout, newest=newest or Newest())
        self._writer = Writer(self._opened)
        self._lookups = Lookups(self._opened, self._writer, patience)
        self._index = TrustedIndex(self._opened, self._lookups)
        self.view = DirectView(self._lookups.lookup, self._index.is_clear, is_local=True)
        with ExitStack() as opened:
            opened.callback(self._opened.close)
            self._check() if only_reads else self.ping()
            opened.pop_all()
        logger.info("Opened the list %s", self._opened.path)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        return self._lookups.lookup(jti, exp, groups)

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> Entry:
        with self._writer.writing() as writer:
            entry = self._lookups.found(writer, jti, exp, groups)
            if exp < entry.horizon:
                return entry
            writer.execute(statements.REVOKE, (exp, jti, 1, 0, 0))
            self._writer.changed.append(Row(jti, exp))
            return entry._replace(revoked=True)

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        with self._writer.writing() as writer:
            entry = self._lookups.found(writer, jti, exp, ())
            if entry.revoked or entry.rotated_at or entry.uses >= limit or exp < entry.horizon:
                return None
            writer.execute(statements.USE, (exp, jti, 0, 1, 0))
            self._writer.changed.append(Row(jti, exp))
            return entry.uses + 1

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        with self._writer.writing() as writer:
            entry = self._lookups.found(writer, jti, exp, ())
            if entry.revoked or entry.uses or exp < entry.horizon:
                return None
            if not entry.rotated_at:
                writer.execute(statements.ROTATE, (exp, jti, 0, 0, now))
                self._writer.changed.append(Row(jti, exp))
            return entry.rotated_at or now

    def advance(self, group: str, now_ms: int, lifetime: int) -> int:
        with self._writer.writing() as writer:
            writer.execute(statements.NEXT_GENERATION, (now_ms,))
            generation, horizon = writer.execute(statements.GENERATION).fetchone()
            expires_at = max(generation // 1000, horizon) + lifetime
            writer.execute(statements.ADVANCE, (group, generation, expires_at))
            self._writer.changed.append(Row(group, expires_at, generation))
            return int(generation)

    def purge(self, before: int, limit: int = PURGE_STEP) -> int:
        with self._writer.writing() as writer:
            # In the same transaction: no row may go before the horizon says that it can be gone.
            writer.execute(statements.RAISE_HORIZON, (before,))
            self._writer.changed.append(NOTHING)
            bound = writer.execute(statements.PURGE_BOUND, (before, limit)).fetchone() or (before, "")
            deleted = writer.execute(statements.PURGE_TOKENS, bound).rowcount
            deleted += writer.execute(statements.PURGE_GROUPS, (before, limit - deleted)).rowcount
            return deleted

    def together(self) -> AbstractContextManager[None]:
        return self._writer.together()

    def snapshot(self) -> AbstractContextManager[SQLiteSnapshot]:
        return self._opened.snapshot()

    def count(self) -> int:
        self._lookups.now("", 0, ())  # raises if the list is closed, or in another process
        with self._opened.apart() as connection:
            (rows,) = connection.execute(statements.COUNT).fetchone()
            return int(rows)

    def ping(self) -> None:
        self._check()
        # A real change: on a full disk a transaction can begin, and a list of root's can be read.
        with self._writer.writing():
            self._writer.changed.append(NOTHING)
        self._lookups.now("", 0, ())

    def _check(self) -> None:
        self._lookups.now("", 0, ())  # raises if the list is closed, or in another process
        with self._opened.apart() as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise StoreError(f"The list {self._opened.path} is damaged: restore it from a backup.")

    def close(self) -> None:
        if self._opened.guard.is_child:
            return
        self._index.close()
        self._lookups.close()
        self._opened.close()
        self._opened.newest.close()
