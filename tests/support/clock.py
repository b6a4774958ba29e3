"""Time, as tests need it."""

import time
from collections.abc import Callable
from typing import Final

#: Seconds that nothing takes but what hangs, on however slow or busy a machine.
HANG: Final = 60.0


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def eventually(holds: Callable[[], bool], within: float = HANG) -> float:
    """Wait until it does; return how many seconds that took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() < began + within
        time.sleep(0.005)
    return time.monotonic() - began
