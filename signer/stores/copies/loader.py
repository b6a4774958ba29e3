"""A list's copy in memory, loaded in small steps and kept in step with the list.

No step is long, since an event loop may wait for it: until all is loaded, and wherever it cannot keep up, the
list itself is asked.
"""

from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

from ...policy import MAX_ROWS
from ..contract import Point, Row, Snapshot

#: Rows that one step takes in, where nothing else is said.
STEP: Final = 1000
#: Seconds until it tries again after there were too many.
REST: Final = 600.0


class Copy(Protocol):
    """What the rows are put into."""

    #: These two as in base.Entry.
    horizon: int
    last_generation: int

    def add(self, row: Row) -> None:
        """Take this in, whatever was known of it."""
        ...

    def __len__(self) -> int: ...


C = TypeVar("C", bound=Copy)


class Mirror(Generic[C]):
    """Whose `copy` is complete, and as the list was at the last step, once `step` has said so.

    Args:
        kind: makes an empty copy.
        give_up: takes a copy that is not kept any more, which may be large.
    """

    def __init__(self, kind: type[C], give_up: Callable[[C], object] = lambda copy: None) -> None:
        self._kind = kind
        self._give_up = give_up
        self._rests_until = 0.0
        self._begin()

    def _begin(self) -> None:
        self.copy = self._kind()
        self._is_loaded = False
        #: How far it is: in the rows while it loads, and in the changes.
        self._next: Any = None
        self._point: Point | None = None

    def _begin_anew(self) -> None:
        copy = self.copy
        self._begin()
        self._give_up(copy)

    @property
    def is_loading(self) -> bool:
        """Whether it has not been through all rows yet."""
        return not self._is_loaded

    @property
    def is_resting(self) -> bool:
        """Whether the list was too large for it a moment ago."""
        return monotonic() < self._rests_until

    def rest(self) -> None:
        """Give up a list that is too large, for a while."""
        self._rests_until = monotonic() + REST
        self._begin_anew()

    def step(self, source: Snapshot, rows: int | None = None) -> bool:
        """Take in up to so many rows more of the list; return whether that was all of it."""
        if self._point is None:
            self._point = source.point  # what changes from here on is in the log
        if is_loading := not self._is_loaded:
            self._load(source, rows or STEP)
        elif self._point != source.point:
            self._follow(source, self._point, rows or STEP)
        self.copy.horizon = source.horizon
        self.copy.last_generation = max(source.last_generation, self.copy.last_generation)
        if len(self.copy) > MAX_ROWS:
            # Rows that were purged leave it only by loading anew; what was just loaded is all there.
            self.rest() if is_loading else self._begin_anew()
        # A log may tell more than there was when the snapshot was taken.
        return self._is_loaded and self._point is not None and self._point.number >= source.point.number

    def _load(self, source: Snapshot, rows: int) -> None:
        page = source.page(self._next, rows)
        for row in page.rows:
            self.copy.add(row)
        self._next = page.next
        self._is_loaded = page.next is None

    def _follow(self, source: Snapshot, after: Point, rows: int) -> None:
        log = source.log(after, rows)
        if log is None:
            self._begin_anew()
            return
        for row in log.rows:
            self.copy.add(row)
        self._point = log.end
