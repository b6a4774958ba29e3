"""Validations that wait for a list on another machine."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from support.clock import HANG
from support.service import KEY

from signer import Signer
from signer.aio import lookups
from signer.aio.lookups import Lookups
from signer.errors import StoreError
from signer.stores.contract import View
from signer.stores.copies.refresher import now
from signer.stores.direct import DirectView
from signer.stores.memory import MemoryStore


class Distant(DirectView):
    """The view of a list that takes its time to be asked, and counts the questions."""

    def __init__(self) -> None:
        super().__init__(MemoryStore().lookup, is_local=False)
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


def run(view: View, work: Callable[[Lookups[Signer]], Any]) -> Any:
    async def main() -> Any:
        with closing(Lookups(Signer(KEY), view)) as asked:
            return await work(asked)

    return asyncio.run(main())


def test_one_question_answers_all_who_wait() -> None:
    """But not one that began before they arrived."""
    view = Distant()
    view.may_answer.clear()

    async def work(asked: Lookups[Signer]) -> list[float]:
        first = [asyncio.ensure_future(asked.run(lambda _: now())) for _ in range(100)]
        while not view.questions:  # noqa: ASYNC110 - another thread counts
            await asyncio.sleep(0.001)
        second = [asyncio.ensure_future(asked.run(lambda _: now())) for _ in range(100)]
        await asyncio.sleep(0)
        view.may_answer.set()
        return await asyncio.gather(*first, *second)

    answered = run(view, work)
    assert view.questions == 2
    assert max(answered[:100]) < min(answered[100:])


def test_what_fails_for_one_fails_for_all_who_wait() -> None:
    """The next caller tries again."""
    view = Distant()
    view.fails = True

    async def work(asked: Lookups[Signer]) -> list[Any]:
        outcomes: list[Any] = await asyncio.gather(
            *(asked.run(lambda _: True) for _ in range(10)), return_exceptions=True
        )
        view.fails = False
        return [*outcomes, await asked.run(lambda _: True)]

    *failed, last = run(view, work)
    assert all(isinstance(outcome, StoreError) for outcome in failed)
    assert last is True


def test_who_leaves_takes_the_answer_from_nobody() -> None:
    """A question goes on when one of the callers that wait for it is gone."""
    view = Distant()

    async def work(asked: Lookups[Signer]) -> Any:
        view.may_answer.clear()
        leaver, stayer = (asyncio.ensure_future(asked.run(lambda _: True)) for _ in range(2))
        await asyncio.sleep(0.01)
        leaver.cancel()
        view.may_answer.set()
        return await stayer

    assert run(view, work) is True
    assert view.questions <= 2


def test_without_a_copy_threads_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """If too many wait, further callers are refused at once."""
    monkeypatch.setattr(lookups, "MOST_WAITING", 10)
    release = threading.Event()

    async def work(asked: Lookups[Signer]) -> list[Any]:
        waiting = [asyncio.ensure_future(asked.run(lambda _: release.wait(HANG))) for _ in range(10)]
        await asyncio.sleep(0.1)
        with pytest.raises(StoreError, match="Too many"):
            await asked.run(lambda _: True)
        release.set()
        return [*await asyncio.gather(*waiting), await asked.run(lambda _: True)]

    assert run(DirectView(MemoryStore().lookup, is_local=False), work) == [True] * 11
