"""A list on another machine, and a copy of it in memory for validations.

With a bound the copy answers as long as it is fresher. Without one (0) the list is asked for every validation
what has changed, and then the copy answers: one question will do for all that wait for it at that moment.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from ...errors import StoreError
from ...policy import UNHEARD
from ...tokens.claims import Claims
from ..contract import Entry, Freshness, Store
from .full import UNKNOWING, Copied
from .loader import Mirror
from .refresher import Following, Step


class Followable(Store, Protocol):
    """A list that tells when it changes."""

    def wait_for_change(self, seconds: float) -> None:
        """Return when somebody has changed it, perhaps, and after so many seconds in any case."""
        ...


#: The second (following.now) at which, or later, a copy must have been as the list to answer for it.
_moment: ContextVar[float | None] = ContextVar("signer.as_of", default=None)


@contextmanager
def as_of(moment: float) -> Iterator[None]:
    """Within it a copy will do that is as the list was at that moment, or later: for what was asked then.
    Nothing waits for a network there: where there is no such copy, that is an error."""
    token = _moment.set(moment)
    try:
        yield
    finally:
        _moment.reset(token)


class FollowedStore:
    """A Store whose `is_clear` and `recall` ask a copy that is fresher than a bound; all else asks the list.
    So do these two while a copy is loaded, and while the list is too large for one; and without a bound, but
    for what is within `as_of`.

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
        if copy is None:
            return self.lookup(jti, exp, groups)
        return copy.lookup(jti, exp, groups)._replace(unheard=UNHEARD * self._is_bound)

    def _copy(self) -> Copied | None:
        moment = _moment.get()
        copy: Copied | None = None
        if self._is_bound:
            copy = self._following.copy if self._following.is_copying else None
        elif moment is not None:
            copy = self._following.copy_since(moment)
        if copy is not None and copy is not UNKNOWING:
            return copy
        if moment is not None:
            raise StoreError("There is no such copy of the list any more: it will be asked from now on.")
        return None

    def _step(self) -> Step:
        if self._mirror.is_resting:
            return Step(UNKNOWING, is_whole=True)
        with self._store.snapshot() as snapshot:
            is_whole = self._mirror.step(snapshot)
        if is_whole:
            return Step(self._mirror.copy, is_whole=True)
        # While it is loaded, which may take seconds, the list is asked.
        return Step(UNKNOWING if self._mirror.is_loading else None, is_whole=False)
