"""Clocks and waiting, for tests."""

import time
from collections.abc import Callable
from typing import Final

#: Seconds that only something that hangs can take, even on a slow and busy machine.
HANG: Final = 60.0


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def eventually(holds: Callable[[], bool], within: float = HANG) -> float:
    """Wait until the condition is true; return the seconds that it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + within
        time.sleep(0.005)
    return time.monotonic() - began
