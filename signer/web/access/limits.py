"""RATE_LIMIT: how often one caller can make expensive calls. The library `limits` counts them.

Each worker counts by itself, so N workers allow up to N times as many calls. With RATE_LIMIT_STORAGE, all
workers and machines count together on a Redis server.
"""

import math
import time
from typing import Any, Final

from ...errors import ConfigurationError, RateLimited, StoreError
from ..telemetry.calls import current, network

#: The kinds of calls; each has its own count.
ISSUE: Final = "issue"
VERIFY_CODE: Final = "verify_code"
#: Credentials that were refused.
FAILED: Final = "credential"
#: Seconds that a counter on a Redis server can take.
_TIMEOUT: Final = 1


class Limits:
    """Counts calls, and refuses those above the limit.

    Args:
        rate: the limit in the notation of the library, such as "100/minute"; "" for none.
        storage_url: the engine that counts: "redis://…" if machines share it; "" for this process alone.

    Raises:
        ConfigurationError: the library or its driver is not installed, or the URL is wrong.
    """

    def __init__(self, rate: str, storage_url: str = "") -> None:
        self._is_on = bool(rate)
        if not rate:
            return
        try:
            from limits import parse_many
            from limits.aio.strategies import FixedWindowRateLimiter
            from limits.errors import ConfigurationError as Missing
            from limits.errors import StorageError
            from limits.storage import storage_from_string

            from .counters import Counters
        except ImportError:
            raise ConfigurationError("RATE_LIMIT needs: pip install 'signer-tokens[limits]'") from None
        shared = {"socket_timeout": _TIMEOUT, "socket_connect_timeout": _TIMEOUT}
        try:
            storage: Any = Counters()
            if storage_url:
                storage = storage_from_string(
                    "async+" + storage_url, implementation="redispy", wrap_exceptions=True, **shared
                )
        except (Missing, ValueError):
            # The library's own messages contain the URL, which may contain a password.
            raise ConfigurationError(
                "RATE_LIMIT_STORAGE must be the URL of a Redis server, such as redis://127.0.0.1:6379/0; and"
                " it needs: pip install redis"
            ) from None
        self._error = StorageError
        self._limiter = FixedWindowRateLimiter(storage)
        self._items = parse_many(rate)

    async def count(self, what: str, cost: int = 1) -> None:
        """Count `cost` calls of the current caller: a client by its id, any other caller by its network
        address. The answer's headers will say how many are left (draft-ietf-httpapi-ratelimit-headers-11).

        Args:
            what: the kind of calls.
            cost: how many calls this one counts as.

        Raises:
            RateLimited: the caller is above the limit.
            StoreError: the engine cannot count now.
        """
        if not self._is_on:
            return
        call = current()
        # Wrong credentials in a client's name may be attempts of a stranger: they count for the address.
        is_known = call.actor is not None and what != FAILED
        who = f"client:{call.actor}" if is_known else f"network:{network(call.address)}"
        try:
            refused = [
                item for item in self._items if not await self._limiter.hit(item, what, who, cost=cost)
            ]
            windows = [await self._limiter.get_window_stats(item, what, who) for item in self._items]
        except self._error as error:
            raise StoreError(f"Calls cannot be counted: {error.storage_error}.") from error
        resets = [max(1, math.ceil(window.reset_time - time.time())) for window in windows]
        counts = [
            (f'"{what}/{item.get_expiry()}"', item, window.remaining, reset)
            for item, window, reset in zip(self._items, windows, resets, strict=True)
        ]
        policy = ", ".join(f"{name};q={item.amount};w={item.get_expiry()}" for name, item, _, _ in counts)
        left = ", ".join(f"{name};r={remaining};t={reset}" for name, _, remaining, reset in counts)
        call.headers += (b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode())
        if refused:
            raise RateLimited(max(resets[self._items.index(item)] for item in refused))

    async def close(self) -> None:
        """Close the connections of the counter."""
        bridge = getattr(self._limiter.storage, "bridge", None) if self._is_on else None
        if bridge is not None:
            await bridge.storage.aclose()
