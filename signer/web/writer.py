"""Changes to the list, one after the other in a thread of their own: they wait for a disk."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Final, ParamSpec, TypeVar

from ..errors import StoreError

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds a change may wait for those before it; as long as one waits for another process.
WRITE_TIMEOUT: Final = 5.0


class Writer:
    """Runs changes while the event loop goes on.

    Args:
        waits: is told of one more change that waits (1), and of one less (-1).
        issues_wait: issuing waits, too: for the disk, or the reader, of the audit trail.
    """

    def __init__(self, waits: Callable[[int], None], *, issues_wait: bool) -> None:
        self._waits = waits
        self._issues_wait = issues_wait
        self._thread = ThreadPoolExecutor(1, "signer-list")

    async def run(self, change: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `change` returns or raises.

        Raises:
            StoreError: it waited too long, or the service ends; it has not happened then.
        """
        latest = time.monotonic() + WRITE_TIMEOUT

        def run() -> R:
            if time.monotonic() > latest:
                raise StoreError("Changes queue up for longer than a caller waits.")
            return change(*args, **kwargs)

        try:
            # With the call's context, so that hooks see where it comes from.
            under_way = self._thread.submit(copy_context().run, run)
        except RuntimeError:
            raise StoreError("The service ends.") from None
        self._waits(1)
        under_way.add_done_callback(lambda _: self._waits(-1))
        try:
            return await asyncio.wrap_future(under_way)
        except asyncio.CancelledError:
            # The server ends. What has begun is finished and told; what waits is taken back, and told.
            if under_way.cancelled():
                raise StoreError("The service ends.") from None
            return await asyncio.to_thread(under_way.result)

    async def issue(self, issue: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What `issue` returns or raises; at once where it waits for nothing.

        Raises:
            As run.
        """
        if self._issues_wait:
            return await self.run(issue, *args, **kwargs)
        return issue(*args, **kwargs)

    async def close(self) -> None:
        """Finish the change under way; those that wait behind it have not happened."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
