"""How a process hears that another one has changed a list in PostgreSQL (LISTEN and NOTIFY)."""

import threading
from time import monotonic

import psycopg

from ...errors import StoreError
from .link import Link
from .pool import Connection


class Listener:
    """Listens on a connection of its own, which is made when it is needed."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def wait_for_change(self, seconds: float) -> None:
        """Return when a process has changed the list since the last call, and after `seconds` at the latest.
        It returns at once if changes may have been missed: at the first call, and after the connection was
        lost. It is a hint: behind a pooler, or while the server cannot be reached, nothing is heard.

        Raises:
            StoreError: the list was closed.
        """
        self._link.check_open()
        until = monotonic() + seconds
        if self._lock.acquire(timeout=seconds):
            try:
                self._listen(until)
            except (psycopg.Error, OSError, StoreError):
                self._stop()
                self._link.closed.wait(max(0.0, until - monotonic()))
            finally:
                self._lock.release()
        self._link.check_open()

    def close(self) -> None:
        """End a call that waits, and close the connection."""
        if connection := self._connection:
            connection.deadline = 0.0  # the wait on it ends
        with self._lock:
            self._stop()

    def _listen(self, until: float) -> None:
        if not self._link.can_notify:
            raise StoreError("This server cannot notify.")
        timeout = self._link.timeout
        if self._connection is None:
            self._connection = self._link.pool.connect(monotonic() + timeout)
            self._connection.deadline = monotonic() + timeout
            self._connection.execute("LISTEN signer")
            return
        self._connection.deadline = until + timeout
        self._link.check_open()  # after setting the deadline, because close() moves it forward
        for _ in self._connection.notifies(timeout=max(0.0, until - monotonic()), stop_after=1):
            pass

    def _stop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
