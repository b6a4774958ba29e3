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
A process may die between its commit and its ring. So whoever reads the list, and finds more changes there
than the bell was rung for, rings before it answers: what one process calls used, no other calls good.
"""

import ctypes
import logging
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from os import pread
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar
from weakref import WeakSet

from ...errors import StoreError
from ...policy import FILE_TIMEOUT, LOG_SIZE, MAX_GROUPS, MAX_ROWS, PURGE_STEP, TRUST
from ...tokens.claims import Claims
from ..asking import Asker
from ..contract import Changes, Chunk, Entry, Point, Row
from ..copies.index import Index
from ..copies.loader import Loader
from ..direct import DirectView
from ..newest import Moment, Newest, follows
from .bell import SIZE, Bell, count_in
from .bell import make as make_bell
from .file import SUFFIXES, connect
from .file import create as create_list

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_of_this_process: Final = WeakSet["SQLiteStore"]()
_IsClear = Callable[[Claims, int], bool]

#: Seconds that a change waits for another process's where one before it has waited in vain.
IMPATIENCE: Final = 0.25
#: Rows that the index takes in at once, which is a third of a millisecond, and seconds until it goes on.
_STEP: Final = 200
_BREATH: Final = 0.001
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
        timeout: seconds a change waits for those of other processes and threads; where one has waited in
            vain, the next ones wait for IMPATIENCE, until one is made.
        patience: seconds a look-up waits for its answer, and is given up then; see asking.Asker. Where it is
            None, it is asked in the caller's thread, and waits for the disk.
        only_reads: open a list that cannot be written now, too.
        newest: what was seen of the list, by this process where it is None. Closed with the store.

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
        self._timeout = self._wait = timeout
        self._newest = newest or Newest()
        self._asker = None if patience is None else Asker(patience)
        self._read_lock = threading.Lock()
        self._copy_lock = threading.Lock()
        self._write_lock = threading.Lock()
        #: The thread whose changes are under way.
        self._owner: int | None = None
        self._changed: list[Row] = []
        #: Why one of the changes under way failed; "" where none did.
        self._failure = ""
        #: How many changes the list had when this process began the last one.
        self._made = 0
        #: Indexes that are not used any more, and may be large.
        self._given_up: list[Index] = []
        self._loader = Loader(Index, self._given_up.append)
        #: The thread that fills the index of a long list.
        self._loading: threading.Thread | None = None
        #: An index that tells all there was when the bell had that content, and until when (time.monotonic)
        #: it may be asked. One tuple, since threads exchange it while others look.
        self._trusted: tuple[bytes, float, _IsClear] = _NONE_TRUSTED
        self._path = Path(path)
        with self._translated(), ExitStack() as opened:
            self._open(opened, create=create)
            self._check() if only_reads else self.ping()
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
        #: For look-ups, for those who copy the list, and for changes.
        self._reader, self._copier, self._writer = (
            opened.enter_context(closing(connect(self._path, self._timeout))) for _ in range(3)
        )
        _of_this_process.add(self)
        for reader in (self._reader, self._copier):
            reader.execute("PRAGMA query_only = ON")
        # In WAL a reader waits for nobody but a lock-out, and an event loop must not wait for that.
        self._reader.execute("PRAGMA busy_timeout = 0")
        if make_bell(Path(self._files[-1])) and not is_new:
            sleep(TRUST)  # others may still listen to one that was deleted
        self._bell = opened.enter_context(closing(Bell(Path(self._files[-1]))))
        self._bell_file = self._bell.descriptor
        self._identity = self._identify()

    @property
    def view(self) -> DirectView:
        return DirectView(self.lookup, self.is_clear, is_local=True)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        # Whoever makes changes together must see those before.
        if self._owner == threading.get_ident():
            with self._translated():
                self._check_identity()
                return self._looked_up(self._writer, jti, exp, groups)
        return self._asked(self._known, jti, exp, groups)

    def is_clear(self, claims: Claims, end: int) -> bool:
        # Taken at once: another thread may exchange it at any moment.
        content, until, is_clear = self._trusted
        # A bell that cannot be read is not trusted: the list is asked, and says what is wrong.
        try:
            if monotonic() < until and pread(self._bell_file, SIZE, 0) == content:
                return is_clear(claims, end)
        except OSError:
            pass
        if self._loading is not None or self._loader.is_resting:
            return False
        ids = self._asked(self._indexed)
        return ids is not None and ids.is_clear(claims, end)

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> Entry:
        with self._writing() as writer:
            entry = self._looked_up(writer, jti, exp, groups)
            if exp < entry.horizon:
                return entry
            writer.execute(_INSERT + "revoked = 1", (exp, jti, 1, 0, 0))
            self._changed.append(Row(jti, exp))
            return entry._replace(revoked=True)

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        with self._writing() as writer:
            entry = self._looked_up(writer, jti, exp, ())
            if entry.revoked or entry.rotated_at or entry.uses >= limit or exp < entry.horizon:
                return None
            writer.execute(_INSERT + "uses = uses + 1", (exp, jti, 0, 1, 0))
            self._changed.append(Row(jti, exp))
            return entry.uses + 1

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        with self._writing() as writer:
            entry = self._looked_up(writer, jti, exp, ())
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
        self._acquire(self._write_lock, self._wait)
        try:
            self._owner = threading.get_ident()
            yield
            self._commit()
        finally:
            self._roll_back()
            self._write_lock.release()

    @contextmanager
    def snapshot(self) -> Iterator["_Snapshot"]:
        self._check_process()
        self._acquire(self._copy_lock, self._timeout)
        try:
            with self._translated():
                self._check_identity()
                with self._snapshot(self._copier) as snapshot:
                    yield snapshot
        finally:
            self._copy_lock.release()

    def count(self) -> int:
        self._known("", 0, ())  # an open list, in this process
        # A connection of its own: it goes through the whole file, and look-ups must not wait for it.
        with self._translated(), closing(connect(self._path, self._timeout)) as connection:
            self._check_identity()
            (rows,) = connection.execute(
                "SELECT (SELECT count(*) FROM tokens) + (SELECT count(*) FROM groups)"
            ).fetchone()
            return int(rows)

    def ping(self) -> None:
        self._check()
        # A change in earnest: a full disk lets one begin, and a list of root's lets one read.
        with self._writing():
            self._changed.append(_NOTHING)
        self._known("", 0, ())

    def _check(self) -> None:
        self._known("", 0, ())  # an open list, in this process
        # A connection of its own: the check reads the whole file, and look-ups must not wait for it.
        with self._translated(), closing(connect(self._path, self._timeout)) as connection:
            self._check_identity()
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise StoreError(f"The list {self._path} is damaged: restore it from a backup.")

    def close(self) -> None:
        if self._pid != os.getpid():
            return
        self._trusted = _NONE_TRUSTED
        if self._asker is not None:
            self._asker.close()
            self._asker = None
        for connection, lock in (
            (self._reader, self._read_lock),
            (self._copier, self._copy_lock),
            (self._writer, self._write_lock),
        ):
            # One that a call hangs in stays open, until the process ends.
            if lock.acquire(timeout=self._timeout):
                connection.close()
                lock.release()
        self._bell.close()
        self._newest.close()

    def leave_behind(self) -> None:
        """Never close the connections, also when the interpreter ends: in the child of a fork, that would
        write back what the parent had read, and remove the -wal of those that wrote since
        (sqlite.org/howtocorrupt.html, section 2.6)."""
        for connection in (self._reader, self._copier, self._writer):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def _asked(self, ask: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._check_process()
        asker = self._asker
        if asker is None or self._owner == threading.get_ident():  # a thread for changes may wait
            return ask(*args, **kwargs)
        return asker.ask(partial(ask, *args, **kwargs))

    def _known(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        with self._reading() as reader:
            return self._looked_up(reader, jti, exp, groups)

    def _looked_up(self, connection: sqlite3.Connection, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        seen = self._newest.get()
        row = connection.execute(_LOOKUP, (*_padded(groups), exp, jti)).fetchone()
        self._heed(connection, Point(*map(int, row[-2:])), seen)
        return _entry(row)

    def _indexed(self) -> Index | None:
        """The index, if it can be trusted now; it may need several calls to become so."""
        with self._reading() as reader:
            if self._loading is not None:
                return None
            content = self._bell.read()  # before the list is read: whoever rings from now on is heard
            until = monotonic() + TRUST
            with self._snapshot(reader) as snapshot:
                is_whole = self._loader.step(snapshot, _STEP)
                changes = snapshot.point.number
            # A later count than the list's was written by nobody who changed this list. If it stayed, a ring
            # to come could look the same, and go unnoticed.
            if count_in(content) > changes:
                self._bell.ring(changes)
            if is_whole and count_in(content) == changes:
                self._trusted = content, until, self._loader.copy.is_clear
                return self._loader.copy
            self._trusted = _NONE_TRUSTED  # it may hold the last of an index that was given up
            if self._loader.is_loading:
                self._loading = threading.Thread(target=self._load, name="signer-index", daemon=True)
                self._loading.start()
            return None

    def _load(self) -> None:
        try:
            with self.snapshot() as snapshot:
                is_too_long = snapshot.is_longer_than(MAX_ROWS)
            if is_too_long:
                self._loader.rest()
            while self._loader.is_loading and not self._loader.is_resting:
                with self.snapshot() as snapshot:
                    self._loader.step(snapshot, _STEP)
                sleep(_BREATH)
        except StoreError as error:
            logger.info("The index of the list is not loaded: %s", error)
        finally:
            self._loading = None
        self._let_go()

    def _let_go(self) -> None:
        # A million strings that go at once would hold up all threads.
        while self._given_up:
            parts = [*self._given_up.pop().parts]
            freed = 0
            while parts:
                freed += len(parts.pop())
                if freed > _STEP:
                    freed = 0
                    sleep(_BREATH)

    @contextmanager
    def _snapshot(self, reader: sqlite3.Connection) -> Iterator["_Snapshot"]:
        seen = self._newest.get()
        reader.execute("BEGIN")
        try:
            snapshot = _Snapshot.of(reader)
            self._heed(reader, snapshot.point, seen)
            yield snapshot
        finally:
            reader.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self._check_process()
        self._acquire(self._read_lock, self._timeout)
        try:
            with self._translated():
                self._check_identity()
                yield self._reader
        finally:
            self._read_lock.release()

    def _acquire(self, lock: threading.Lock, seconds: float) -> None:
        if not lock.acquire(timeout=seconds):
            raise StoreError(f"The list {self._path} cannot answer: an earlier call has not ended.")

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
        self._take_turn()
        point = self._newest_change()
        self._check_history(self._writer, point, self._newest.get())
        # Nobody else can make one now: any other count is of another list, or of a process that died.
        if self._bell.rung_for() != point.number:
            self._bell.ring(point.number)
        self._made = point.number

    def _take_turn(self) -> None:
        latest = monotonic() + self._wait + IMPATIENCE
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.Error:
            self._set_wait(min(self._timeout, IMPATIENCE))
            raise
        # Some locks SQLite waits for as long as it likes, and by then nobody waits for the change.
        if monotonic() > latest:
            raise StoreError(f"The list {self._path} was locked for longer than a change waits.")
        self._set_wait(self._timeout)

    def _set_wait(self, seconds: float) -> None:
        if seconds != self._wait:
            self._wait = seconds
            self._writer.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    def _commit(self) -> None:
        with self._translated():
            if not self._writer.in_transaction:
                return  # nothing was to be changed, or it could not even begin, as was said then
            if self._failure:
                raise StoreError(f"Of several changes none was made, since one has failed: {self._failure}")
            if not (point := self._log()):
                return
            self._writer.execute("COMMIT")
            # A process that has read the list since the commit may have rung for it already. A later count
            # than the list's was written by nobody who changed this list, and does not count as a ring.
            rung = self._bell.rung_for()
            if rung < point.number or rung > self._newest_change().number:
                self._bell.ring(point.number)
            # A file deleted during the commit took the change with it: that is no success.
            self._check_identity()
            self._newest.see(Moment(*point))

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

    def _heed(self, connection: sqlite3.Connection, point: Point, seen: Moment) -> None:
        """Before anybody is told what a list at `point` says."""
        self._check_history(connection, point, seen)
        # Who made the newest change may have died before it rang: first, everybody is to hear of it.
        if self._bell.rung_for() < point.number:
            self._bell.ring(point.number)

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


def _never(claims: Claims, end: int) -> bool:
    return False


_NONE_TRUSTED: Final[tuple[bytes, float, _IsClear]] = (b"", 0.0, _never)


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

    def chunk(self, start: Any, limit: int) -> Chunk:
        """Tokens by expiry, then groups by name, from after [0, expires_at, jti] or [1, 0, name]."""
        kind, expires_at, name = start or (0, -1, "")
        found: list[Row] = []
        if kind == 0:
            found = [_row(*row) for row in self.reader.execute(_TOKENS_AFTER, (expires_at, name, limit))]
            if len(found) == limit:
                return Chunk(found, [0, found[-1].expires_at, found[-1].name])
            name = ""
        found += [_row(*row) for row in self.reader.execute(_GROUPS_AFTER, (name, limit - len(found)))]
        return Chunk(found, [1, 0, found[-1].name] if len(found) == limit else None)

    def is_longer_than(self, limit: int) -> bool:
        """Whether there are more rows and groups than that. It counts no further, and holds up no thread."""
        every = "SELECT 1 FROM tokens UNION ALL SELECT 1 FROM groups LIMIT ?"
        (count,) = self.reader.execute(f"SELECT count(*) FROM ({every})", (limit + 1,)).fetchone()  # noqa: S608
        return bool(count > limit)

    def changes(self, after: Point, limit: int) -> Changes | None:
        """By number."""
        if after == self.point:
            return Changes([], self.point)
        lines = self.reader.execute(_LOG_AFTER, (after.number - 1, limit + 1)).fetchall()
        if not lines or lines[0][:2] != after:
            return None
        end = Point(*lines[-1][:2])
        if len(lines) <= limit and end != self.point:
            return None  # somebody else wrote to it
        return Changes([_row(*line[2:]) for line in lines[1:] if line[3] is not None], end)


def _row(name: str, expires_at: int, generation: int, *entry: int | None) -> Row:
    revoked, uses, rotated_at = entry or (0, 0, 0)
    return Row(name, expires_at, generation, bool(revoked), uses or 0, rotated_at or 0)


def _leave_behind() -> None:
    for store in list(_of_this_process):
        store.leave_behind()


os.register_at_fork(after_in_child=_leave_behind)
