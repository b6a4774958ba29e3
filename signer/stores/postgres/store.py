"""The list in PostgreSQL, shared by every process of every machine.

A process that changes it locks the one row of `state` first. So changes are made one after another; they are
numbered, each commit has a random mark, and the log keeps numbers and marks. By them a process notices that
the list went back to an older state (by a failover to a standby that lagged, or a restored backup), in which
revocations that its node has seen are undone, and refuses. A connection is used for single transactions only,
so that a pooler may be in between.

The parts: pool.py (connections), link.py (checks), writer.py (changes), listening.py, snapshot.py,
statements.py.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from ...policy import ENGINE_TIMEOUT, PURGE_STEP
from ..contract import Entry, Point, View
from ..copies.view import view_of
from ..newest import Newest
from . import statements
from .link import Link
from .listening import Listener
from .pool import Connection
from .snapshot import PostgresSnapshot
from .writer import NO_ROW, Writer

logger = logging.getLogger(__name__)


class PostgresStore:
    """A Store in the schema `signer` of the PostgreSQL database that `url` names.

    Args:
        url: `postgresql://…`, with libpq's options. To another machine, use `sslmode=verify-full`.
        create: make the tables if there are none; False if missing tables mean a lost list.
        timeout: seconds that a call may take, whatever happens to the server.
        pool_size: the most connections of this process, besides one that listens.
        newest: the newest moment of the list that was seen; None: by this process. Closed with the store.
        staleness: keep a copy for validations that is fresher than that many seconds; None: keep none.

    Raises:
        ConfigurationError: the URL has another form.
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
        self._link = Link(url, timeout=timeout, pool_size=pool_size, newest=newest or Newest())
        self._writer = Writer(self._link)
        self._listener = Listener(self._link)
        with ExitStack() as opened:
            opened.callback(self._let_go)
            self._link.prepare(create=create)
            self.lookup("", 0, ())
            self._view = view_of(self, staleness, self._let_go)
            opened.pop_all()
        logger.info("Opened the list %s", self._link.name)

    @property
    def view(self) -> View:
        return self._view

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        def read(connection: Connection) -> Entry:
            seen = self._link.newest.get()
            row = connection.execute(statements.LOOKUP, values | {"seen": seen.number}).fetchone()
            revoked, *numbers = self._link.checked(row, seen)
            return Entry(bool(revoked), *(number or 0 for number in numbers))

        self._link.check_open()
        with self._link.translated():
            values = _values(jti, exp, groups)
        # A thread that makes changes together must see those that it has made already.
        if self._writer.has_begun:
            with self._writer.writing() as writer:
                return read(writer)
        return self._link.read(read)

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> Entry:
        with self._writer.writing() as writer:
            found = self._link.kept(writer.execute(statements.REVOKE, _values(jti, exp, groups)).fetchone())
            is_made, *numbers, revoked = found
            if is_made:
                self._writer.changed.append((jti.encode(), exp, 0))
            return Entry(bool(is_made or revoked), *(number or 0 for number in numbers))

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        with self._writer.writing() as writer:
            row = writer.execute(statements.USE, {"exp": exp, "jti": jti.encode(), "limit": limit}).fetchone()
            if row is None:
                return None
            self._writer.changed.append((jti.encode(), exp, 0))
            return int(row[0])

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        with self._writer.writing() as writer:
            row = writer.execute(statements.ROW, (exp, jti.encode())).fetchone()
            revoked, uses, rotated_at, horizon = self._link.kept(row)
            if revoked or uses or exp < horizon:
                return None
            if not rotated_at:
                writer.execute(statements.ROTATE, (exp, jti.encode(), now))
                self._writer.changed.append((jti.encode(), exp, 0))
            return int(rotated_at or now)

    def advance(self, group: str, now_ms: int, lifetime: int) -> int:
        with self._writer.writing() as writer:
            values = {"name": group.encode(), "now": now_ms, "lifetime": lifetime}
            generation, expires_at = self._link.kept(writer.execute(statements.ADVANCE, values).fetchone())
            self._writer.changed.append((group.encode(), expires_at, generation))
            return int(generation)

    def purge(self, before: int, limit: int = PURGE_STEP) -> int:
        if self.lookup("", 0, ()).horizon < before:
            with self._writer.writing() as writer:
                writer.execute(statements.RAISE_HORIZON, (before,))
                self._writer.changed.append(NO_ROW)
        # After that is committed, or in the same transaction: no row may go before the horizon says so.
        with self._writer.deleting() as connection:
            bound = connection.execute(statements.PURGE_BOUND, (before, limit)).fetchone() or (before, b"")
            deleted = connection.execute(statements.PURGE_TOKENS, bound).rowcount
            rest = {"before": before, "limit": limit - deleted}
            return deleted + connection.execute(statements.PURGE_GROUPS, rest).rowcount

    def together(self) -> AbstractContextManager[None]:
        return self._writer.together()

    @contextmanager
    def snapshot(self) -> Iterator[PostgresSnapshot]:
        def begin(connection: Connection) -> tuple[int, int, Point]:
            seen = self._link.newest.get()
            row = self._link.begin(connection, statements.BEGIN_SNAPSHOT, seen)
            horizon, last_generation = self._link.checked(row, seen)
            return horizon, last_generation, Point(*self._link.kept(row)[5:7])

        self._link.check_open()
        with ExitStack() as held:
            with self._link.translated():
                connection, state = self._link.on_connection(held, begin)
            yield PostgresSnapshot(self._link, connection, *state)

    def count(self) -> int:
        def read(connection: Connection) -> int:
            return int(self._link.kept(connection.execute(statements.COUNT).fetchone())[0])

        self.lookup("", 0, ())  # raises if it is not the list that it was
        return self._link.read(read)

    def ping(self) -> None:
        # A real change: on a full disk, or with a role that may not write, reading works.
        with self._writer.writing():
            self._writer.changed.append(NO_ROW)

    def wait_for_change(self, seconds: float) -> None:
        """See Listener."""
        self._listener.wait_for_change(seconds)

    def close(self) -> None:
        self._view.close()

    def _let_go(self) -> None:
        if self._link.guard.is_child:
            return  # to end a connection in a child would end the parent's
        self._link.closed.set()
        self._link.pool.close()
        self._listener.close()
        self._link.newest.close()


def _values(jti: str, exp: int, groups: Sequence[str]) -> dict[str, object]:
    return {"jti": jti.encode(), "exp": exp, "groups": [name.encode() for name in groups]}
