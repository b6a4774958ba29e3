"""Validations that wait for a list on another machine."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from support.clock import HANG

from signer.aio import lookups
from signer.aio.lookups import Lookups
from signer.errors import StoreError
from signer.stores.copies.refresher import now
from signer.stores.memory import MemoryStore


class Distant(MemoryStore):
    """A list that takes its time to be asked, and counts the questions."""

    is_local = False
    is_prompt = False

    def __init__(self) -> None:
        super().__init__()
        self.questions = 0
        self.fails = False
        self.may_answer = threading.Event()
        self.may_answer.set()

    def catch_up(self) -> float:  # type: ignore[override]
        began = now()
        self.questions += 1
        assert self.may_answer.wait(HANG)
        if self.fails:
            raise StoreError("no")
        return began


class Copyless(MemoryStore):
    """A list that is asked for each validation."""

    is_local = False
    is_prompt = False


def run(store: MemoryStore, work: Callable[[Lookups], Any]) -> Any:
    async def main() -> Any:
        with closing(Lookups(store)) as asked:
            return await work(asked)

    return asyncio.run(main())


def test_one_question_answers_all_who_wait() -> None:
    """But none that began before they came."""
    store = Distant()

    store.may_answer.clear()

    async def work(asked: Lookups) -> list[float]:
        first = [asyncio.ensure_future(asked.run(now)) for _ in range(100)]
        while not store.questions:  # noqa: ASYNC110 - another thread counts
            await asyncio.sleep(0.001)
        second = [asyncio.ensure_future(asked.run(now)) for _ in range(100)]
        await asyncio.sleep(0)
        store.may_answer.set()
        return await asyncio.gather(*first, *second)

    answered = run(store, work)
    assert store.questions == 2
    assert max(answered[:100]) < min(answered[100:])


def test_what_fails_for_one_fails_for_all_who_wait() -> None:
    """And is tried again for the next."""
    store = Distant()
    store.fails = True

    async def work(asked: Lookups) -> list[Any]:
        outcomes: list[Any] = await asyncio.gather(
            *(asked.run(lambda: True) for _ in range(10)), return_exceptions=True
        )
        store.fails = False
        return [*outcomes, await asked.run(lambda: True)]

    *failed, last = run(store, work)
    assert all(isinstance(outcome, StoreError) for outcome in failed)
    assert last is True


def test_who_leaves_takes_the_answer_from_nobody() -> None:
    """A question goes on when one of those that wait for it is gone."""
    store = Distant()

    async def work(asked: Lookups) -> Any:
        store.may_answer.clear()
        leaver, stayer = (asyncio.ensure_future(asked.run(lambda: True)) for _ in range(2))
        await asyncio.sleep(0.01)
        leaver.cancel()
        store.may_answer.set()
        return await stayer

    assert run(store, work) is True
    assert store.questions <= 2


def test_without_a_copy_threads_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """And more than may wait are refused at once."""
    monkeypatch.setattr(lookups, "MOST_WAITING", 10)
    release = threading.Event()

    async def work(asked: Lookups) -> list[Any]:
        waiting = [asyncio.ensure_future(asked.run(lambda: release.wait(HANG))) for _ in range(10)]
        await asyncio.sleep(0.1)
        with pytest.raises(StoreError, match="Too many"):
            await asked.run(lambda: True)
        release.set()
        return [*await asyncio.gather(*waiting), await asked.run(lambda: True)]

    assert run(Copyless(), work) == [True] * 11
