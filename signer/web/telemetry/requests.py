"""What is told of each request once it is answered: a line in the log, and its part in the metrics."""

import asyncio
import time
from typing import Final

from starlette.types import Scope

from .calls import CODE, Call
from .log import RequestLines
from .metrics import Metrics

#: Any other method is logged as OTHER: it is the caller's text.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class RequestLog:
    """One line a request, and its part in the metrics. The route's template stands there, never the path,
    which may hold a token.

    Args:
        metrics, lines: None for none.
    """

    def __init__(self, metrics: Metrics | None, lines: RequestLines | None) -> None:
        self._metrics = metrics
        self._lines = lines
        #: What is to be told at the end of this round of the event loop.
        self._answered: list[tuple[float, Scope, int, float, Call]] = []

    def note(self, scope: Scope, status: int, seconds: float, call: Call) -> None:
        """A request was answered with `status`, or its caller left (0), after so many seconds."""
        # Reported in a row, which takes half as long; and after the answers are sent, which happens next.
        if not self._answered:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._tell)
        self._answered.append((time.time(), scope, status, seconds, call))

    def _tell(self) -> None:
        answered, self._answered = self._answered, []
        for now, scope, status, seconds, call in answered:
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            route = scope.get("route")
            template = route.path_format if route else "-"
            code = scope.get(CODE, "")
            if self._metrics:
                self._metrics.request(method, template, status, seconds, code)
            if self._lines:
                self._lines.add(
                    now,
                    method,
                    template,
                    status,
                    seconds * 1000,
                    code or "-",
                    call.actor or "-",
                    call.address or "-",
                    str(call.request_id),
                )
        if self._lines:
            self._lines.write()
