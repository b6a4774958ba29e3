"""Until when a connection may stay as it is."""

import asyncio
from collections.abc import Callable
from math import inf


class Deadline:
    """Calls a function when the time is up that was last set. Each request sets it anew, and a new timer for
    each would take a tenth of a plain request's time: one that comes too early is set anew instead.

    Args:
        loop: the event loop.
        on_time: the function.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_time: Callable[[], None]) -> None:
        self._loop = loop
        self._on_time: Callable[[], None] | None = on_time
        self._timer: asyncio.TimerHandle | None = None
        #: In seconds of the loop's clock.
        self._at = self._timer_at = inf

    def set(self, seconds: float) -> None:
        """Call it in so many seconds, and no more at the time set before; with `inf`, not at all."""
        self._at = self._loop.time() + seconds
        if self._at < self._timer_at:
            self._stop()
            self._timer = self._loop.call_at(self._at, self._look)
            self._timer_at = self._at

    def close(self) -> None:
        """Never call it, and do not keep what it belongs to."""
        self._stop()
        self._on_time = None

    def _stop(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer, self._timer_at = None, inf

    def _look(self) -> None:
        self._timer, self._timer_at = None, inf
        left = self._at - self._loop.time()
        if left > 0:
            self.set(left)
        elif self._on_time:
            self._on_time()
