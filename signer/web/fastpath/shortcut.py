"""The most frequent requests, answered without an asyncio task: GET /app/valid/{token}, and POST /app/token
where issuing does not have to wait."""

import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.types import Scope

from ...aio.lookups import Lookups
from ..connections.plain import TOKEN
from ..messages.bodies import WHOLE
from ..telemetry.calls import CODE
from .dispatch import Dispatch

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Shortcut:
    """Gives the same answers as Dispatch, but runs an endpoint to its end in one step.

    Args:
        dispatch: finds the endpoint.
        lookups: knows whether a validation has to wait; the application then answers every request.
        issues_wait: whether issuing a token has to wait; the application then answers those requests.
    """

    def __init__(self, dispatch: Dispatch, lookups: Lookups[Any], *, issues_wait: bool) -> None:
        self._lookups = lookups
        self._dispatch = dispatch
        self._issues_wait = issues_wait

    def takes(self, scope: Scope) -> bool:
        """Whether this request can be answered here."""
        if (
            scope["root_path"]
            or not self._lookups.are_prompt
            or (self._issues_wait and scope["path"] == TOKEN)
        ):
            return False
        found = self._dispatch.found(scope)
        if found is None:
            return False
        scope["route"], scope["path_params"] = found
        return True

    def __call__(self, scope: Scope, body: bytes) -> Response | None:
        """The answer to a request that `takes` accepted, with its whole body. None if it has to wait after
        all, because the copy of the revocation list was lost in the meantime."""
        scope[WHOLE] = body
        response, error = at_once(self._dispatch.answer(HTTPRequest(scope))) or (None, None)
        if error:
            logger.error("An endpoint failed", exc_info=error)
        scope[CODE] = getattr(response, "code", "")
        return response


def at_once(running: Coroutine[Any, Any, T]) -> T | None:
    """The result of a coroutine that does not wait. If it does wait, it is closed there, and this is None."""
    try:
        running.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    running.close()
    return None
