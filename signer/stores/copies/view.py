"""The view of a list on another machine: validations ask a full copy in memory.

With a bound, the copy answers as long as it is fresher. Without one (0), each validation first asks the list
what has changed (`catch_up`), and then the copy answers. One question serves all validations that wait at
that moment.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from ...errors import StoreError
from ...policy import UNHEARD
from ...tokens.claims import Claims
from ..contract import Entry, Freshness, Store
from ..direct import DirectView
from .full import NO_COPY, FullCopy
from .loader import Loader
from .refresher import Progress, Refresher


class Watchable(Store, Protocol):
    """A list that says when it changes."""

    def wait_for_change(self, seconds: float) -> None:
        """Return when another caller may have changed the list, and at the latest after that many seconds."""
        ...


class CopyView:
    """A View that asks a full copy. It asks the list itself while the copy is loaded, if the list is too
    large for one, and without a bound.

    Args:
        store: the list.
        staleness: the bound in seconds, or 0.
        let_go: releases what `store` uses.

    Raises:
        StoreError: the list cannot be read now.
    """

    is_local = False

    def __init__(self, store: Watchable, staleness: float, let_go: Callable[[], None]) -> None:
        self._store = store
        self._is_bound = staleness > 0
        self._loader = Loader(FullCopy)
        self._refresher = Refresher(self._step, store.wait_for_change, staleness, let_go)

    @property
    def is_prompt(self) -> bool:
        """See View."""
        return self._is_bound and self._refresher.is_copying

    @property
    def freshness(self) -> Freshness:
        """See View."""
        return self._refresher.freshness

    def catch_up(self) -> float | None:
        """See View."""
        return self._refresher.catch_up()

    def at(self, moment: float) -> "CopyViewAt":
        """See View."""
        return CopyViewAt(self, moment)

    def is_clear(self, claims: Claims, end: int) -> bool:
        """See View."""
        copy = self._refresher.copy_if_any() if self._is_bound else None
        return copy is not None and copy.is_clear(claims, end)

    def recall(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """See View."""
        copy = self._refresher.copy_if_any() if self._is_bound else None
        return self._store.lookup(jti, exp, groups) if copy is None else self.entry(copy, jti, exp, groups)

    def copy_at(self, moment: float) -> FullCopy:
        """A copy that answers for that moment: within the bound any fresh one, without a bound one that was
        equal to the list then or later.

        Raises:
            StoreError: there is none.
        """
        refresher = self._refresher
        copy = refresher.copy_if_any() if self._is_bound else refresher.copy_since(moment)
        if copy is None or copy is NO_COPY:
            raise StoreError("There is no such copy of the list any more: it will be asked from now on.")
        return copy

    def entry(self, copy: FullCopy, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """What a copy of this list knows. Within a bound, the list may have given out more generations."""
        return copy.lookup(jti, exp, groups)._replace(unheard=UNHEARD * self._is_bound)

    def close(self) -> None:
        """End the thread that refreshes the copy, and release what it uses."""
        self._refresher.close()

    def _step(self) -> Progress:
        if self._loader.is_resting:
            return Progress(NO_COPY, is_whole=True)
        with self._store.snapshot() as snapshot:
            is_whole = self._loader.step(snapshot)
        if is_whole:
            return Progress(self._loader.copy, is_whole=True)
        # Loading may take seconds; the list itself is asked until then.
        return Progress(NO_COPY if self._loader.is_loading else None, is_whole=False)


class CopyViewAt:
    """A CopyView that asks nothing but a copy that answers for one moment, and so never waits for a
    network."""

    is_local = False
    is_prompt = True

    def __init__(self, view: CopyView, moment: float) -> None:
        self._view = view
        self._moment = moment

    @property
    def freshness(self) -> Freshness:
        """See View."""
        return self._view.freshness

    def catch_up(self) -> float | None:
        """See View."""
        return self._view.catch_up()

    def at(self, moment: float) -> "CopyViewAt":
        """See View."""
        return CopyViewAt(self._view, moment)

    def is_clear(self, claims: Claims, end: int) -> bool:
        """See View."""
        return self._view.copy_at(self._moment).is_clear(claims, end)

    def recall(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """See View."""
        return self._view.entry(self._view.copy_at(self._moment), jti, exp, groups)


def view_of(store: Watchable, staleness: float | None, let_go: Callable[[], None]) -> DirectView | CopyView:
    """The view of a list on another machine: a copy that is fresher than `staleness`, or, if that is None,
    the list itself. Closing the view calls `let_go`. Raises as CopyView."""
    if staleness is None:
        return DirectView(store.lookup, is_local=False, close=let_go)
    return CopyView(store, staleness, let_go)
