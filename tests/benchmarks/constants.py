"""Servers for comparison, which always give the same answer. `python -m benchmarks.constants` serves the
first one, with the service's event loop, parser and server settings; if OWN_PROTOCOL is set, with its
protocol, too."""

import os
import sys
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from uvicorn.supervisors import Multiprocess

from signer.web.server.run import configured, settle

#: As long as an answer of the service.
_TOKEN: Final = f"sgt_{'x' * 240}"
_BODY: Final = b'{"status_code":200,"status":true}'


async def _valid(request: Request) -> JSONResponse:
    return JSONResponse({"status_code": 200, "status": True})


async def _token(request: Request) -> JSONResponse:
    return JSONResponse({"status_code": 200, "token": _TOKEN, "jti": "x" * 22, "exp": 1_900_000_000})


#: Two routes of the service that always give the same answer and check nothing.
starlette_app: Final = Starlette(
    routes=[
        Route("/app/valid/{token}", _valid),
        Route("/app/token", _token, methods=["POST"]),
    ]
)


async def bare_app(scope: Any, receive: Any, send: Any) -> None:
    """The same without a framework: an ASGI application with one answer for every request."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _BODY})


def settled() -> Starlette:
    """The first one, with the garbage collector set as in the service."""
    settle()
    return starlette_app


def main() -> None:
    """Serve Starlette's constant at PORT with WEB_CONCURRENCY workers until a signal ends it."""
    workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
    config = configured("benchmarks.constants:settled", "127.0.0.1", int(os.environ["PORT"]), workers)
    if "OWN_PROTOCOL" not in os.environ:
        config.http = "httptools"
    if workers > 1:
        Multiprocess(config, [config.bind_socket()]).run()
        return
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        sys.exit(uvicorn.config.STARTUP_FAILURE)


if __name__ == "__main__":
    main()
