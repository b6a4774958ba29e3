"""Validations, which wait for nothing where the list, or a copy of it, is at hand, and may wait for a network
otherwise: in threads then, as many as a network may keep waiting."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Final, ParamSpec, TypeVar

from ..errors import StoreError
from ..stores import Store

P = ParamSpec("P")
R = TypeVar("R")

#: Look-ups that wait for the list at the same time, and all with those that wait for their turn. More are
#: refused at once: a list that is slow must not collect callers.
THREADS: Final = 4
MOST_WAITING: Final = 256


class Lookups:
    """Runs what asks this list."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(THREADS, "signer-lookup")
        self._under_way = 0

    @property
    def are_prompt(self) -> bool:
        """Whether they wait for nothing now."""
        return self._store.is_prompt

    async def run(self, ask: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `ask` returns or raises.

        Raises:
            StoreError: too many wait.
        """
        if self._store.is_prompt:
            return ask(*args, **kwargs)
        return await self.elsewhere(ask, *args, **kwargs)

    async def elsewhere(self, ask: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same, in a thread in any case."""
        if self._under_way >= MOST_WAITING:
            raise StoreError("Too many look-ups wait for the list.")
        self._under_way += 1
        try:
            loop = asyncio.get_running_loop()
            # Hooks see where a call comes from.
            asked = partial(copy_context().run, partial(ask, *args, **kwargs))
            return await loop.run_in_executor(self._threads, asked)
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False)
