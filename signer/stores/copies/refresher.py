"""A copy of a list that is elsewhere, kept fresh by a thread.

The copy answers as long as it is provably fresher than a bound: all that was done before the list was asked
last is in it, and that was less than `staleness` seconds ago. When it is not, nothing is answered.
"""

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from ...errors import StoreError
from ..contract import Freshness
from .full import UNKNOWING, Copied

logger = logging.getLogger(__name__)

#: Seconds between two questions at the most, and at the least.
_LONGEST, _SHORTEST = 1.0, 0.02
#: Seconds between two steps.
_BREATH: Final = 0.001
#: Seconds that the first copy may take.
_START_TIMEOUT: Final = 60.0
#: Seconds that one question waits for another.
_PATIENCE: Final = 1.0
#: Goes on while a machine sleeps, where there is such a clock.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds of a clock that nobody sets."""
    return time.clock_gettime(_CLOCK)


class Step(NamedTuple):
    """What came of taking in a part of what changed."""

    #: What answers from now on: a copy that has all, or UNKNOWING; None for what did until now.
    copy: Copied | None
    #: Whether there is no more to take in.
    is_whole: bool


class Following:
    """Keeps a copy.

    Args:
        step: takes in a part of what changed.
        wait: returns when the list may have changed, after so many seconds at the latest.
        staleness: seconds; the bound. 0 where only a copy will do that catch_up has just made.
        close: lets go of what the two use, so that they end.

    Raises:
        StoreError: the list cannot be read now.
    """

    def __init__(
        self,
        step: Callable[[], Step],
        wait: Callable[[float], None],
        staleness: float,
        close: Callable[[], None],
    ) -> None:
        self._step = step
        self._wait = wait
        self._staleness = staleness
        self._close = close
        # Without a bound the copy catches up when it is needed, and here it is only kept from falling behind.
        self._interval = min(max(staleness / 4, _SHORTEST), _LONGEST) if staleness else _LONGEST
        #: Where there is always something new, hundreds that follow must leave the engine time for others.
        self._rest = min(staleness / 20, _LONGEST / 4) if staleness else _LONGEST / 4
        #: One step at a time.
        self._stepping = threading.Lock()
        #: When the copy was as the list, and the copy. One tuple, since others read it at any moment.
        self._fresh: tuple[float, Copied] = (0.0, UNKNOWING)
        self._lag = 0.0
        #: Why it is not fresh.
        self._reason = ""
        #: When it began to take in what had changed; 0 when that is done.
        self._asked = 0.0
        self._is_closed = threading.Event()
        self._pid = os.getpid()
        self._load()
        self._thread = threading.Thread(target=self._work, name="signer-copy", daemon=True)
        self._thread.start()

    @property
    def copy(self) -> Copied:
        """The copy, which is fresh.

        Raises:
            StoreError: it is not, or was closed.
        """
        since, copy = self._fresh
        if now() < since + self._staleness and self._pid == os.getpid():
            return copy
        raise self._refusal()

    @property
    def is_copying(self) -> bool:
        """Whether there is a copy, fresh or not: it may still be loaded, or the list be too large for one."""
        return self._fresh[1] is not UNKNOWING

    @property
    def freshness(self) -> Freshness:
        """How old the copy is, fresh or not."""
        return Freshness(now() - self._fresh[0], self._lag)

    def copy_since(self, moment: float) -> Copied | None:
        """The copy, if it is as the list was at that moment (`now()`) or later."""
        since, copy = self._fresh
        return copy if since >= moment and self._pid == os.getpid() else None

    def catch_up(self) -> float | None:
        """See base.Store.catch_up.

        Raises:
            StoreError: the list cannot be asked now.
        """
        if self._pid != os.getpid():
            raise self._refusal()
        if not self.is_copying:
            return None  # the thread makes one, and whoever asks meanwhile must not stand in its way
        is_whole = self._refresh()
        since, copy = self._fresh
        return since if is_whole and copy is not UNKNOWING else None

    def close(self) -> None:
        """End the thread. Again is a no-op."""
        self._is_closed.set()
        self._fresh = (0.0, UNKNOWING)
        self._close()
        if self._pid == os.getpid():
            self._thread.join(2 * _LONGEST)

    def _refusal(self) -> StoreError:
        if self._is_closed.is_set():
            return StoreError("The copy of the list was closed.")
        if self._pid != os.getpid():
            return StoreError("A copy of a list cannot be carried across fork(): open the list after it.")
        return StoreError(
            f"The copy of the list is {self.freshness.age:.1f} seconds old, and may be {self._staleness:g}"
            f" (REVOCATION_STALENESS_SECONDS). {self._reason or 'The list does not answer fast enough.'}"
        )

    def _load(self) -> None:
        latest = now() + _START_TIMEOUT
        # Until something answers, if only that the list is to be asked.
        while not self._refresh() and not self._fresh[0]:
            if now() > latest:
                raise StoreError("The list cannot be copied in a minute.")

    def _refresh(self) -> bool:
        if not self._stepping.acquire(timeout=_PATIENCE):
            raise StoreError("The list is being asked already, and does not answer.")
        try:
            began = now()  # whatever was done before this, the list tells
            self._asked = self._asked or began
            copy, is_whole = self._step()
            if copy is not None and not self._is_closed.is_set():
                self._fresh = (began, copy)
            if is_whole:
                self._lag, self._asked, self._reason = now() - self._asked, 0.0, ""
            return is_whole
        finally:
            self._stepping.release()

    def _work(self) -> None:
        failures = 0
        while not self._is_closed.is_set():
            try:
                if self._refresh():
                    self._wait(self._interval)
                    self._is_closed.wait(max(0.0, self._fresh[0] + self._rest - now()))
                else:
                    self._is_closed.wait(_BREATH)  # or nobody else would ever get the lock
                failures = 0
            except StoreError as error:
                reason, self._reason = self._reason, str(error)
                if reason != self._reason and not self._is_closed.is_set():
                    logger.error("The list cannot be followed: %s", error)  # noqa: TRY400 - no bug
                failures += 1
                self._is_closed.wait(self._pause(failures))
            except Exception:
                # A thread that ended would leave the copy to grow old, and nobody to say why.
                logger.exception("The list cannot be followed")
                self._is_closed.wait(_LONGEST)

    def _pause(self, failures: int) -> float:
        # Many that lost one server must not come back to it all at once.
        return float(min(_SHORTEST * 2 ** min(failures, 10), _LONGEST)) * random.uniform(0.5, 1)  # noqa: S311
