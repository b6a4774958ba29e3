"""A list's index in memory, loaded in small steps and kept in step with the list.

No step is long, since an event loop waits for it: until all is loaded, and wherever it cannot keep up, every
token is looked up in the list itself.
"""

from collections.abc import Sequence
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol

from .index import Index

#: Rows that one step takes in: a millisecond.
STEP: Final = 1000
#: Ids that are kept at the most: 120 bytes each.
MAX_IDS: Final = 1 << 20
#: Seconds until it tries again after there were too many.
REST: Final = 600.0


class Named(NamedTuple):
    """A row, or a group (which has a generation), of the list; `key` is its place in what was asked for."""

    key: Any
    name: str
    generation: int


class Source(Protocol):
    """One snapshot of a list."""

    @property
    def changes(self) -> int:
        """How many changes were ever made to it."""
        ...

    @property
    def horizon(self) -> int:
        """As in base.Entry."""
        ...

    def rows(self, after: Any, limit: int) -> Sequence[Named]:
        """Up to `limit` rows and groups that come after the key `after`, None being before the first."""
        ...

    def log(self, after: int, limit: int) -> Sequence[Named] | None:
        """What the first `limit` changes after the one numbered `after` were of, by their numbers; None where
        that is forgotten."""
        ...


class Mirror:
    """Whose `index` is complete, and as the list was at the last step, once `step` has said so."""

    def __init__(self) -> None:
        self._rests_until = 0.0
        self._begin()

    def _begin(self) -> None:
        self.index = Index()
        self._is_loaded = False
        #: How far it is: in the rows while it loads, and in the changes.
        self._key: Any = None
        self._changes: int | None = None

    @property
    def is_resting(self) -> bool:
        """Whether the list was too large for it a moment ago."""
        return monotonic() < self._rests_until

    def step(self, source: Source) -> bool:
        """Take in a little more of the list; return whether that was all of it."""
        if self._changes is None:
            self._changes = source.changes  # what changes from here on is in the log
        if is_loading := not self._is_loaded:
            self._load(source)
        elif self._changes < source.changes:
            self._follow(source)
        self.index.horizon = source.horizon
        if len(self.index) > MAX_IDS:
            # Rows that were purged leave it only by loading anew; what was just loaded is all there.
            self._rests_until = monotonic() + REST * is_loading
            self._begin()
        return self._is_loaded and self._changes == source.changes

    def _load(self, source: Source) -> None:
        rows = source.rows(self._key, STEP)
        for key, name, generation in rows:
            self.index.add(name, generation)
            self._key = key
        self._is_loaded = len(rows) < STEP

    def _follow(self, source: Source) -> None:
        changed = source.log(self._changes or 0, STEP)
        if changed is None:
            self._begin()
            return
        for number, name, generation in changed:
            self.index.add(name, generation)
            self._changes = number
        if len(changed) < STEP:
            self._changes = source.changes  # the last ones, like a purge, may be in no log
