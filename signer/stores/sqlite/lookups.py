"""Look-ups in a list in SQLite: in the caller's thread, or in one that its caller need not wait for."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar

from ...policy import MAX_GROUPS
from ..asking import Asker
from ..contract import Entry, Point
from .opened import OpenedFiles
from .statements import LOOKUP
from .writer import Writer

P = ParamSpec("P")
R = TypeVar("R")


class Lookups:
    """The look-ups of one process.

    Args:
        patience: seconds that a caller waits; None: in its own thread, for as long as the disk takes.
    """

    def __init__(self, opened: OpenedFiles, writer: Writer, patience: float | None) -> None:
        self._opened = opened
        self._writer = writer
        self._asker = None if patience is None else Asker(patience)

    def ask(self, question: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `question` returns or raises.

        Raises:
            StoreError: the caller's patience has ended.
        """
        self._opened.guard.check()
        asker = self._asker
        if asker is None or self._writer.is_mine:  # a thread that makes changes may wait
            return question(*args, **kwargs)
        return asker.ask(partial(question, *args, **kwargs))

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """See Store.lookup."""
        # A thread that makes changes together must see those that it has made already.
        if self._writer.is_mine:
            with self._opened.translated():
                self._opened.check_identity()
                return self.found(self._opened.writer, jti, exp, groups)
        return self.ask(self.now, jti, exp, groups)

    def now(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """The same, in the caller's thread in any case."""
        with self._opened.reading() as reader:
            return self.found(reader, jti, exp, groups)

    def found(self, connection: sqlite3.Connection, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """The same, on that connection."""
        seen = self._opened.newest.get()
        row = connection.execute(LOOKUP, (*_padded(groups), exp, jti)).fetchone()
        self._opened.heed(connection, Point(*map(int, row[-2:])), seen)
        return _entry(row)

    def close(self) -> None:
        """End the thread."""
        if self._asker is not None:
            self._asker.close()
            self._asker = None


def _padded(groups: Sequence[str]) -> list[str | None]:
    return [*groups, *[None] * (MAX_GROUPS - len(groups))]


def _entry(row: tuple[Any, ...]) -> Entry:
    revoked, *numbers = row[:-2]
    return Entry(bool(revoked), *(int(number or 0) for number in numbers))
