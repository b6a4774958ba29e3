"""Which pages of other origins can read the answers of the API (CORS)."""

from collections.abc import Collection
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

#: The paths that pages of other origins can be allowed to read.
_SHARED: Final = ("/app/", "/oauth/", "/.well-known/", "/openapi.json")


class CORS:
    """Lets pages of other origins read the answers of the API (Fetch standard, CORS protocol).

    It never does so at /auth. A gateway forwards the preflight request of a browser there, which is about the
    application behind the gateway. To allow it would let that request pass without a token.

    Args:
        app: the application that answers.
        origins: the origins of the pages, exactly as a browser writes them.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self.app = app
        self._shared = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("Authorization", "X-Request-ID"),
            expose_headers=(
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "WWW-Authenticate",
                "X-Request-ID",
            ),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_shared = scope["type"] == "http" and _is_shared(_path(scope))
        await (self._shared if is_shared else self.app)(scope, receive, send)


def _is_shared(path: str) -> bool:
    # A proxy in front of the service may resolve "/app/../auth" to another path.
    return path.startswith(_SHARED) and ".." not in path and "//" not in path


def _path(scope: Scope) -> str:
    # Without the prefix that a proxy has removed.
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))
