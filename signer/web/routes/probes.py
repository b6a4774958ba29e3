"""Routes about the service itself: health and metrics, and the feed of the revocation list."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ...aio.lookups import Lookups, in_time
from ...errors import SystemUnavailable
from ...policy import READINESS
from ...signer import Signer
from ...stores.copies.feed import FeedPart
from ..access.callers import Guard
from ..messages.answers import Answer, Health
from ..messages.problems import problem

_NO_METRICS: Final = (
    "METRICS is false, or this is one of several workers and has only its own metrics: start them with"
    " python app.py, or set PROMETHEUS_MULTIPROC_DIR to an empty folder for all of them."
)


class Probes:
    """The handlers of these routes.

    Args:
        signer: is asked whether its clock and its revocation list work.
        guard: says who calls.
        lookups: runs calls that may have to wait for a network.
        feed: gives the part of the list after a cursor, and says whether it follows a moment.
        exposition: gives the metrics' text and media type for a header `Accept`; None if there are none.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        guard: Guard,
        lookups: Lookups[Signer],
        feed: Callable[[str, str], FeedPart],
        exposition: Callable[[str], tuple[bytes, str]] | None,
    ) -> None:
        self._signer = signer
        self._guard = guard
        self._lookups = lookups
        self._feed = feed
        self._exposition = exposition
        self._check: asyncio.Future[SystemUnavailable | None] | None = None
        self._checked_at = 0.0

    async def revocations(self, request: HTTPRequest) -> Response:
        """GET /app/revocations: the revocation list, for readers that keep a copy."""
        await self._guard.admit(request.scope, frozenset({"revocations:read"}))
        since, seen = (request.query_params.get(name, "") for name in ("since", "seen"))
        return Answer(await self._lookups.elsewhere(self._feed, since, seen))

    async def healthz(self, request: HTTPRequest) -> Response:
        """GET /healthz: the process answers."""
        return Answer(Health())

    async def readyz(self, request: HTTPRequest) -> Response:
        """GET /readyz: the clock and the revocation list work, or did less than a second ago."""
        # A check reads the whole list and writes to it, and anybody can call: so there is one at a time, and
        # one in a second.
        if self._check is None or (self._check.done() and time.monotonic() > self._checked_at + READINESS):
            self._check = asyncio.ensure_future(self._unreadiness())
        check = self._check
        if error := check.result() if check.done() else await in_time(check):
            raise error.with_traceback(None)  # each answer would make it longer
        return Answer(Health())

    async def _unreadiness(self) -> SystemUnavailable | None:
        try:
            await asyncio.to_thread(self._signer.ping)
        except SystemUnavailable as error:
            return error
        finally:
            self._checked_at = time.monotonic()
        return None

    async def metrics(self, request: HTTPRequest) -> Response:
        """GET /metrics"""
        await self._guard.admit(request.scope, frozenset({"metrics:read"}))
        if self._exposition is None:
            return problem(503, "metrics_unavailable", _NO_METRICS)
        asked = asyncio.to_thread(self._exposition, request.headers.get("accept", ""))
        text, media_type = await in_time(asyncio.ensure_future(asked))
        return Response(text, headers={"content-type": media_type, "cache-control": "no-store"})
