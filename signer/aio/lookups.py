"""Validations, which wait for nothing where the list, or a copy of it, is at hand, and may wait for a network
otherwise: in threads then, as many as a network may keep waiting."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from ..errors import StoreError
from ..policy import ANSWER_TIMEOUT, MOST_CATCHING_UP, MOST_WAITING, THREADS
from ..stores import Store
from ..stores.copies.refresher import now
from ..stores.copies.view import as_of

P = ParamSpec("P")
R = TypeVar("R")


async def in_time(running: "asyncio.Future[R]") -> R:
    """What it returns or raises. Where it takes longer than ANSWER_TIMEOUT, it goes on alone.

    Raises:
        StoreError: it takes longer.
    """
    running.add_done_callback(_heard)
    await asyncio.wait([running], timeout=ANSWER_TIMEOUT)
    if not running.done():
        raise StoreError(f"The list does not answer within {ANSWER_TIMEOUT} s.")
    return running.result()


def _heard(running: "asyncio.Future[R]") -> None:
    # Where the caller has left, asyncio would complain of an error that nobody heard of.
    if not running.cancelled():
        running.exception()


class Lookups:
    """Runs what asks this list.

    Where a copy must first catch up with the list, all that wait for that are answered by one question; it is
    one that begins after they came.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_local = store.is_local
        self._catching_up: asyncio.Future[float | None] | None = None
        self._threads = ThreadPoolExecutor(THREADS, "signer-lookup")
        self._catcher = ThreadPoolExecutor(1, "signer-catching-up")
        self._under_way = 0
        self._catching_up_for = 0

    @property
    def are_prompt(self) -> bool:
        """Whether they wait for nothing now."""
        return self._is_local or self._store.is_prompt

    async def run(self, ask: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `ask` returns or raises.

        Raises:
            StoreError: too many wait, or the list does not answer.
        """
        if self._is_local:
            return ask(*args, **kwargs)
        if self._store.is_prompt:
            with as_of(0.0):  # any copy, if it is fresh; it may go at any moment
                return ask(*args, **kwargs)
        came = now()
        if self._catching_up_for >= MOST_CATCHING_UP:
            raise StoreError("Too many look-ups wait for the list.")
        self._catching_up_for += 1
        try:
            caught_up = await self._caught_up(came)
        finally:
            self._catching_up_for -= 1
        if caught_up is None:
            return await self.elsewhere(ask, *args, **kwargs)
        with as_of(came):
            return ask(*args, **kwargs)

    async def _caught_up(self, moment: float) -> float | None:
        """When the copy was as the list, not before that moment; None where there is no copy."""
        caught_up: float | None = 0.0
        while caught_up is not None and caught_up < moment:
            if self._catching_up is None or self._catching_up.done():
                loop = asyncio.get_running_loop()
                self._catching_up = loop.run_in_executor(self._catcher, self._store.catch_up)
            asked = self._catching_up
            await asyncio.wait([asked])  # which leaves it to others who wait for it, too
            caught_up = asked.result()
        return caught_up

    async def elsewhere(self, ask: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same, in a thread in any case."""
        if self._under_way >= MOST_WAITING:
            raise StoreError("Too many look-ups wait for the list.")
        self._under_way += 1
        loop = asyncio.get_running_loop()
        # Hooks see where a call comes from.
        asked = partial(copy_context().run, partial(ask, *args, **kwargs))
        running = loop.run_in_executor(self._threads, asked)
        running.add_done_callback(self._ended)
        return await in_time(running)

    def _ended(self, _: "asyncio.Future[R]") -> None:
        self._under_way -= 1

    def close(self) -> None:
        """Let go of the threads."""
        for threads in (self._threads, self._catcher):
            threads.shutdown(wait=False)
