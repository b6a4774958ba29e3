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
        found = self._found(scope) if scope["type"] == "http" and not scope.get("root_path") else None
        if found is None:
            await self.app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = route, _ = found
        request = HTTPRequest(scope, receive, send)
        try:
            if route.methods is None:  # an ASGI application
                await route.app(scope, receive, send)
                return
            response = await route.endpoint(request)
        except Exception as error:
            kind = next(kind for kind in self._handlers if isinstance(error, kind))
            response = await self._handlers[kind](request, error)
            if kind is Exception:
                await response(scope, receive, send)
                raise
        await response(scope, receive, send)

    def _found(self, scope: Scope) -> tuple[Route, dict[str, Any]] | None:
        method, path = scope["method"], scope["path"]
        found = self._routes.get((method, path))
        if found and not found[1]:
            return found[0], {}
        end = path.rfind("/") + 1
        found = self._routes.get((method, path[:end]))
        return (found[0], {found[1]: path[end:]}) if found and found[1] else None
