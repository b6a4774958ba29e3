"""A list on another machine, and a copy of it in memory for validations."""

from collections.abc import Sequence
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


class FollowedStore:
    """A Store whose `is_clear` and `recall` ask a copy that is fresher than a bound; all else asks the list.
    So do these two while the list is too large for a copy.

    Args:
        store: the list.
        staleness: seconds; the bound.

    Raises:
        StoreError: the list cannot be read now.
    """

    is_local = False

    def __init__(self, store: Followable, staleness: float) -> None:
        self._store = store
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
        return self._following.is_copying

    @property
    def freshness(self) -> Freshness:
        return self._following.freshness

    def is_clear(self, claims: Claims, end: int) -> bool:
        return self.is_prompt and self._following.copy.is_clear(claims, end)

    def recall(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        if not self.is_prompt:
            return self.lookup(jti, exp, groups)
        return self._following.copy.lookup(jti, exp, groups)

    def _step(self) -> Copied | None:
        if self._mirror.is_resting:
            return UNKNOWING
        with self._store.snapshot() as snapshot:
            return self._mirror.copy if self._mirror.step(snapshot) else None
