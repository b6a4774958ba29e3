"""Changes that one thread makes together: all of them become durable at the end, or none is made."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Generic, TypeVar

from ..errors import StoreError

#: The engine's connection.
W = TypeVar("W")
#: What the engine notes of a change, for its log.
C = TypeVar("C")


class Grouping(ABC, Generic[W, C]):
    """The changes of one process to a list. Only one thread makes changes at a time.

    Args:
        lock: held by the thread that makes changes.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        #: The thread whose changes are under way.
        self._owner: int | None = None
        #: Why one of the changes under way failed; "" if none did.
        self._failure = ""
        #: The changes under way. An engine commits nothing that is not noted here.
        self.changed: list[C] = []

    @property
    def is_mine(self) -> bool:
        """Whether the changes under way are those of the calling thread."""
        return self._owner == threading.get_ident()

    @contextmanager
    def together(self) -> Iterator[None]:
        """See Store.together."""
        self._check_open()
        if self.is_mine:
            raise StoreError("This thread makes changes together already: end that first.")
        self._acquire(self._lock)
        try:
            self._owner = threading.get_ident()
            yield
            self._commit()
        finally:
            self._end()

    @contextmanager
    def writing(self) -> Iterator[W]:
        """The connection for one change: one of those made together, or a change by itself."""
        self._check_open()
        if not self.is_mine:
            with self.together(), self.writing() as writer:
                yield writer
            return
        if self._failure:
            raise StoreError(f"A change before this one, made together with it, has failed: {self._failure}")
        try:
            with self._translated():
                yield self._begun()
        except BaseException as error:
            # Half of it may be made. The text of an unexpected error may contain anything, so it is not kept.
            self._failure = str(error) if isinstance(error, StoreError) else type(error).__name__
            raise

    def _check_failure(self) -> None:
        if self._failure:
            raise StoreError(f"Of several changes none was made, since one has failed: {self._failure}")

    def _end(self) -> None:
        try:
            self._roll_back()
        finally:
            self._owner, self._failure = None, ""
            self.changed.clear()
            self._lock.release()

    @abstractmethod
    def _check_open(self) -> None:
        """Raise StoreError if the list is closed, or belongs to a parent process. Comes before every lock."""

    @abstractmethod
    def _acquire(self, lock: threading.Lock) -> None:
        """Acquire it, or raise StoreError if that takes too long."""

    @abstractmethod
    def _begun(self) -> W:
        """The connection, with a transaction that holds the engine's own lock for changes."""

    @abstractmethod
    def _commit(self) -> None:
        """Make the changes durable, if a transaction was begun and none of them failed."""

    @abstractmethod
    def _roll_back(self) -> None:
        """Undo what was begun and not committed."""

    @abstractmethod
    def _translated(self) -> AbstractContextManager[None]:
        """Within it, the engine's errors become StoreError."""
