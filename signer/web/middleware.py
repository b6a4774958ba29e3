"""What stands around every request. Pure ASGI: a BaseHTTPMiddleware would cost most of the throughput."""

import logging
import re
import secrets
import time
from ipaddress import ip_address
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..keys import PRODUCTION_LINE
from .problems import problem

logger = logging.getLogger(__name__)

#: Any other method is logged as OTHER: it is the caller's text.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
#: RFC 3986, section 3.2: an address of IPv6 in brackets, or a name, and a port.
AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]*)?")

#: What proxies and content networks add, under their many names.
_FORWARDING: Final = re.compile(
    "^via$|forwarded|(client|real|user|connecting|cluster).?ip|^(cf|x-envoy|x-original)-"
)


class RequestLog:
    """One line a request. The route's template stands in it, never the path, which may hold a token."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = secrets.token_hex(8)
        status = 0  # no answer: the caller left

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, tell)
        finally:
            route = scope.get("route")
            logger.info(
                "method=%s route=%s status=%d duration_ms=%.2f request_id=%s",
                scope["method"] if scope["method"] in _METHODS else "OTHER",
                route.path_format if route else "-",
                status,
                (time.perf_counter() - started) * 1000,
                request_id,
            )


class DevelopmentGuard:
    """Keeps the development service, which asks nobody for a credential, to callers on this machine.

    Against a proxy that forwards strangers, a page that has its name resolve to 127.0.0.1 (DNS rebinding),
    and a page of another site that posts to localhost.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_local(scope):
            refusal = problem(
                403,
                "development_only",
                "Without SECRET_KEY this service answers direct calls to localhost only. For production: "
                + PRODUCTION_LINE,
            )
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_local(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    hosts = headers.getlist("host")
    origins = headers.getlist("origin")
    return (
        scope["client"] is not None
        and _is_loopback(scope["client"][0])
        and len(hosts) == 1
        and _is_loopback(_host(hosts[0]))
        and all(_is_loopback(_host(origin.partition("://")[2])) for origin in origins)
        and headers.get("sec-fetch-site") in (None, "none", "same-origin", "same-site")
        and not any(_FORWARDING.search(name) for name in headers)
    )


def _host(authority: str) -> str:
    match = AUTHORITY.fullmatch(authority)
    return (match[1] or match[2]).lower() if match else ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
