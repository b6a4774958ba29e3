"""A list whose calls are timed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import ParamSpec, TypeVar

from ..policy import PURGE_STEP
from ..tokens.claims import Claims
from .contract import Entry, Freshness, Snapshot, Store

P = ParamSpec("P")
R = TypeVar("R")


class TimedStore:
    """A Store that passes every call on to another, and says how long it took.

    Args:
        store: does the work.
        observe: is told the method's name and the seconds, also where it failed.
    """

    def __init__(self, store: Store, observe: Callable[[str, float], None]) -> None:
        self._store = store
        self._observe = observe
        self.is_local = store.is_local
        #: Not timed, which would take longer than most of these calls.
        self.is_clear: Callable[[Claims, int], bool] = store.is_clear

    @property
    def is_prompt(self) -> bool:
        return self._store.is_prompt

    @property
    def freshness(self) -> Freshness | None:
        return self._store.freshness

    def catch_up(self) -> float | None:
        return self._timed(self._store.catch_up)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        return self._timed(self._store.lookup, jti, exp, groups)

    def recall(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        return self._timed(self._store.recall, jti, exp, groups)

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
            # What it waits for is the disk, and all changes in it together.
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
        started = perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            self._observe(method.__name__, perf_counter() - started)
