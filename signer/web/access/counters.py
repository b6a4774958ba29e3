"""Counters in memory for the library `limits`. Its own go through all callers at every call; these do not."""

import time
from itertools import islice

from limits.aio.storage import Storage

from ...policy import MAX_WINDOWS


class Counters(Storage):
    """Counts in windows of time. Where there are too many callers, those who came first are forgotten."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__(None)
        #: The second it ends, and the count. In the order in which they began.
        self._windows: dict[str, tuple[float, int]] = {}

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """None: memory always answers."""
        return ()

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, and return the new number; the first call begins a window of `expiry` seconds."""
        ends, counted = self._window(key)
        if not counted:
            self._make_room()
            self._windows.pop(key, None)  # to the end
            ends = time.time() + expiry
        self._windows[key] = (ends, counted + amount)
        return counted + amount

    async def get(self, key: str) -> int:
        """The number in the current window."""
        return self._window(key)[1]

    async def get_expiry(self, key: str) -> float:
        """The second at which the current window ends."""
        return self._window(key)[0]

    async def check(self) -> bool:
        """True: memory always answers."""
        return True

    async def reset(self) -> int:
        """Forget everything; return how much that was."""
        known = len(self._windows)
        self._windows.clear()
        return known

    async def clear(self, key: str) -> None:
        """Forget this one."""
        self._windows.pop(key, None)

    def _window(self, key: str) -> tuple[float, int]:
        now = time.time()
        ends, counted = self._windows.get(key, (now, 0))
        return (ends, counted) if ends > now else (now, 0)

    def _make_room(self) -> None:
        if len(self._windows) < MAX_WINDOWS:
            return
        now = time.time()
        self._windows = {key: window for key, window in self._windows.items() if window[0] > now}
        for key in list(islice(self._windows, max(0, len(self._windows) - MAX_WINDOWS * 3 // 4))):
            del self._windows[key]
