"""A list whose calls are timed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import ParamSpec, TypeVar

from ..policy import PURGE_STEP
from ..tokens.claims import Claims
from .contract import Entry, Freshness, Snapshot, Store, View

P = ParamSpec("P")
R = TypeVar("R")
_Observe = Callable[[str, float], None]


class TimedStore:
    """A Store that passes every call on to another one, and reports how long it took.

    Args:
        store: does the work.
        observe: receives the method's name and the seconds, also if the call failed.
    """

    def __init__(self, store: Store, observe: _Observe) -> None:
        self._store = store
        self._observe = observe
        self.view = TimedView(store.view, observe)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        return self._timed(self._store.lookup, jti, exp, groups)

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> Entry:
        return self._timed(self._store.revoke, jti, exp, groups)

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        return self._timed(self._store.use, jti, exp, limit)

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        return self._timed(self._store.rotate, jti, exp, now)

    def advance(self, group: str, now_ms: int, lifetime: int) -> int:
        return self._timed(self._store.advance, group, now_ms, lifetime)

    def purge(self, before: int, limit: int = PURGE_STEP) -> int:
        return self._timed(self._store.purge, before, limit)

    def together(self) -> AbstractContextManager[None] | None:
        changes = self._store.together()
        return None if changes is None else self._committed(changes)

    @contextmanager
    def _committed(self, changes: AbstractContextManager[None]) -> Iterator[None]:
        ended = None
        try:
            with changes:
                yield
                ended = perf_counter()
        finally:
            # The commit is what waits for the disk, for all changes of the group at once.
            if ended is not None:
                self._observe("commit", perf_counter() - ended)

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        return self._store.snapshot()

    def count(self) -> int:
        return self._timed(self._store.count)

    def ping(self) -> None:
        self._timed(self._store.ping)

    def close(self) -> None:
        self._store.close()

    def _timed(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return _timed(self._observe, method, *args, **kwargs)


class TimedView:
    """A View that passes every call on to another one, and reports how long look-ups and refreshes took.
    `is_clear` is not timed, because that would take longer than most of its calls."""

    def __init__(self, view: View, observe: _Observe) -> None:
        self._view = view
        self._observe = observe
        self.is_local = view.is_local
        self.is_clear: Callable[[Claims, int], bool] = view.is_clear

    @property
    def is_prompt(self) -> bool:
        return self._view.is_prompt

    @property
    def freshness(self) -> Freshness | None:
        return self._view.freshness

    def catch_up(self) -> float | None:
        return _timed(self._observe, self._view.catch_up)

    def at(self, moment: float) -> "TimedView":
        return TimedView(self._view.at(moment), self._observe)

    def recall(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        return _timed(self._observe, self._view.recall, jti, exp, groups)


def _timed(observe: _Observe, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    started = perf_counter()
    try:
        return method(*args, **kwargs)
    finally:
        observe(method.__name__, perf_counter() - started)
