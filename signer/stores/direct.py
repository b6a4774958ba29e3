"""The view of a list that is asked directly."""

from collections.abc import Callable, Sequence
from typing import Final

from ..tokens.claims import Claims
from .contract import Entry

_Recall = Callable[[str, int, Sequence[str]], Entry]
_IsClear = Callable[[Claims, int], bool]


def _unknown(claims: Claims, end: int) -> bool:
    return False


def _nothing() -> None:
    pass


class DirectView:
    """A View that asks the list itself, and keeps no copy.

    Args:
        recall: the list's `lookup`.
        is_clear: answers from the engine's own index. Without one, every token is looked up.
        is_local: see View.
        close: releases what the list uses.
    """

    freshness: Final = None

    def __init__(
        self,
        recall: _Recall,
        is_clear: _IsClear = _unknown,
        *,
        is_local: bool,
        close: Callable[[], None] = _nothing,
    ) -> None:
        self.is_local: Final = is_local
        self.is_prompt: Final = is_local
        # Attributes and no methods: a method around them would add a call to every validation.
        self.recall: Final = recall
        self.is_clear: Final = is_clear
        self.close: Final = close

    def catch_up(self) -> None:
        """There is no copy."""

    def at(self, moment: float) -> "DirectView":
        """The list itself is never older than any moment."""
        return self
