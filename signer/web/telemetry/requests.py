"""What is reported of each request after its answer: a line in the log, and its part in the metrics."""

import asyncio
import time
from typing import Final

from starlette.types import Scope

from .calls import CODE, Call
from .log import RequestLines
from .metrics import Metrics

#: Any other method is logged as OTHER, because it can be any text.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


class RequestLog:
    """Reports each request to the log and to the metrics. It names the template of the route and never the
    path, which may contain a token.

    Args:
        metrics: counts the requests; None if there are no metrics.
        lines: writes the lines; None if there is no log.
    """

    def __init__(self, metrics: Metrics | None, lines: RequestLines | None) -> None:
        self._metrics = metrics
        self._lines = lines
        #: The requests to report at the end of this round of the event loop.
        self._answered: list[tuple[float, Scope, int, float, Call]] = []

    def note(self, scope: Scope, status: int, seconds: float, call: Call) -> None:
        """A request was answered with `status`, or its client left (0), after so many seconds."""
        # All are reported in a row, which takes half as long, and after their answers are sent.
        if not self._answered:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._report)
        self._answered.append((time.time(), scope, status, seconds, call))

    def _report(self) -> None:
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
