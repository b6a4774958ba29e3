"""One process's way to a list in PostgreSQL: its connections, and whether the list is still the one that it
was."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Any, Final, TypeVar

import psycopg

from ...errors import StoreError
from ..contract import Point
from ..forks import ForkGuard
from ..newest import Moment, Newest, follows
from .pool import Connection, Pool, reason_of
from .statements import check_version, check_whole, is_cockroach, prepare

T = TypeVar("T")
Found = tuple[Any, ...]

#: Seconds in which the tables are made, once.
_PATIENCE: Final = 15.0


class Link:
    """A pool of connections to a list. Arguments and errors as of PostgresStore."""

    def __init__(self, url: str, *, timeout: float, pool_size: int, newest: Newest) -> None:
        self.guard: Final = ForkGuard()
        self.newest: Final = newest
        self.timeout: Final = timeout
        self.pool: Final = Pool(url, size=pool_size, timeout=timeout)
        self.name: Final = self.pool.name
        self.closed: Final = threading.Event()
        self.can_notify = False

    def prepare(self, *, create: bool) -> None:
        """Make the tables if they are missing, or bring them up to this version."""
        with self.translated(), self.pool.connection(monotonic() + self.timeout) as connection:
            connection.deadline = monotonic() + max(self.timeout, _PATIENCE)
            prepare(connection, self.name, create=create)
            self.can_notify = not is_cockroach(connection)

    def on_connection(self, held: ExitStack, work: Callable[[Connection], T]) -> tuple[Connection, T]:
        """A connection, until `held` is closed, and what `work` read with it. `work` must change nothing."""
        deadline = monotonic() + self.timeout
        connection = held.enter_context(self.pool.connection(deadline))
        try:
            return connection, work(connection)
        except psycopg.OperationalError:
            if not connection.broken:
                raise
        # The server may have been restarted since the last call. That is no reason to fail for a call that
        # reads.
        held.close()
        connection = held.enter_context(self.pool.connection(deadline, fresh=True))
        return connection, work(connection)

    def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` reads, with a connection for that time only."""
        with self.translated(), ExitStack() as held:
            return self.on_connection(held, work)[1]

    def begin(self, connection: Connection, template: str, seen: Moment) -> Found | None:
        """Begin a transaction with several statements in one journey; return the row that the last one
        gives."""
        # A little less than a call may take, so that the server says why it ended the call.
        milliseconds = f"'{max(1, int(self.timeout * 800))}'"
        several = template.replace("{timeout}", milliseconds).replace("%(seen)s", str(seen.number))
        return last_of(connection, several).fetchone()

    def checked(self, row: Found | None, seen: Moment) -> Found:
        """What comes before _STATE in the row, if the list follows the moment `seen`.

        Raises:
            StoreError: it is of another version, cannot be written, lost rows, or is older.
        """
        *found, is_whole, version, is_read_only, number, mark, seen_mark = self.kept(row)
        check_version(version, self.name)
        if is_read_only != "off":
            raise StoreError(
                f"The list {self.name} can only be read, as on a standby: connect to the primary."
            )
        check_whole(self.name, is_whole=is_whole)
        if not follows(Point(number, mark), seen, seen_mark):
            self.newest.miss(seen)
            raise StoreError(
                f"The list {self.name} went back to an older state, in which revocations may be missing, as"
                " after a restore or a failover to a standby that lagged: restart to accept it."
            )
        self.newest.see(Moment(number, mark))
        return tuple(found)

    def kept(self, row: Found | None) -> Found:
        """The row.

        Raises:
            StoreError: there is none.
        """
        if row is None:
            raise StoreError(f"The list {self.name} lost its state: restore it from a backup.")
        return row

    def check_open(self) -> None:
        """Return only if the list is open, and was opened by this process.

        Raises:
            StoreError: it is not.
        """
        self.guard.check()
        if self.closed.is_set():
            raise StoreError(f"The list {self.name} was closed.")

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Within it, errors of the driver become StoreError, without their cause: its text may contain
        secrets."""
        try:
            yield
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise StoreError(
                f"The list {self.name} is gone ({reason_of(error)}): restore it from a backup."
            ) from None
        # The last two: characters in a name, and numbers, that PostgreSQL cannot represent.
        except (psycopg.Error, OSError, ValueError, TypeError) as error:
            raise StoreError(f"The list {self.name} cannot answer: {reason_of(error)}.") from None


def last_of(connection: Connection, several: str) -> psycopg.Cursor[Found]:
    """The result of the last of several statements."""
    cursor = connection.execute(several)
    while cursor.nextset():
        pass
    return cursor
