"""A list on another machine, and a copy of it in memory for validations.

With a bound the copy answers as long as it is fresher. Without one (0) the list is asked for every validation
what has changed, and then the copy answers: one question will do for all that wait for it at that moment.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from ..claims import Claims
from .base import Entry, Freshness, Store
from .copied import UNKNOWING, Copied
from .following import Following
from .mirror import Mirror


class Followable(Store, Protocol):
    """A list that tells when it changes."""

    def wait_for_change(self, seconds: float) -> None:
        """Return when somebody has changed it, perhaps, and after so many seconds in any case."""
        ...


#: The second (following.now) at which, or later, a copy must have been as the list to answer for it.
_moment: ContextVar[float | None] = ContextVar("signer.as_of", default=None)


@contextmanager
def as_of(moment: float) -> Iterator[None]:
    """Within it a copy will do that is as the list was at that moment, or later: for what was asked then."""
    token = _moment.set(moment)
    try:
        yield
    finally:
        _moment.reset(token)


class FollowedStore:
    """A Store whose `is_clear` and `recall` ask a copy that is fresher than a bound; all else asks the list.
    So do these two while the list is too large for a copy; and without a bound, unless within `as_of`.

    Args:
        store: the list.
        staleness: seconds; the bound, or 0.

    Raises:
        StoreError: the list cannot be read now.
    """

    is_local = False

    def __init__(self, store: Followable, staleness: float) -> None:
        self._store = store
        self._is_bound = staleness > 0
        self._mirror = Mirror(Copied)
        self._following = Following(self._step, store.wait_for_change, staleness, store.close)
        self.lookup = store.lookup
        self.revoke = store.revoke
        self.use = store.use
        self.rotate = store.rotate
        self.advance = store.advance
        self.purge = store.purge
        self.together = store.together
        self.snapshot = store.snapshot
        self.count = store.count
        self.ping = store.ping
        self.close = self._following.close

    @property
    def is_prompt(self) -> bool:
        return self._is_bound and self._following.is_copying

    @property
    def freshness(self) -> Freshness:
        return self._following.freshness

    def catch_up(self) -> float | None:
        return self._following.catch_up()

    def is_clear(self, claims: Claims, end: int) -> bool:
        copy = self._copy()
        return copy is not None and copy.is_clear(claims, end)

    def recall(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        copy = self._copy()
        return self.lookup(jti, exp, groups) if copy is None else copy.lookup(jti, exp, groups)

    def _copy(self) -> Copied | None:
        if self._is_bound:
            return self._following.copy if self._following.is_copying else None
        moment = _moment.get()
        copy = None if moment is None else self._following.copy_since(moment)
        return None if copy is UNKNOWING else copy

    def _step(self) -> Copied | None:
        if self._mirror.is_resting:
            return UNKNOWING
        with self._store.snapshot() as snapshot:
            return self._mirror.copy if self._mirror.step(snapshot) else None
