"""Questions asked in a thread, for callers that must not wait long."""

import threading
from collections.abc import Callable

import pytest
from support.clock import eventually

from signer.errors import StoreError
from signer.stores.asking import Asker

#: Longer than a test waits.
LONG = 60.0


def test_the_answer_is_what_was_returned_or_raised() -> None:
    """Always in the same thread."""
    asker = Asker(LONG)
    assert {asker.ask(threading.get_ident) for _ in range(100)}.isdisjoint({threading.get_ident()})
    assert len({asker.ask(threading.get_ident) for _ in range(100)}) == 1
    with pytest.raises(ZeroDivisionError):
        asker.ask(lambda: 1 // 0)
    assert asker.ask(lambda: None) is None
    assert asker.close()


def test_nobody_waits_for_a_question_that_hangs() -> None:
    """Its caller gives up, and further callers are refused at once until it has ended."""
    release = threading.Event()
    asker = Asker(0.05)
    with pytest.raises(StoreError, match="within"):
        asker.ask(release.wait)
    eventually(lambda: refuses_at_once(asker))  # its thread may have started later
    asked: list[int] = []
    for number in range(1000):
        with pytest.raises(StoreError, match="an earlier question"):
            asker.ask(lambda number=number: asked.append(number))  # type: ignore[misc]
    release.set()
    eventually(lambda: answers(asker))
    assert asked == []
    assert asker.close()


def refuses_at_once(asker: Asker) -> bool:
    try:
        asker.ask(lambda: None)
    except StoreError as error:
        return "an earlier question" in str(error)
    return False


def answers(asker: Asker) -> bool:
    try:
        return asker.ask(lambda: True)
    except StoreError:
        return False


def test_many_ask_at_once_and_each_has_its_own_answer() -> None:
    """Each asked by a thread of its own."""
    asker = Asker(LONG)
    wrong: list[int] = []

    def work(number: int) -> None:
        wrong.extend(each for each in range(200) if asker.ask(doubled(number + each)) != 2 * (number + each))

    threads = [threading.Thread(target=work, args=(1000 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert asker.close()


def doubled(number: int) -> Callable[[], int]:
    return lambda: 2 * number


def test_one_that_hangs_is_left_to_end_with_the_process() -> None:
    """Closing waits no longer for it than callers do."""
    release = threading.Event()
    asker = Asker(0.05)
    with pytest.raises(StoreError):
        asker.ask(release.wait)
    assert not asker.close()
    release.set()
