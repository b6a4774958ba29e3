"""What is asked most, without a task: GET /app/valid/{token}, and POST /app/token where issuing waits for
nothing."""

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
    """Answers as Dispatch does, whose endpoints it runs to their end at once.

    Args:
        dispatch: finds the endpoint.
        lookups: tells whether validating waits for something; then all is left to the application.
        issues_wait: issuing does; that is left to the application then.
    """

    def __init__(self, dispatch: Dispatch, lookups: Lookups[Any], *, issues_wait: bool) -> None:
        self._lookups = lookups
        self._dispatch = dispatch
        self._issues_wait = issues_wait

    def takes(self, scope: Scope) -> bool:
        """Whether it is for this to answer."""
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
        """The answer to a request that it takes, whose whole body this is; None where it does take longer: a
        copy of the list may have gone since it was taken."""
        scope[WHOLE] = body
        response, error = at_once(self._dispatch.answer(HTTPRequest(scope))) or (None, None)
        if error:
            logger.error("An endpoint failed", exc_info=error)
        scope[CODE] = getattr(response, "code", "")
        return response


def at_once(running: Coroutine[Any, Any, T]) -> T | None:
    """What a coroutine returns that waits for nothing; None where it does wait, and it ends there."""
    try:
        running.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    running.close()
    return None
