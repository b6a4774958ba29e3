"""Counters in memory for the library `limits`. Its own counters visit all callers at each call; these do
not."""

import time
from itertools import islice

from limits.aio.storage import Storage

from ...policy import MAX_WINDOWS


class Counters(Storage):
    """Counts in windows of time. If there are too many callers, the oldest windows are forgotten."""

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__(None)
        #: By caller: when the window ends (seconds since 1970), and the count. The oldest window comes first.
        self._windows: dict[str, tuple[float, int]] = {}

    @property
    def base_exceptions(self) -> tuple[type[Exception], ...]:
        """No errors, because memory always answers."""
        return ()

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add `amount`, and return the new count. The first call begins a window of `expiry` seconds."""
        ends, counted = self._window(key)
        if not counted:
            self._make_room()
            self._windows.pop(key, None)  # so that the new window comes last
            ends = time.time() + expiry
        self._windows[key] = (ends, counted + amount)
        return counted + amount

    async def get(self, key: str) -> int:
        """The count in the current window."""
        return self._window(key)[1]

    async def get_expiry(self, key: str) -> float:
        """When the current window ends, in seconds since 1970."""
        return self._window(key)[0]

    async def check(self) -> bool:
        """Always true, because memory always answers."""
        return True

    async def reset(self) -> int:
        """Forget all windows, and return how many there were."""
        known = len(self._windows)
        self._windows.clear()
        return known

    async def clear(self, key: str) -> None:
        """Forget this caller's window."""
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
