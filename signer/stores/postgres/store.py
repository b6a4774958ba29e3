"""The list in PostgreSQL, shared by every process of every machine.

Whoever changes it locks the one row of `state` first: changes are made one after another and numbered, each
commit with a random mark, and the log keeps numbers and marks. By them a process notices that the list went
back to an older state (a failover to a standby that lagged, a backup restored), where revocations that its
node was told of are undone, and refuses. Nothing is asked of a connection but single transactions, so that a
pooler may stand between.
"""

import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar

import psycopg

from ...errors import StoreError
from ...policy import ENGINE_TIMEOUT, LOG_SIZE, PURGE_STEP
from ..contract import Changes, Chunk, Entry, Point, Row, View
from ..copies.view import view_of
from ..forks import ForkGuard
from ..newest import NOTHING, Moment, Newest, follows
from . import statements
from .pool import Connection, Pool, reason_of
from .statements import check_version, check_whole, is_cockroach, prepare

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Lines of the log that are forgotten at once.
_LOT: Final = 256
#: Seconds to make the tables in, which is done once.
_PATIENCE: Final = 15.0
#: A name of no row.
_NOTHING: Final = b""
_BEFORE_ALL: Final = (0, -(1 << 63), "")


class PostgresStore:
    """A Store in the schema `signer` of the PostgreSQL database that `url` names.

    Args:
        url: `postgresql://…`, with libpq's options; beyond a machine of one's own, `sslmode=verify-full`.
        create: make the tables where there are none; False where missing ones mean a lost list.
        timeout: seconds a call may take, whatever becomes of the server.
        pool_size: connections of this process at the most, and one more that listens.
        newest: what was seen of the list, by this process where it is None. Closed with the store.
        staleness: keep a copy for validations that is fresher than that many seconds; None: keep none.

    Raises:
        ConfigurationError: it is no such URL.
        StoreError: there is no server, no list, one of another version, or one that cannot be written.
    """

    def __init__(
        self,
        url: str,
        *,
        create: bool = True,
        timeout: float = ENGINE_TIMEOUT,
        pool_size: int = 8,
        newest: Newest | None = None,
        staleness: float | None = None,
    ) -> None:
        self._guard = ForkGuard()
        self._newest = newest or Newest()
        self.timeout = timeout
        self._pool = Pool(url, size=pool_size, timeout=timeout)
        self._name = self._pool.name
        self._closed = threading.Event()
        self._write_lock = threading.Lock()
        self._listen_lock = threading.Lock()
        #: The thread whose changes are under way, and, from the first one on, on which connection.
        self._owner: int | None = None
        self._writer: Connection | None = None
        self._held = ExitStack()
        #: Why one of the changes under way failed; "" where none did.
        self._failure = ""
        self._made = 0
        self._changed: list[tuple[bytes, int, int]] = []
        self._listener: Connection | None = None
        with ExitStack() as opened:
            opened.callback(self._let_go)
            self._open(create=create)
            self._view = view_of(self, staleness, self._let_go)
            opened.pop_all()
        logger.info("Opened the list %s", self._name)

    def _open(self, *, create: bool) -> None:
        with self.translated(), self._pool.connection(monotonic() + self.timeout) as connection:
            connection.deadline = monotonic() + max(self.timeout, _PATIENCE)
            prepare(connection, self._name, create=create)
            self._can_notify = not is_cockroach(connection)
        self.lookup("", 0, ())

    @property
    def view(self) -> View:
        return self._view

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        def read(connection: Connection) -> Entry:
            seen = self._newest.get()
            row = connection.execute(statements.LOOKUP, values | {"seen": seen.number}).fetchone()
            revoked, *numbers = self._checked(row, seen)
            return Entry(bool(revoked), *(number or 0 for number in numbers))

        self._check_open()
        with self.translated():
            values = {"jti": jti.encode(), "exp": exp, "groups": [name.encode() for name in groups]}
        # Whoever makes changes together must see those before.
        if self._owner == threading.get_ident() and self._writer is not None:
            with self._writing() as writer:
                return read(writer)
        with self.translated(), ExitStack() as held:
            return self._on_connection(held, read)[1]

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> Entry:
        with self._writing() as writer:
            values = {"jti": jti.encode(), "exp": exp, "groups": [name.encode() for name in groups]}
            found = self._kept(writer.execute(statements.REVOKE, values).fetchone())
            is_made, *numbers, revoked = found
            if is_made:
                self._changed.append((jti.encode(), exp, 0))
            return Entry(bool(is_made or revoked), *(number or 0 for number in numbers))

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        with self._writing() as writer:
            row = writer.execute(statements.USE, {"exp": exp, "jti": jti.encode(), "limit": limit}).fetchone()
            if row is None:
                return None
            self._changed.append((jti.encode(), exp, 0))
            return int(row[0])

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        with self._writing() as writer:
            row = writer.execute(statements.ROW, (exp, jti.encode())).fetchone()
            revoked, uses, rotated_at, horizon = self._kept(row)
            if revoked or uses or exp < horizon:
                return None
            if not rotated_at:
                writer.execute(statements.ROTATE, (exp, jti.encode(), now))
                self._changed.append((jti.encode(), exp, 0))
            return int(rotated_at or now)

    def advance(self, group: str, now_ms: int, lifetime: int) -> int:
        with self._writing() as writer:
            values = {"name": group.encode(), "now": now_ms, "lifetime": lifetime}
            generation, expires_at = self._kept(writer.execute(statements.ADVANCE, values).fetchone())
            self._changed.append((group.encode(), expires_at, generation))
            return int(generation)

    def purge(self, before: int, limit: int = PURGE_STEP) -> int:
        if self.lookup("", 0, ()).horizon < before:
            with self._writing() as writer:
                writer.execute(statements.RAISE_HORIZON, (before,))
                self._changed.append((_NOTHING, 0, 0))
        # Not before that is committed, or in the same transaction: no row goes before the horizon tells.
        with self._deleting() as connection:
            bound = connection.execute(statements.PURGE_BOUND, (before, limit)).fetchone() or (before, b"")
            deleted = connection.execute(statements.PURGE_TOKENS, bound).rowcount
            rest = {"before": before, "limit": limit - deleted}
            return deleted + connection.execute(statements.PURGE_GROUPS, rest).rowcount

    @contextmanager
    def together(self) -> Iterator[None]:
        self._check_open()
        if self._owner == threading.get_ident():
            raise StoreError("This thread makes changes together already: end that first.")
        # One of this process's writers at a time, or those who wait would leave readers no connection.
        if not self._write_lock.acquire(timeout=self.timeout):
            raise StoreError(f"The changes before this one keep the list {self._name} too long: try again.")
        self._owner = threading.get_ident()
        try:
            yield
            self._commit()
        finally:
            self._end()

    @contextmanager
    def snapshot(self) -> "Iterator[_Snapshot]":
        def begin(connection: Connection) -> tuple[int, int, Point]:
            seen = self._newest.get()
            row = self._begin(connection, statements.BEGIN_SNAPSHOT, seen)
            horizon, last_generation = self._checked(row, seen)
            return horizon, last_generation, Point(*self._kept(row)[5:7])

        self._check_open()
        with ExitStack() as held:
            with self.translated():
                connection, state = self._on_connection(held, begin)
            yield _Snapshot(self, self._name, connection, *state)

    def count(self) -> int:
        def read(connection: Connection) -> int:
            return int(self._kept(connection.execute(statements.COUNT).fetchone())[0])

        self.lookup("", 0, ())  # the list that it was
        with self.translated(), ExitStack() as held:
            return self._on_connection(held, read)[1]

    def ping(self) -> None:
        # A change in earnest: a full disk, or a role without the right, lets one read.
        with self._writing():
            self._changed.append((_NOTHING, 0, 0))

    def close(self) -> None:
        self._view.close()

    def _let_go(self) -> None:
        if self._guard.is_child:
            return  # to end a connection in a child would end the parent's
        self._closed.set()
        self._pool.close()
        if listener := self._listener:
            listener.deadline = 0.0  # who waits on it lets go
        with self._listen_lock:
            self._stop_listening()
        self._newest.close()

    def wait_for_change(self, seconds: float) -> None:
        """Return when somebody has changed the list since the last call, or after `seconds`; at once where
        nobody knows, at the first call and after the connection was lost. It is a hint: behind a pooler, or
        where the server cannot be reached, nothing is heard.

        Raises:
            StoreError: the list was closed.
        """
        self._check_open()
        until = monotonic() + seconds
        if self._listen_lock.acquire(timeout=seconds):
            try:
                self._listen(until)
            except (psycopg.Error, OSError, StoreError):
                self._stop_listening()
                self._closed.wait(max(0.0, until - monotonic()))
            finally:
                self._listen_lock.release()
        self._check_open()

    def _listen(self, until: float) -> None:
        if not self._can_notify:
            raise StoreError("This server tells nothing.")
        if self._listener is None:
            self._listener = self._pool.connect(monotonic() + self.timeout)
            self._listener.deadline = monotonic() + self.timeout
            self._listener.execute("LISTEN signer")
            return
        self._listener.deadline = until + self.timeout
        self._check_open()  # after the deadline was set, which a close() moves forward
        for _ in self._listener.notifies(timeout=max(0.0, until - monotonic()), stop_after=1):
            pass

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def _on_connection(self, held: ExitStack, work: Callable[[Connection], T]) -> tuple[Connection, T]:
        """A connection, until `held` is closed, and what `work`, that changes nothing, read with it."""
        deadline = monotonic() + self.timeout
        connection = held.enter_context(self._pool.connection(deadline))
        try:
            return connection, work(connection)
        except psycopg.OperationalError:
            if not connection.broken:
                raise
        # The server was restarted since, say: this is no reason to fail, for what reads.
        held.close()
        connection = held.enter_context(self._pool.connection(deadline, fresh=True))
        return connection, work(connection)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        self._check_open()
        if self._owner != threading.get_ident():
            with self.together(), self._writing() as writer:
                yield writer
            return
        if self._failure:
            raise StoreError(f"A change before this one, made together with it, has failed: {self._failure}")
        try:
            with self.translated():
                yield self._begun()
        except BaseException as error:
            # Half of it may be made. What a bug says may hold anything.
            self._failure = str(error) if isinstance(error, StoreError) else type(error).__name__
            raise

    def _begun(self) -> Connection:
        def begin(connection: Connection) -> int:
            seen = self._newest.get()
            row = self._begin(connection, statements.BEGIN, seen)
            self._checked(row, seen)
            return int(self._kept(row)[3])

        if self._writer is None:
            self._writer, self._made = self._on_connection(self._held, begin)
        self._writer.deadline = monotonic() + self.timeout
        return self._writer

    @contextmanager
    def _deleting(self) -> Iterator[Connection]:
        if self._owner == threading.get_ident():
            with self._writing() as writer:
                yield writer
                self._changed.append((_NOTHING, 0, 0))  # what is not noted is not committed
            return
        with self.translated(), ExitStack() as held:
            connection, _ = self._on_connection(
                held, lambda found: self._begin(found, statements.BEGIN_PURGE, NOTHING)
            )
            yield connection
            connection.execute("COMMIT")

    def _commit(self) -> None:
        if self._writer is None:
            return  # nothing was to be changed, or it could not even begin, as was said then
        if self._failure:
            raise StoreError(f"Of several changes none was made, since one has failed: {self._failure}")
        if not self._changed:
            return
        with self.translated():
            self._writer.deadline = monotonic() + self.timeout
            point = self._log(self._writer)
            self._writer.warning = ""
            # What fails within a transaction makes a ROLLBACK of this, and no error.
            if _last(self._writer, statements.COMMIT).statusmessage != "COMMIT":
                raise StoreError(f"The list {self._name} did not commit: nothing was made.")
            self._newest.see(Moment(*point))
            # An administrator may end the wait for a synchronous standby; that is a warning, and no error.
            if self._writer.warning:
                raise StoreError(f"The list {self._name} may not be durable: {self._writer.warning}.")

    def _log(self, writer: Connection) -> Point:
        names, exps, generations = zip(*self._changed, strict=True)
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
        writer.execute(statements.FINISH + statements.NOTIFY * self._can_notify, values)
        return Point(changes, mark)

    def _end(self) -> None:
        try:
            self._held.close()
        finally:
            self._owner, self._writer, self._failure = None, None, ""
            self._changed.clear()
            self._write_lock.release()

    def _begin(self, connection: Connection, template: str, seen: Moment) -> tuple[Any, ...] | None:
        # A little less than a call may take, so that the server says why it ended it.
        milliseconds = f"'{max(1, int(self.timeout * 800))}'"
        several = template.replace("{timeout}", milliseconds).replace("%(seen)s", str(seen.number))
        return _last(connection, several).fetchone()

    def _checked(self, row: tuple[Any, ...] | None, seen: Moment) -> tuple[Any, ...]:
        """What stands before _STATE in the row, if the list is the one that was seen."""
        *found, is_whole, version, is_read_only, number, mark, seen_mark = self._kept(row)
        check_version(version, self._name)
        if is_read_only != "off":
            raise StoreError(
                f"The list {self._name} can only be read, as on a standby: connect to the primary."
            )
        check_whole(self._name, is_whole=is_whole)
        if not follows(Point(number, mark), seen, seen_mark):
            self._newest.miss(seen)
            raise StoreError(
                f"The list {self._name} went back to an older state, in which revocations may be missing, as"
                " after a restore or a failover to a standby that lagged: restart to accept it."
            )
        self._newest.see(Moment(number, mark))
        return tuple(found)

    def _kept(self, row: tuple[Any, ...] | None) -> tuple[Any, ...]:
        if row is None:
            raise StoreError(f"The list {self._name} lost its state: restore it from a backup.")
        return row

    def _check_open(self) -> None:
        self._guard.check()
        if self._closed.is_set():
            raise StoreError(f"The list {self._name} was closed.")

    @contextmanager
    def translated(self) -> Iterator[None]:
        # Without the cause: its text may hold more than may be told.
        try:
            yield
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise StoreError(
                f"The list {self._name} is gone ({reason_of(error)}): restore it from a backup."
            ) from None
        # The last two: characters in a name, and numbers, that are of no such kind.
        except (psycopg.Error, OSError, ValueError, TypeError) as error:
            raise StoreError(f"The list {self._name} cannot answer: {reason_of(error)}.") from None


def _last(connection: Connection, several: str) -> psycopg.Cursor[tuple[Any, ...]]:
    """What the last of several statements gives."""
    cursor = connection.execute(several)
    while cursor.nextset():
        pass
    return cursor


class _Snapshot(NamedTuple):
    """A base.Snapshot: what one transaction reads."""

    store: PostgresStore
    name: str
    connection: Connection
    horizon: int
    last_generation: int
    point: Point

    def chunk(self, start: Any, limit: int) -> Chunk:
        """Tokens by expiry, then groups by name: [0, expires_at, jti] and [1, 0, name]."""
        self._check_whole()
        kind, expires_at, name = start or _BEFORE_ALL
        rows: list[Row] = []
        if kind == 0:
            rows = self._rows(statements.TOKENS_AFTER, (expires_at, name.encode(), limit))
            if len(rows) == limit:
                return Chunk(rows, [0, rows[-1].expires_at, rows[-1].name])
            name = ""
        groups = self._rows(statements.GROUPS_AFTER, (name.encode(), limit - len(rows)))
        is_last = len(groups) < limit - len(rows)
        return Chunk([*rows, *groups], None if is_last else [1, 0, groups[-1].name])

    def changes(self, after: Point, limit: int) -> Changes | None:
        """By number."""
        self._check_whole()
        if self._fetched(statements.LOG_MARK, (after.number,)) != [(after.mark,)]:
            return None
        lines = self._fetched(statements.LOG_AFTER, (after.number, limit))
        with self.store.translated():  # what was garbled on its way
            rows = dict.fromkeys(_row(line[2:]) for line in lines if line[3] is not None)
            return Changes(list(rows), Point(*lines[-1][:2]) if lines else after)

    def _check_whole(self) -> None:
        check_whole(self.name, is_whole=self._fetched(statements.IS_WHOLE, ()) == [(True,)])

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[Row]:
        with self.store.translated():
            return [_row(found) for found in self._fetched(statement, values)]

    def _fetched(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self.store.translated():
            self.connection.deadline = monotonic() + self.store.timeout
            return self.connection.execute(statement, values).fetchall()


def _row(found: tuple[Any, ...]) -> Row:
    name, *rest = found
    return Row(name.decode(), *rest)
