"""The pages that show the API's description: Swagger UI at /docs, to try it, and ReDoc at /redoc, to read it.

A credential is pasted into /docs, so the pages run no script and ask no host but this service's own, and
their policy keeps it so. Their URLs are relative: a proxy may put a prefix before the path.
"""

import html
from collections.abc import AsyncIterator
from functools import lru_cache
from hashlib import sha256
from mimetypes import guess_type
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import NotModifiedResponse

_STATIC: Final = Path(__file__).parent / "static"
#: What a file holds, and its headers.
File = tuple[bytes, dict[str, str]]
#: Bytes of a file that are sent at once.
_PART: Final = 64 * 1024
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" type="image/png" href="static/swagger-ui/favicon-32x32.png">
<link rel="stylesheet" href="static/{name}.css">
</head>
<body>
<nav><a href="guide">Guide</a> <a href="docs">Try the API</a> <a href="redoc">API reference</a></nav>
<div id="page"></div>
<noscript>This page needs JavaScript to show <a href="openapi.json">openapi.json</a>.</noscript>
<script src="static/{library}"></script>
<script src="static/{name}.js"></script>
</body>
</html>
"""
#: Pictures in both libraries are data: URLs.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; "
)
_DOCS: Final = "style-src 'self'"
#: ReDoc makes two style elements, an empty one, whose rules a script adds, and one for scroll bars; and its
#: search runs in a worker made from a part of its own script.
_REDOC: Final = (
    "style-src 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    " 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='; worker-src blob:"
)


def docs_routes(title: str) -> list[BaseRoute]:
    """/docs, /redoc and what they load, for the document at /openapi.json."""
    docs = _page("docs", title, "swagger-ui/swagger-ui-bundle.js", _DOCS)
    redoc = _page("redoc", title, "redoc/redoc.standalone.js", _REDOC)
    return [
        Route("/docs", docs, methods=["GET"]),
        Route("/redoc", redoc, methods=["GET"]),
        Route("/static/{path:text}", _Files().answer, methods=["GET"]),
    ]


def _page(name: str, title: str, library: str, policy: str) -> Response:
    # The same for everybody, so made once: a response is an ASGI application.
    headers = {
        "cache-control": "no-store",
        "content-security-policy": _POLICY + policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
    return HTMLResponse(_PAGE.format(name=name, title=html.escape(title), library=library), headers=headers)


@lru_cache
def _file(path: str) -> File:
    content = (_STATIC / path).read_bytes()
    return content, headers_of(content, guess_type(path)[0] or "text/plain")


def headers_of(content: bytes, media_type: str) -> dict[str, str]:
    """Those of a file that is the same for everybody. Browsers keep it, and ask each time whether it has
    changed."""
    return {
        "content-type": media_type,
        "content-length": str(len(content)),
        "etag": f'"{sha256(content).hexdigest()}"',
        "cache-control": "no-cache",
        "x-content-type-options": "nosniff",
    }


def sent(request: HTTPRequest, content: bytes, headers: dict[str, str]) -> Response:
    """A file with the headers that headers_of made, unless the client has it already."""
    if headers["etag"] in request.headers.get("if-none-match", ""):
        return NotModifiedResponse(Headers(headers))
    return StreamingResponse(_parts(content), headers=headers)


class _Files:
    """Those there were at the start. Any other path is the caller's text, and is looked for nowhere. They are
    kept in memory: a file that is open for each download that nobody reads would leave no descriptors."""

    def __init__(self) -> None:
        self._paths = {str(path.relative_to(_STATIC)) for path in _STATIC.rglob("*") if path.is_file()}

    async def answer(self, request: HTTPRequest) -> Response:
        """GET /static/{path}"""
        path = request.path_params["path"]
        if path not in self._paths:
            raise HTTPException(404)
        return sent(request, *_file(path))


async def _parts(content: bytes) -> AsyncIterator[bytes]:
    # Each waits until the client has taken those before it.
    for start in range(0, len(content), _PART):
        yield content[start : start + _PART]
