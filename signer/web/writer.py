"""Changes to the list, one after the other in a thread of their own: they wait for a disk."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from ..errors import StoreError

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds a change may wait for those before it; as long as one waits for another process.
WRITE_TIMEOUT: Final = 5.0


class Writer:
    """Runs changes while the event loop goes on."""

    def __init__(self) -> None:
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
            under_way = self._thread.submit(run)
        except RuntimeError:
            raise StoreError("The service ends.") from None
        try:
            return await asyncio.wrap_future(under_way)
        except asyncio.CancelledError:
            # The server ends. What has begun is finished and told; what waits is taken back, and told.
            if under_way.cancelled():
                raise StoreError("The service ends.") from None
            return await asyncio.to_thread(under_way.result)

    async def close(self) -> None:
        """Finish the change under way; those that wait behind it have not happened."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
