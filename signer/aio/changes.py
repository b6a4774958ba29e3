"""Changes to the list, made in a thread of their own, because they wait for a disk. Those that arrive
meanwhile are made together next, so that many take hardly longer than one."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from ..errors import StoreError
from ..policy import MOST_TOGETHER, WRITE_TIMEOUT
from ..signer import Signer

P = ParamSpec("P")
R = TypeVar("R")

_TO_BEGIN: Final = WRITE_TIMEOUT - 1
_QUEUED: Final = "Changes queue up for longer than a caller waits."


class _Change:
    __slots__ = ("context", "error", "future", "latest", "loop", "make", "result")

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        # The caller's, so that hooks see where the call comes from.
        self.context: Context = copy_context()
        self.latest = time.monotonic() + _TO_BEGIN
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            if time.monotonic() > self.latest:
                raise StoreError(_QUEUED)
            self.result = self.context.run(self.make)
        except BaseException as error:  # noqa: BLE001 - it is raised where the change is awaited
            self.error = error

    def report(self) -> None:
        if self.future.done():  # no caller waits any more
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Writer:
    """Makes changes while the event loop goes on.

    Args:
        signer: its list is changed.
        waits: is called with 1 when one more change waits, and with -1 or less when fewer do.
        issues_wait: issuing waits, too: for the list, or for the disk or the reader of the audit trail.
        together: the list can make changes together; otherwise each one is reported as soon as it is made.
    """

    def __init__(
        self, signer: Signer, waits: Callable[[int], None], *, issues_wait: bool, together: bool = True
    ) -> None:
        self._signer = signer
        self._most = MOST_TOGETHER if together else 1
        self._waits = waits
        self._issues_wait = issues_wait
        self._changes: deque[_Change] = deque()
        self._is_closed = False
        self._arrived = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="signer-list", daemon=True)

    async def run(self, change: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `change` returns or raises.

        Raises:
            StoreError: it waited too long, or the service ends, and then the change was not made. Or the
                list, the audit trail or their disk hangs in it, and then it may still be made.
        """
        made = _Change(partial(change, *args, **kwargs))
        self._put(made)
        self._waits(1)
        timer = made.loop.call_later(WRITE_TIMEOUT, self._give_up, made)
        try:
            result: R = await made.future
        except asyncio.CancelledError:
            # The server ends. A change that has begun is finished and reported; one that waits is withdrawn,
            # and its caller learns that.
            if self._is_withdrawn(made):
                raise StoreError("The service ends.") from None
            made.future = made.loop.create_future()
            result = await made.future
        finally:
            timer.cancel()
        return result

    async def issue(self, issue: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `issue` returns or raises; called at once if it waits for nothing.

        Raises:
            As run.
        """
        if self._issues_wait:
            return await self.run(issue, *args, **kwargs)
        return issue(*args, **kwargs)

    async def close(self) -> None:
        """Finish the changes under way. Those that wait behind them are not made."""
        with self._arrived:
            self._is_closed = True
            waiting = list(self._changes)
            self._changes.clear()
            self._arrived.notify()
        for change in waiting:
            change.error = StoreError("The service ends.")
        self._report(waiting)
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, WRITE_TIMEOUT)

    def _put(self, change: _Change) -> None:
        with self._arrived:
            if self._is_closed:
                raise StoreError("The service ends.")
            if self._thread.ident is None:
                self._thread.start()
            self._changes.append(change)
            self._arrived.notify()

    def _give_up(self, change: _Change) -> None:
        if self._is_withdrawn(change):
            change.error = StoreError(_QUEUED)
        else:
            change.error = StoreError("A change hangs: the list, the audit trail or the disk under them.")
        change.report()

    def _is_withdrawn(self, change: _Change) -> bool:
        with self._arrived:
            if change not in self._changes:
                return False
            self._changes.remove(change)
        self._waits(-1)
        return True

    def _work(self) -> None:
        while changes := self._taken():
            try:
                with self._signer.together():
                    for change in changes:
                        change.run()
            except Exception as error:  # noqa: BLE001 - or their callers would wait for ever
                for change in changes:
                    change.error = error
            changes[0].loop.call_soon_threadsafe(self._report, changes)

    def _taken(self) -> list[_Change]:
        with self._arrived:
            while not self._changes and not self._is_closed:
                self._arrived.wait()
            return [self._changes.popleft() for _ in range(min(len(self._changes), self._most))]

    def _report(self, changes: list[_Change]) -> None:
        self._waits(-len(changes))
        for change in changes:
            change.report()
