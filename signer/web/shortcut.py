"""GET /app/valid/{token} without an application around it: it is asked most, by anybody, needs no body, and
has two answers."""

from typing import Final

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from ..errors import SystemUnavailable, TokenError
from ..signer import Signer
from .answers import Answer, Done
from .problems import unavailable
from .protocol import QUICK

VALID: Final = Answer(Done())
INVALID: Final = Answer(Done(status=False))


class Shortcut:
    """Answers just as API.is_valid does.

    Args:
        signer: validates.
        route: the route that this stands for, in log and metrics.
    """

    def __init__(self, signer: Signer, route: Route) -> None:
        self._signer = signer
        self._route = route

    def takes(self, scope: Scope) -> bool:
        """Whether it is for this to answer."""
        return bool(scope["method"] == "GET" and scope["path"].startswith(QUICK) and not scope["root_path"])

    def __call__(self, scope: Scope) -> Response:
        """The answer."""
        scope["route"] = self._route
        try:
            self._signer.introspect(scope["path"][len(QUICK) :])
        except TokenError:
            return INVALID
        except SystemUnavailable as error:
            return unavailable(HTTPRequest(scope), error)
        return VALID
