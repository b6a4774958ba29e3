"""Connections to PostgreSQL on which no caller waits for long.

Every wait ends in time, whatever happens to the server, even if it accepts connections and never answers
(because a machine froze, or a network drops packets). It is not psycopg's pool: this one reports at once that
a server is down, and why, while that one lets each caller wait.
"""

import math
import random
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from ...errors import ConfigurationError, StoreError

#: How many times the pool's size of calls may wait for a connection. Further calls are refused at once.
_MAX_WAITING: Final = 8
#: Seconds without a new attempt after connecting failed: doubled each time, up to the longest.
_FIRST_REST: Final = 0.05
_LONGEST_REST: Final = 1.0
_HOST: Final = re.compile(r"[\w.:%/-]*(,[\w.:%/-]*)*", re.ASCII)
_PORT: Final = re.compile(r"[0-9]*(,[0-9]*)*", re.ASCII)
_DATABASE: Final = re.compile(r"[^@/:?#]*")
_IN_TRANSACTION: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose every wait ends with TimeoutError at `deadline`, by time.monotonic."""

    deadline: float = math.inf
    #: The server's latest warning.
    warning = ""

    def heed(self, notice: psycopg.errors.Diagnostic) -> None:
        """Remember a warning."""
        if notice.severity_nonlocalized == "WARNING":
            self.warning = notice.message_primary or "a warning"

    def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        """See psycopg, which resumes the generator at least every tenth of a second."""
        return super().wait(self._in_time(gen), *args, **kwargs)

    def _in_time(self, gen: PQGen[RV]) -> PQGen[RV]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if monotonic() > self.deadline:
                    raise TimeoutError("no answer in time")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: RV = end.value
            return result

    def abandon(self, timeout: float) -> None:
        """Close it, and cancel what the server still does for it, if the server answers."""
        if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            # A server that hangs does not accept the cancellation either, so no caller waits for it.
            threading.Thread(target=self._cancel, args=(timeout,), daemon=True).start()
        else:
            self.close()

    def _cancel(self, timeout: float) -> None:
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=timeout)
        self.close()


class Pool:
    """Up to `size` connections, made when they are needed.

    Args:
        url: `postgresql://…`. Its password is in no message, log or repr.
        timeout: seconds until a call gives up waiting for a connection.

    Raises:
        ConfigurationError: it has another form.
    """

    def __init__(self, url: str, *, size: int, timeout: float) -> None:
        self._parameters, self.name = _parse(url, timeout)
        self._timeout = timeout
        self._slots = threading.BoundedSemaphore(size)
        self._queue = threading.BoundedSemaphore(size + _MAX_WAITING * size)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._is_closed = False
        self._rests_until, self._rest, self._reason = 0.0, _FIRST_REST, ""

    @contextmanager
    def connection(self, deadline: float, *, fresh: bool = False) -> Iterator[Connection]:
        """A connection for the time of the context. Its waits end at `deadline`. A transaction that was begun
        and not committed is rolled back at the end. With `fresh`, the connection is new.

        Raises:
            StoreError: there is none in time, or the pool is closed. psycopg.Error: there is no server.
        """
        with self._slot(deadline):
            connection = self._take(fresh=fresh)
            if connection is None:
                connection = self.connect(deadline)
                # Behind a pooler, notifications for other clients may arrive here, and psycopg would keep
                # them all.
                connection.add_notify_handler(lambda _: None)
            connection.deadline = deadline
            try:
                yield connection
            finally:
                self._put_back(connection)

    def connect(self, deadline: float) -> Connection:
        """A new connection, which belongs to the caller. Raises as `connection`."""
        if monotonic() < self._rests_until:
            raise StoreError(f"The list {self.name} cannot be reached: {self._reason}.")
        try:
            connection = self._connected(deadline)
        except (psycopg.Error, TimeoutError) as error:
            self._reason = reason_of(error)
            # A random pause, so that not all processes connect at once to a server that just came up.
            self._rests_until = monotonic() + self._rest * random.uniform(0.5, 1.0)  # noqa: S311
            self._rest = min(self._rest * 2, _LONGEST_REST)
            raise
        self._rest = _FIRST_REST
        return connection

    def close(self) -> None:
        """Close all idle connections now, and the others when they are put back."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _slot(self, deadline: float) -> Iterator[None]:
        if not self._queue.acquire(blocking=False):
            raise StoreError(f"Too many calls wait for a connection to the list {self.name}: try again.")
        try:
            if not self._slots.acquire(timeout=max(0.0, deadline - monotonic())):
                raise StoreError(f"No connection to the list {self.name} was free in time: try again.")
            try:
                yield
            finally:
                self._slots.release()
        finally:
            self._queue.release()

    def _take(self, *, fresh: bool) -> Connection | None:
        with self._lock:
            if self._is_closed:
                raise StoreError(f"The list {self.name} was closed.")
            return self._idle.pop() if self._idle and not fresh else None

    def _put_back(self, connection: Connection) -> None:
        with suppress(psycopg.Error, OSError):
            if connection.pgconn.transaction_status in _IN_TRANSACTION:
                connection.deadline = monotonic() + self._timeout
                connection.execute("ROLLBACK")
        with self._lock:
            if connection.pgconn.transaction_status == TransactionStatus.IDLE and not self._is_closed:
                self._idle.append(connection)
                return
        connection.abandon(self._timeout)

    def _connected(self, deadline: float) -> Connection:
        # In a thread, because waiting for a name server that hangs cannot be interrupted.
        future: Future[Connection] = Future()
        threading.Thread(target=_connect, args=(future, self._parameters), daemon=True).start()
        try:
            return future.result(max(0.0, deadline - monotonic()))
        except TimeoutError:
            if future.cancel():
                raise TimeoutError("no answer to the attempt to connect") from None
            return future.result()  # at the last moment


def reason_of(error: Exception) -> str:
    """The text of an error in one line, without the values of the statement, which may name a person."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((primary or str(error)).split()).rstrip(".?") or type(error).__name__


def _connect(future: "Future[Connection]", parameters: Mapping[str, Any]) -> None:
    try:
        # No prepared statements: a pooler may use another connection to the server, which does not have them.
        connection = Connection.connect(autocommit=True, prepare_threshold=None, **parameters)
        connection.add_notice_handler(connection.heed)
    except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits for it
        if future.set_running_or_notify_cancel():
            future.set_exception(error)
        return
    if future.set_running_or_notify_cancel():
        future.set_result(connection)
    else:
        connection.close()


def _parse(url: str, timeout: float) -> tuple[dict[str, Any], str]:
    """The parameters for psycopg, and a name for messages."""
    try:
        parameters: dict[str, Any] = conninfo_to_dict(url)
    except (psycopg.Error, ValueError):
        parameters = {"port": "?"}  # libpq's message may contain a part of the password
    host, port = (str(parameters.get(key) or "") for key in ("host", "port"))
    database = str(parameters.get("dbname") or "")
    # If a password contains "/" or "@", a part of it would be taken for one of these, and shown in messages.
    if not (_HOST.fullmatch(host) and _PORT.fullmatch(port) and _DATABASE.fullmatch(database)):
        raise ConfigurationError(
            "DATABASE_URL is not a URL of PostgreSQL: postgresql://USER:PASSWORD@HOST:PORT/DATABASE, where"
            " what is no letter or digit in user and password is percent-encoded."
        ) from None
    defaults = {
        "connect_timeout": max(2, math.ceil(timeout)),
        "fallback_application_name": "signer",
        "keepalives_idle": 60,
    }
    # A standby lags: it lacks the newest revocations.
    forced = {"target_session_attrs": "read-write", "client_encoding": "UTF8"}
    name = f"{database or 'of the default name'} at {host or 'the default host'}:{port or 5432}"
    return defaults | parameters | forced, name
