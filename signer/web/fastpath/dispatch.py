"""The way from a path to its endpoint, for frequent requests."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

#: The methods of a route that answers any. Starlette's router finds it for the rare ones.
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ErrorHandler = Callable[[HTTPRequest, Exception], Awaitable[Response]]


class Dispatch:
    """Calls a route's endpoint if the path is exactly the route's, or ends in its one parameter. Starlette's
    application answers everything else. It would find the same endpoint, but it tries one pattern after the
    other and wraps each request twice, which takes longer than most requests themselves.

    Args:
        app: Starlette's application.
        routes: the routes of that application; if two have the same path, the first one counts.
        handlers: make an answer of what an endpoint raises; the first class that fits counts. If that is
            Exception, the error is raised again after the answer, so that the server logs it. Starlette does
            the same.
    """

    def __init__(
        self, app: ASGIApp, routes: Iterable[Route], handlers: Mapping[type[Exception], ErrorHandler]
    ) -> None:
        self.app = app
        self._handlers = handlers
        #: By method, and by the path up to its parameter.
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
        """The answer of the route's endpoint, and the error that the server should log, if there is one."""
        route: Route = request.scope["route"]
        try:
            # The endpoint of a route for any method is an object, because Starlette requires that.
            endpoint: Any = route.endpoint
            response: Response = await (endpoint if route.methods else endpoint.answer)(request)
        except Exception as error:  # noqa: BLE001 - every error has an answer
            kind = next(kind for kind in self._handlers if isinstance(error, kind))
            return await self._handlers[kind](request, error), error if kind is Exception else None
        return response, None

    def found(self, scope: Scope) -> tuple[Route, dict[str, Any]] | None:
        """The route, and the parameters in the path; None if Starlette has to find it."""
        method, path = scope["method"], scope["path"]
        found = self._routes.get((method, path))
        if found and not found[1]:
            return found[0], {}
        end = path.rfind("/") + 1
        found = self._routes.get((method, path[:end]))
        return (found[0], {found[1]: path[end:]}) if found and found[1] else None
