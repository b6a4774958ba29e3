"""From a path to its endpoint, for the requests that come by the thousand."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

#: Of routes that take any; the rare ones Starlette finds.
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
Handler = Callable[[HTTPRequest, Exception], Awaitable[Response]]


class Dispatch:
    """Calls a route's endpoint where the path is its own, or ends in its one parameter. All else goes to
    Starlette's application, which would find the same: it tries one pattern after the other and wraps each
    request twice, which takes longer than most of them do.

    Args:
        app: Starlette's application.
        routes: those that it has; of the same path the first counts.
        handlers: what answers for an endpoint that raises; the first class that fits counts. Its exception is
            raised again where that class is Exception, as Starlette does: for the server to log.
    """

    def __init__(
        self, app: ASGIApp, routes: Iterable[Route], handlers: Mapping[type[Exception], Handler]
    ) -> None:
        self.app = app
        self._handlers = handlers
        #: By method, and the path or what of it stands before its parameter.
        self._routes: dict[tuple[str, str], tuple[Route, str]] = {}
        for route in routes:
            place, _, parameter = route.path_format.rstrip("}").partition("{")
            for method in route.methods or _METHODS:
                self._routes.setdefault((method, place), (route, parameter))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self.found(scope) if scope["type"] == "http" and not scope.get("root_path") else None
        if found is None:
            await self.app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = found
        response, error = await self.answer(HTTPRequest(scope, receive, send))
        await response(scope, receive, send)
        if error:
            raise error

    async def answer(self, request: HTTPRequest) -> tuple[Response, Exception | None]:
        """What the endpoint of its route answers; and the error that is for the server to log."""
        route: Route = request.scope["route"]
        try:
            # An endpoint for any method is an object, as Starlette wants it to be.
            endpoint: Any = route.endpoint
            response: Response = await (endpoint if route.methods else endpoint.answer)(request)
        except Exception as error:  # noqa: BLE001 - each has its answer
            kind = next(kind for kind in self._handlers if isinstance(error, kind))
            return await self._handlers[kind](request, error), error if kind is Exception else None
        return response, None

    def found(self, scope: Scope) -> tuple[Route, dict[str, Any]] | None:
        """The route that answers, and its parameters; None where Starlette is to find it."""
        method, path = scope["method"], scope["path"]
        found = self._routes.get((method, path))
        if found and not found[1]:
            return found[0], {}
        end = path.rfind("/") + 1
        found = self._routes.get((method, path[:end]))
        return (found[0], {found[1]: path[end:]}) if found and found[1] else None
