"""The list in one SQLite file, shared by every process of a machine.

Clustered by expiry, so that a look-up is one step (the token carries `exp`) and a purge deletes a range
at one end. WAL, so that readers never wait; synchronous=FULL, so that what was acknowledged survives a
power cut. The file is opened by its inode and watched: SQLite itself would go on happily with a file
that was deleted or replaced underneath it, and every revocation in it would be undone
(sqlite.org/howtocorrupt.html, sections 1.5 and 2.4). An older copy written over the same file, or put in its
place while a process starts, is noticed by its count of changes and their marks; while the newest pages lie
in the -wal, one written over the file is not.

Most tokens are in no list, which an index in memory knows. It is trusted as long as nobody has rung the bell
beside the file since it was made, and for TRUST seconds at the most: then the files are looked at again.
"""

import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, NamedTuple

from ..claims import Claims
from ..errors import StoreError
from .base import LOG_SIZE, MAX_GROUPS, PURGE_STEP, Entry, Log, Page, Point, Row
from .bell import Bell
from .bell import make as make_bell
from .index import Index
from .mirror import Mirror
from .newest import Moment, Newest, follows
from .sqlite_file import SUFFIXES, connect
from .sqlite_file import create as create_list

logger = logging.getLogger(__name__)

_IsClear = Callable[[Claims, int], bool]

#: Seconds in which files that were deleted or exchanged, or changed by other programs, are noticed.
TRUST: Final = 0.1
_BELL: Final = "-bell"
#: Lines of the log that are written, or forgotten, at once; older versions of SQLite take 999 values.
_LOT: Final = 128
#: What a change was of that was of no row.
_NOTHING: Final = Row("", 0)
#: One statement sees one snapshot: token, groups and state as they stood together.
_LOOKUP: Final = f"""
SELECT revoked, uses, rotated_at,
(SELECT max(generation) FROM groups WHERE name IN ({", ".join("?" * MAX_GROUPS)})), horizon,
generation, changes, mark FROM state LEFT JOIN tokens ON expires_at = ? AND jti = ?
"""  # noqa: S608 - a number of question marks
_INSERT: Final = "INSERT INTO tokens VALUES (?, ?, ?, ?, ?) ON CONFLICT (expires_at, jti) DO UPDATE SET "
#: The first key past the step; a range from the expiring end up to it is one cheap delete.
_PURGE_BOUND: Final = """
SELECT expires_at, jti FROM tokens WHERE expires_at < ? ORDER BY expires_at, jti LIMIT 1 OFFSET ?
"""
_PURGE_TOKENS: Final = "DELETE FROM tokens WHERE (expires_at, jti) < (?, ?)"
_PURGE_GROUPS: Final = """
DELETE FROM groups WHERE name IN
    (SELECT name FROM groups WHERE expires_at < ? ORDER BY expires_at LIMIT ?)
"""
_TOKENS_AFTER: Final = """
SELECT jti, expires_at, 0, revoked, uses, rotated_at FROM tokens WHERE (expires_at, jti) > (?, ?)
ORDER BY expires_at, jti LIMIT ?
"""
_GROUPS_AFTER: Final = "SELECT name, expires_at, generation FROM groups WHERE name > ? ORDER BY name LIMIT ?"
_LOG_AFTER: Final = """
SELECT number, mark, log.name, coalesce(groups.expires_at, tokens.expires_at), coalesce(groups.generation, 0),
revoked, uses, rotated_at FROM log
LEFT JOIN tokens ON tokens.expires_at = log.expires_at AND jti = log.name AND log.generation = 0
LEFT JOIN groups ON groups.name = log.name AND log.generation > 0
WHERE number > ? ORDER BY number LIMIT ?
"""


class SQLiteStore:
    """A Store in the SQLite file at `path`.

    Args:
        path: the file. Beside it stand SQLite's own `-wal` and `-shm` and the `-bell`, which belong to it.
        create: make the file where there is none; False where a missing file means a lost list.
        timeout: seconds a call waits for another process's write.
        newest: what was seen of the list, by this process where it is None. Closed with the store.

    Raises:
        StoreError: the file is missing, not a list, of a later version, damaged or not writable.
    """

    is_local = True
    is_prompt = True
    freshness = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = True,
        timeout: float = 5.0,
        newest: Newest | None = None,
    ) -> None:
        self._timeout = timeout
        self._newest = newest or Newest()
        self._read_lock = threading.Lock()
        self._write_lock = threading.Lock()
        #: The thread whose changes are under way.
        self._owner: int | None = None
        self._changed: list[Row] = []
        #: Why one of the changes under way failed; "" where none did.
        self._failure = ""
        #: How many changes the list had when this process began the last one.
        self._made = 0
        self._mirror = Mirror(Index)
        #: An index that tells all there was when that number was rung, and until when (time.monotonic) it may
        #: be asked. One tuple, since threads exchange it while others look.
        self._trusted: tuple[int, float, Callable[[Claims, int], bool]] = (
            0,
            0.0,
            self._mirror.copy.is_clear,
        )
        self._path = Path(path)
        with self._translated(), ExitStack() as opened:
            self._open(opened, create=create)
            self.ping()
            opened.pop_all()
        logger.info("Opened the list %s", self._path)

    def _open(self, opened: ExitStack, *, create: bool) -> None:
        # Absolute, or a later chdir would make another file ours; SQLite follows links, so must we.
        self._path = self._path.resolve()
        str(self._path).encode()  # raises for a name that SQLite could not open, before there is a file
        self._files = tuple(f"{self._path}{suffix}" for suffix in (*SUFFIXES, _BELL))
        is_new = create and create_list(self._path)
        if not self._path.exists():
            raise StoreError(
                f"There is no list {self._path}: put it back. If there never was one, start once with one"
                " process and without ?mode=rw in DATABASE_URL."
            )
        self._pid = os.getpid()
        self._reader = opened.enter_context(closing(connect(self._path, self._timeout)))
        self._writer = opened.enter_context(closing(connect(self._path, self._timeout)))
        self._reader.execute("PRAGMA query_only = ON")
        # In WAL a reader waits for nobody but a lock-out, and an event loop must not wait for that.
        self._reader.execute("PRAGMA busy_timeout = 250")
        if make_bell(Path(self._files[-1])) and not is_new:
            sleep(TRUST)  # others may still listen to one that was deleted
        self._bell = opened.enter_context(closing(Bell(Path(self._files[-1]))))
        self._number = self._bell.number
        self._identity = self._identify()

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        # Whoever makes changes together must see those before.
        if self._owner == threading.get_ident():
            with self._translated():
                return _looked_up(self._writer, jti, exp, groups)
        with self._reading() as reader:
            seen = self._newest.get()
            row = reader.execute(_LOOKUP, (*_padded(groups), exp, jti)).fetchone()
            self._check_history(reader, Point(*map(int, row[-2:])), seen)
            return _entry(row)

    recall = lookup

    def catch_up(self) -> None:
        return None

    def is_clear(self, claims: Claims, end: int) -> bool:
        # Taken at once: another thread may exchange it at any moment.
        number, until, is_clear = self._trusted
        if monotonic() < until and self._number[0] == number:
            return is_clear(claims, end)
        ids = self._mirrored()
        return ids is not None and ids.is_clear(claims, end)

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> Entry:
        with self._writing() as writer:
            entry = _looked_up(writer, jti, exp, groups)
            if exp < entry.horizon:
                return entry
            writer.execute(_INSERT + "revoked = 1", (exp, jti, 1, 0, 0))
            self._changed.append(Row(jti, exp))
            return entry._replace(revoked=True)

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        with self._writing() as writer:
            entry = _looked_up(writer, jti, exp, ())
            if entry.revoked or entry.rotated_at or entry.uses >= limit or exp < entry.horizon:
                return None
            writer.execute(_INSERT + "uses = uses + 1", (exp, jti, 0, 1, 0))
            self._changed.append(Row(jti, exp))
            return entry.uses + 1

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        with self._writing() as writer:
            entry = _looked_up(writer, jti, exp, ())
            if entry.revoked or entry.uses or exp < entry.horizon:
                return None
            if not entry.rotated_at:
                writer.execute(_INSERT + "rotated_at = excluded.rotated_at", (exp, jti, 0, 0, now))
                self._changed.append(Row(jti, exp))
            return entry.rotated_at or now

    def advance(self, group: str, now_ms: int, lifetime: int) -> int:
        with self._writing() as writer:
            writer.execute("UPDATE state SET generation = max(?, generation + 1)", (now_ms,))
            generation, horizon = writer.execute("SELECT generation, horizon FROM state").fetchone()
            expires_at = max(generation // 1000, horizon) + lifetime
            writer.execute(
                "INSERT INTO groups VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                " generation = excluded.generation, expires_at = max(expires_at, excluded.expires_at)",
                (group, generation, expires_at),
            )
            self._changed.append(Row(group, expires_at, generation))
            return int(generation)

    def purge(self, before: int, limit: int = PURGE_STEP) -> int:
        with self._writing() as writer:
            # In the same transaction: no row goes before the horizon tells that it may be gone.
            writer.execute("UPDATE state SET horizon = max(horizon, ?)", (before,))
            self._changed.append(_NOTHING)
            bound = writer.execute(_PURGE_BOUND, (before, limit)).fetchone() or (before, "")
            deleted = writer.execute(_PURGE_TOKENS, bound).rowcount
            deleted += writer.execute(_PURGE_GROUPS, (before, limit - deleted)).rowcount
            return deleted

    @contextmanager
    def together(self) -> Iterator[None]:
        self._check_process()
        if self._owner == threading.get_ident():
            raise StoreError("This thread makes changes together already: end that first.")
        with self._write_lock:
            self._owner = threading.get_ident()
            try:
                yield
                self._commit()
            finally:
                self._roll_back()

    @contextmanager
    def snapshot(self) -> Iterator["_Snapshot"]:
        with self._reading() as reader, self._snapshot(reader) as snapshot:
            yield snapshot

    def count(self) -> int:
        self.lookup("", 0, ())  # an open list, in this process
        # A connection of its own: it goes through the whole file, and look-ups must not wait for it.
        with self._translated(), closing(connect(self._path, self._timeout)) as connection:
            self._check_identity()
            (rows,) = connection.execute(
                "SELECT (SELECT count(*) FROM tokens) + (SELECT count(*) FROM groups)"
            ).fetchone()
            return int(rows)

    def ping(self) -> None:
        self.lookup("", 0, ())  # an open list, in this process
        # A connection of its own: the check reads the whole file, and look-ups must not wait for it.
        with self._translated(), closing(connect(self._path, self._timeout)) as connection:
            self._check_identity()
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise StoreError(f"The list {self._path} is damaged: restore it from a backup.")
        # A change in earnest: a full disk lets one begin, and a list of root's lets one read.
        with self._writing():
            self._changed.append(_NOTHING)
        self.lookup("", 0, ())

    def close(self) -> None:
        with self._read_lock, self._write_lock:
            self._trusted = 0, 0.0, self._mirror.copy.is_clear
            self._reader.close()
            self._writer.close()
            self._bell.close()
            self._newest.close()

    def _mirrored(self) -> Index | None:
        """The index, if it can be trusted now; it may need several calls to become so."""
        if self._mirror.is_resting:
            return None
        with self._reading() as reader:
            number = self._number[0]  # before the list is read: whoever rings from now on is heard
            until = monotonic() + TRUST
            with self._snapshot(reader) as snapshot:
                if not self._mirror.step(snapshot):
                    return None
            self._trusted = number, until, self._mirror.copy.is_clear
            return self._mirror.copy

    @contextmanager
    def _snapshot(self, reader: sqlite3.Connection) -> Iterator["_Snapshot"]:
        seen = self._newest.get()
        reader.execute("BEGIN")
        try:
            snapshot = _Snapshot.of(reader)
            self._check_history(reader, snapshot.point, seen)
            yield snapshot
        finally:
            reader.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._check_process()
        with self._read_lock, self._translated():
            self._check_identity()
            yield self._reader

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if self._owner != threading.get_ident():
            with self.together(), self._writing() as writer:
                yield writer
            return
        if self._failure:
            raise StoreError(f"A change before this one, made together with it, has failed: {self._failure}")
        try:
            with self._translated():
                self._begin()
                yield self._writer
        except BaseException as error:
            # Half of it may be made. What a bug says may hold anything.
            self._failure = str(error) if isinstance(error, StoreError) else type(error).__name__
            raise

    def _begin(self) -> None:
        if self._writer.in_transaction:
            return
        self._check_identity()
        self._writer.execute("BEGIN IMMEDIATE")
        point = self._newest_change()
        self._check_history(self._writer, point, self._newest.get())
        self._made = point.number

    def _commit(self) -> None:
        with self._translated():
            if not self._writer.in_transaction:
                return  # nothing was to be changed, or it could not even begin, as was said then
            if self._failure:
                raise StoreError(f"Of several changes none was made, since one has failed: {self._failure}")
            if not (point := self._log()):
                return
            self._writer.execute("COMMIT")
            # A file deleted during the commit took the change with it: that is no success.
            self._check_identity()
            self._newest.see(Moment(*point))
            self._bell.ring()

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        self._owner, self._failure = None, ""
        self._changed.clear()

    def _log(self) -> Point | None:
        known, mark = self._made, secrets.randbits(63)
        rows = [
            (known + number, mark, row.name, row.expires_at, row.generation)
            for number, row in enumerate(self._changed, 1)
        ]
        for start in range(0, len(rows), _LOT):
            lot = rows[start : start + _LOT]
            values = ", ".join(["(?, ?, ?, ?, ?)"] * len(lot))
            self._writer.execute(f"INSERT INTO log VALUES {values}", [value for row in lot for value in row])  # noqa: S608
        changes = known + len(rows)
        if not rows:
            return None
        self._writer.execute("UPDATE state SET changes = ?, mark = ?", (changes, mark))
        if known // _LOT != changes // _LOT:
            self._writer.execute("DELETE FROM log WHERE number <= ?", (changes - LOG_SIZE,))
        return Point(changes, mark)

    def _newest_change(self) -> Point:
        found = self._writer.execute("SELECT changes, mark FROM state").fetchone()
        if found is None:
            raise StoreError(f"The list {self._path} lost its state: restore it from a backup.")
        return Point(*map(int, found))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        # The last two: values in the file, or characters in its name, that are of no such kind.
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            raise StoreError(f"The list {self._path} cannot answer: {error}.") from error

    def _identify(self) -> tuple[tuple[int, int], ...]:
        found = map(os.stat, self._files)
        return tuple((status.st_dev, status.st_ino) for status in found)

    def _check_identity(self) -> None:
        if self._identify() != self._identity:
            raise StoreError(
                f"The list {self._path} was replaced while running: put the file back, or restart to"
                " accept the new one."
            )

    def _check_process(self) -> None:
        # Before any lock: another thread may have held it at the fork, and nobody is left to let go.
        if self._pid != os.getpid():
            raise StoreError("A list cannot be carried across fork(): close it before, open it after.")

    def _check_history(self, connection: sqlite3.Connection, point: Point, seen: Moment) -> None:
        known = None
        if point.number > seen.number:
            known = connection.execute("SELECT mark FROM log WHERE number = ?", (seen.number,)).fetchone()
        if not follows(point, seen, known and known[0]):
            self._newest.miss(seen)
            raise StoreError(
                f"The list {self._path} was overwritten with an older one, or exchanged for it: put the newer"
                " one back, or restart to accept this one."
            )
        self._newest.see(Moment(*point))


def _padded(groups: Sequence[str]) -> list[str | None]:
    return [*groups, *[None] * (MAX_GROUPS - len(groups))]


def _looked_up(connection: sqlite3.Connection, jti: str, exp: int, groups: Sequence[str]) -> Entry:
    return _entry(connection.execute(_LOOKUP, (*_padded(groups), exp, jti)).fetchone())


def _entry(row: tuple[Any, ...]) -> Entry:
    revoked, *numbers = row[:-2]
    return Entry(bool(revoked), *(int(number or 0) for number in numbers))


class _Snapshot(NamedTuple):
    """A base.Snapshot: what one transaction reads."""

    reader: sqlite3.Connection
    point: Point
    horizon: int
    last_generation: int

    @classmethod
    def of(cls, reader: sqlite3.Connection) -> "_Snapshot":
        """What this connection reads, which has begun a transaction."""
        found = reader.execute("SELECT changes, mark, horizon, generation FROM state").fetchone()
        changes, mark, horizon, generation = map(int, found)
        return cls(reader, Point(changes, mark), horizon, generation)

    def page(self, start: Any, limit: int) -> Page:
        """Tokens by expiry, then groups by name, from after [0, expires_at, jti] or [1, 0, name]."""
        kind, expires_at, name = start or (0, -1, "")
        found: list[Row] = []
        if kind == 0:
            found = [_row(*row) for row in self.reader.execute(_TOKENS_AFTER, (expires_at, name, limit))]
            if len(found) == limit:
                return Page(found, [0, found[-1].expires_at, found[-1].name])
            name = ""
        found += [_row(*row) for row in self.reader.execute(_GROUPS_AFTER, (name, limit - len(found)))]
        return Page(found, [1, 0, found[-1].name] if len(found) == limit else None)

    def log(self, after: Point, limit: int) -> Log | None:
        """By number."""
        if after == self.point:
            return Log([], self.point)
        lines = self.reader.execute(_LOG_AFTER, (after.number - 1, limit + 1)).fetchall()
        if not lines or lines[0][:2] != after:
            return None
        end = Point(*lines[-1][:2])
        if len(lines) <= limit and end != self.point:
            return None  # somebody else wrote to it
        return Log([_row(*line[2:]) for line in lines[1:] if line[3] is not None], end)


def _row(name: str, expires_at: int, generation: int, *entry: int | None) -> Row:
    revoked, uses, rotated_at = entry or (0, 0, 0)
    return Row(name, expires_at, generation, bool(revoked), uses or 0, rotated_at or 0)
