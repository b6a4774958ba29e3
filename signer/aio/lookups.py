"""Validations for an event loop. They wait for nothing if the list, or a copy of it, is at hand. Otherwise
they may wait for a network, and run in threads: as many as a network may keep waiting."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Concatenate, Generic, ParamSpec, TypeVar

from ..errors import StoreError
from ..lifecycle.validation import Validator
from ..policy import ANSWER_TIMEOUT, MOST_CATCHING_UP, MOST_WAITING, THREADS
from ..stores.contract import View
from ..stores.copies.refresher import now

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V", bound=Validator)


async def in_time(running: "asyncio.Future[R]") -> R:
    """What it returns or raises. If it takes longer than ANSWER_TIMEOUT, it goes on without its caller.

    Raises:
        StoreError: it takes longer.
    """
    running.add_done_callback(_retrieve)
    await asyncio.wait([running], timeout=ANSWER_TIMEOUT)
    if not running.done():
        raise StoreError(f"The list does not answer within {ANSWER_TIMEOUT} s.")
    return running.result()


def _retrieve(running: "asyncio.Future[R]") -> None:
    # Once the caller has left, asyncio would log an error that nothing retrieved.
    if not running.cancelled():
        running.exception()


class Lookups(Generic[V]):
    """Runs calls that only validate, on one Signer.

    If a copy must first catch up with the list, one question to the list serves all calls that wait for it.
    The question must begin after each of these calls came.

    Args:
        signer: validates. Each call gets it, or the same one as of the moment that the copy must have.
        view: of its list.
    """

    def __init__(self, signer: V, view: View) -> None:
        self._signer = signer
        #: Any fresh copy will do. The copy may go at any moment, and then nothing must wait for the list.
        self._prompt_signer = signer.as_of(0.0)
        self._view = view
        self._is_local = view.is_local
        self._catching_up: asyncio.Future[float | None] | None = None
        self._threads = ThreadPoolExecutor(THREADS, "signer-lookup")
        self._catcher = ThreadPoolExecutor(1, "signer-catching-up")
        self._under_way = 0
        self._catching_up_for = 0

    @property
    def are_prompt(self) -> bool:
        """Whether they wait for nothing now."""
        return self._is_local or self._view.is_prompt

    async def run(self, ask: Callable[Concatenate[V, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `ask` returns or raises, called with the signer to use and the arguments.

        Raises:
            StoreError: too many calls wait, or the list does not answer.
        """
        if self._is_local:
            return ask(self._signer, *args, **kwargs)
        if self._view.is_prompt:
            return ask(self._prompt_signer, *args, **kwargs)
        came = now()
        if self._catching_up_for >= MOST_CATCHING_UP:
            raise StoreError("Too many look-ups wait for the list.")
        self._catching_up_for += 1
        try:
            caught_up = await self._caught_up(came)
        finally:
            self._catching_up_for -= 1
        if caught_up is None:
            return await self.elsewhere(ask, self._signer, *args, **kwargs)
        return ask(self._signer.as_of(came), *args, **kwargs)

    async def _caught_up(self, moment: float) -> float | None:
        """When the copy was equal to the list, not before that moment; None if there is no copy."""
        caught_up: float | None = 0.0
        while caught_up is not None and caught_up < moment:
            if self._catching_up is None or self._catching_up.done():
                loop = asyncio.get_running_loop()
                self._catching_up = loop.run_in_executor(self._catcher, self._view.catch_up)
            asked = self._catching_up
            await asyncio.wait([asked])  # a caller that is cancelled here leaves the answer to the others
            caught_up = asked.result()
        return caught_up

    async def elsewhere(self, ask: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `ask` returns or raises, called in a thread.

        Raises:
            StoreError: as run.
        """
        if self._under_way >= MOST_WAITING:
            raise StoreError("Too many look-ups wait for the list.")
        self._under_way += 1
        loop = asyncio.get_running_loop()
        # In the caller's context, so that hooks see where a call comes from.
        asked = partial(copy_context().run, partial(ask, *args, **kwargs))
        running = loop.run_in_executor(self._threads, asked)
        running.add_done_callback(self._ended)
        return await in_time(running)

    def _ended(self, _: "asyncio.Future[R]") -> None:
        self._under_way -= 1

    def close(self) -> None:
        """Let the threads end."""
        for threads in (self._threads, self._catcher):
            threads.shutdown(wait=False)
