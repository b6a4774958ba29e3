"""How long a connection can remain in its present state."""

import asyncio
from collections.abc import Callable
from math import inf


class Deadline:
    """Calls a function when the time is up that was set last. Every request sets a new time. A new timer for
    each would take a tenth of a plain request's time; instead, a timer that fires too early is restarted.

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
        """Call the function after so many seconds, and not at the time set before; with `inf`, never."""
        self._at = self._loop.time() + seconds
        if self._at < self._timer_at:
            self._stop()
            self._timer = self._loop.call_at(self._at, self._look)
            self._timer_at = self._at

    def close(self) -> None:
        """Never call the function, and drop the reference to it."""
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
