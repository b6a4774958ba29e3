"""Loads a copy of a list into memory, and keeps it up to date, in small steps.

No step takes long, because an event loop may wait for it. Until everything is loaded, and whenever the copy
cannot keep up, the list itself must be asked.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

from ...policy import MAX_ROWS
from ..contract import Point, Row, Snapshot

#: Rows that one step takes in by default.
STEP: Final = 1000
#: Seconds until it tries again after there were too many rows.
REST: Final = 600.0


class Copy(Protocol):
    """What the rows are put into: an Index or a FullCopy."""

    #: These two as in contract.Entry.
    horizon: int
    last_generation: int

    def add(self, row: Row) -> None:
        """Take in a row, and replace what was known about it."""
        ...

    def __len__(self) -> int: ...


C = TypeVar("C", bound=Copy)


class Loader(Generic[C]):
    """Fills its `copy`, which is complete and equal to the list at the last step once `step` has said so.

    Args:
        kind: makes an empty copy.
        give_up: takes a copy that is not used any more, which may be large.
    """

    def __init__(self, kind: type[C], give_up: Callable[[C], object] = lambda copy: None) -> None:
        self._kind = kind
        self._give_up = give_up
        self._rests_until = 0.0
        self._begin()

    def _begin(self) -> None:
        self.copy = self._kind()
        self._is_loaded = False
        #: How far it has come: in the rows while it loads, and in the changes.
        self._next: Any = None
        self._point: Point | None = None

    def _begin_anew(self) -> None:
        copy = self.copy
        self._begin()
        self._give_up(copy)

    @property
    def is_loading(self) -> bool:
        """Whether it has not read all rows yet."""
        return not self._is_loaded

    @property
    def is_resting(self) -> bool:
        """Whether it pauses because the list was too large."""
        return monotonic() < self._rests_until

    def rest(self) -> None:
        """Give up a list that is too large, for REST seconds."""
        self._rests_until = monotonic() + REST
        self._begin_anew()

    def step(self, source: Snapshot, rows: int | None = None) -> bool:
        """Take in up to that many more rows of the list; return whether the copy is complete."""
        if self._point is None:
            self._point = source.point  # the log contains every change after this one
        if is_loading := not self._is_loaded:
            self._load(source, rows or STEP)
        elif self._point != source.point:
            self._follow(source, self._point, rows or STEP)
        self.copy.horizon = source.horizon
        self.copy.last_generation = max(source.last_generation, self.copy.last_generation)
        if len(self.copy) > MAX_ROWS:
            # Purged rows leave a copy only when it is loaded anew. If it was just loaded, none was purged.
            self.rest() if is_loading else self._begin_anew()
        # A log may hold more changes than there were when the snapshot was taken.
        return self._is_loaded and self._point is not None and self._point.number >= source.point.number

    def _load(self, source: Snapshot, rows: int) -> None:
        chunk = source.chunk(self._next, rows)
        for row in chunk.rows:
            self.copy.add(row)
        self._next = chunk.next
        self._is_loaded = chunk.next is None

    def _follow(self, source: Snapshot, after: Point, rows: int) -> None:
        changes = source.changes(after, rows)
        if changes is None:
            self._begin_anew()
            return
        for row in changes.rows:
            self.copy.add(row)
        self._point = changes.end
