"""The thread that keeps a full copy of a list fresh.

The copy answers while it is provably fresher than a bound: it contains everything that was done before the
list was last asked, and that was less than `staleness` seconds ago. Otherwise nothing is answered.
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
from ..forks import ForkGuard
from .full import NO_COPY, FullCopy

logger = logging.getLogger(__name__)

#: The longest and the shortest pause between two questions to the list, in seconds.
_LONGEST, _SHORTEST = 1.0, 0.02
#: Seconds between two steps.
_BREATH: Final = 0.001
#: Seconds that the first copy may take.
_START_TIMEOUT: Final = 60.0
#: Seconds that a caller waits while another one asks the list.
_PATIENCE: Final = 1.0
#: A clock that also counts while the machine sleeps, if there is one.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds of a clock that cannot be set."""
    return time.clock_gettime(_CLOCK)


class Progress(NamedTuple):
    """The result of one step towards a fresh copy."""

    #: What answers from now on: a complete copy, or NO_COPY. None: what answered until now goes on.
    copy: FullCopy | None
    #: Whether the step found nothing more to take in.
    is_whole: bool


class Refresher:
    """Keeps a full copy fresh.

    Args:
        step: takes in some of what changed.
        wait: returns when the list may have changed, and at the latest after the given seconds.
        staleness: the bound in seconds. With 0, only a copy will do that catch_up has just refreshed.
        let_go: releases what `step` and `wait` use, so that both end.

    Raises:
        StoreError: the list cannot be read now.
    """

    def __init__(
        self,
        step: Callable[[], Progress],
        wait: Callable[[float], None],
        staleness: float,
        let_go: Callable[[], None],
    ) -> None:
        self._step = step
        self._wait = wait
        self._staleness = staleness
        self._let_go = let_go
        # Without a bound, the copy catches up when it is needed; here it must only not fall far behind.
        self._interval = min(max(staleness / 4, _SHORTEST), _LONGEST) if staleness else _LONGEST
        #: If the list changes all the time, hundreds of copies must leave the engine time for other callers.
        self._rest = min(staleness / 20, _LONGEST / 4) if staleness else _LONGEST / 4
        #: Only one thread takes a step at a time.
        self._stepping = threading.Lock()
        #: When the copy was equal to the list, and the copy. One tuple, because other threads read both.
        self._fresh: tuple[float, FullCopy] = (0.0, NO_COPY)
        self._lag = 0.0
        #: Why the copy is not fresh.
        self._reason = ""
        #: When it began to take in what had changed; 0 when it is done with that.
        self._asked = 0.0
        self._is_closed = threading.Event()
        self._guard = ForkGuard()
        self._load()
        self._thread = threading.Thread(target=self._work, name="signer-copy", daemon=True)
        self._thread.start()

    @property
    def copy(self) -> FullCopy:
        """The copy, which is fresh.

        Raises:
            StoreError: it is not fresh, or was closed.
        """
        since, copy = self._fresh
        if now() < since + self._staleness and self._guard.pid == os.getpid():
            return copy
        raise self._refusal()

    def copy_if_any(self) -> FullCopy | None:
        """The copy, which is fresh; None if there is no copy at all.

        Raises:
            StoreError: it is not fresh.
        """
        since, copy = self._fresh
        if copy is NO_COPY:
            return None
        # Not by `copy`: this is on the path of every validation.
        if now() < since + self._staleness and self._guard.pid == os.getpid():
            return copy
        raise self._refusal()

    @property
    def is_copying(self) -> bool:
        """Whether there is a copy, fresh or not. There is none while it is loaded, or if the list is too
        large."""
        return self._fresh[1] is not NO_COPY

    @property
    def freshness(self) -> Freshness:
        """How old the copy is, fresh or not."""
        return Freshness(now() - self._fresh[0], self._lag)

    def copy_since(self, moment: float) -> FullCopy | None:
        """The copy, if it was equal to the list at that moment (`now()`) or later."""
        since, copy = self._fresh
        return copy if since >= moment and self._guard.pid == os.getpid() else None

    def catch_up(self) -> float | None:
        """See contract.View.catch_up.

        Raises:
            StoreError: the list cannot be asked now.
        """
        if self._guard.is_child:
            raise self._refusal()
        if not self.is_copying:
            return None  # the thread is making a copy, and callers must not keep it from its work
        is_whole = self._refresh()
        since, copy = self._fresh
        return since if is_whole and copy is not NO_COPY else None

    def close(self) -> None:
        """End the thread, and release what it uses. Repeating it changes nothing."""
        self._is_closed.set()
        self._fresh = (0.0, NO_COPY)
        self._let_go()
        if not self._guard.is_child:
            self._thread.join(2 * _LONGEST)

    def _refusal(self) -> StoreError:
        if self._is_closed.is_set():
            return StoreError("The copy of the list was closed.")
        if self._guard.is_child:
            return self._guard.refusal()
        return StoreError(
            f"The copy of the list is {self.freshness.age:.1f} seconds old, and may be {self._staleness:g}"
            f" (REVOCATION_STALENESS_SECONDS). {self._reason or 'The list does not answer fast enough.'}"
        )

    def _load(self) -> None:
        latest = now() + _START_TIMEOUT
        # Until there is an answer, even if it is only that the list itself must be asked.
        while not self._refresh() and not self._fresh[0]:
            if now() > latest:
                raise StoreError("The list cannot be copied in a minute.")

    def _refresh(self) -> bool:
        if not self._stepping.acquire(timeout=_PATIENCE):
            raise StoreError("The list is being asked already, and does not answer.")
        try:
            began = now()  # the list reports everything that was done before this
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
                    self._is_closed.wait(_BREATH)  # or no other thread would ever get the lock
                failures = 0
            except StoreError as error:
                self._report(error)
                failures += 1
                self._is_closed.wait(self._pause(failures))
            except Exception:
                # If the thread ended, the copy would grow old, and nothing would say why.
                logger.exception("The list cannot be followed")
                self._is_closed.wait(_LONGEST)

    def _report(self, error: StoreError) -> None:
        reason, self._reason = self._reason, str(error)
        if reason != self._reason and not self._is_closed.is_set():
            logger.error("The list cannot be followed: %s", error)

    def _pause(self, failures: int) -> float:
        # Many processes that lost one server must not come back to it at the same time.
        return float(min(_SHORTEST * 2 ** min(failures, 10), _LONGEST)) * random.uniform(0.5, 1)  # noqa: S311
