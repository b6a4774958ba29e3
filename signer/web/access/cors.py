"""Which pages of other origins may read what the API answers."""

from collections.abc import Collection
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

#: What pages of other origins may be allowed to read.
_SHARED: Final = ("/app/", "/oauth/", "/.well-known/", "/openapi.json")


class CORS:
    """Lets pages of other origins read what the API answers (Fetch standard, CORS protocol).

    Never at /auth: a gateway sends the browser's question about the application there, and to say yes would
    let that pass without a token.

    Args:
        origins: of the pages, exactly as a browser writes them.
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
    # Somebody before us may read "/app/../auth" as another path.
    return path.startswith(_SHARED) and ".." not in path and "//" not in path


def _path(scope: Scope) -> str:
    # Without the prefix that a proxy took away.
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))
