"""How often one caller may do what costs others something: RATE_LIMIT, counted by the library `limits`.

Each worker counts for itself, so that N workers let up to N times as much pass; on one Redis server all
workers and machines count together.
"""

import math
import time
from typing import Any, Final

from ...errors import ConfigurationError, RateLimited, StoreError
from ..telemetry.calls import current, network

#: What is counted, each for itself.
ISSUE: Final = "issue"
VERIFY_CODE: Final = "verify_code"
#: Credentials that are refused.
FAILED: Final = "credential"
#: Seconds that a shared counter may take.
_TIMEOUT: Final = 1


class Limits:
    """Counts calls, and refuses those that are too many.

    Args:
        rate: in the notation of the library, such as "100/minute"; "" for no limit.
        storage_url: of the engine that counts: "redis://…" for one that many machines share; "" for this
            process alone.

    Raises:
        ConfigurationError: the library, or its driver, is not installed.
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
            # Whose messages hold the URL, and it may hold a password.
            raise ConfigurationError(
                "RATE_LIMIT_STORAGE must be the URL of a Redis server, such as redis://127.0.0.1:6379/0; and"
                " it needs: pip install redis"
            ) from None
        self._error = StorageError
        self._limiter = FixedWindowRateLimiter(storage)
        self._items = parse_many(rate)

    async def count(self, what: str, cost: int = 1) -> None:
        """Count `cost` calls of the current caller: a client by its id, anybody else by address. The answer
        will tell what is left (draft-ietf-httpapi-ratelimit-headers-11).

        Raises:
            RateLimited: that is more than the limit.
            StoreError: the engine cannot count.
        """
        if not self._is_on:
            return
        call = current()
        # A client's failed credentials may be somebody else's attempts: they count for the address.
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
        told = [
            (f'"{what}/{item.get_expiry()}"', item, window.remaining, reset)
            for item, window, reset in zip(self._items, windows, resets, strict=True)
        ]
        policy = ", ".join(f"{name};q={item.amount};w={item.get_expiry()}" for name, item, _, _ in told)
        left = ", ".join(f"{name};r={remaining};t={reset}" for name, _, remaining, reset in told)
        call.headers += (b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode())
        if refused:
            raise RateLimited(max(resets[self._items.index(item)] for item in refused))

    async def close(self) -> None:
        """Let go of connections."""
        bridge = getattr(self._limiter.storage, "bridge", None) if self._is_on else None
        if bridge is not None:
            await bridge.storage.aclose()
