"""What stands around every request. Pure ASGI: a BaseHTTPMiddleware would cost most of the throughput."""

import asyncio
import re
import time
from collections.abc import Awaitable, Collection
from ipaddress import ip_address
from typing import Any, Final, cast

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ..keys import PRODUCTION_LINE
from .calls import CODE, Call, began
from .log import RequestLines
from .metrics import Metrics
from .plain import Whole
from .problems import problem
from .shortcut import Shortcut, at_once

#: Any other method is logged as OTHER: it is the caller's text.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
#: RFC 3986, section 3.2: an address of IPv6 in brackets, or a name, and a port.
AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]*)?")

#: What pages of other origins may be allowed to read.
_SHARED: Final = ("/app/", "/oauth/", "/.well-known/", "/openapi.json")
#: What proxies and content networks add, under their many names.
_FORWARDING: Final = re.compile(
    "^via$|forwarded|(client|real|user|connecting|cluster).?ip|^(cf|x-envoy|x-original)-"
)


class RequestLog:
    """One line a request, and its part in the metrics. The route's template stands there, never the path,
    which may hold a token.

    Args:
        metrics, lines: None for none.
        shortcut: answers some requests instead of `app`, where the server asks `at_once`.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics | None,
        lines: RequestLines | None,
        shortcut: Shortcut | None = None,
    ) -> None:
        self.app = app
        self._metrics = metrics
        self._lines = lines
        self._shortcut = shortcut
        #: What is to be told at the end of this round of the event loop.
        self._answered: list[tuple[float, Scope, int, float, Call]] = []

    def at_once(self, scope: Scope, body: bytes) -> Whole | None:
        """The whole answer to a request that waits for nothing; None where it may take more."""
        if self._shortcut is None or not self._shortcut.takes(scope):
            return None
        started = time.perf_counter()
        call = began(scope)
        response = self._shortcut(scope, body)
        if response is None:
            return None
        self._note(scope, response.status_code, time.perf_counter() - started, call)
        headers = [*response.raw_headers, *call.headers, _request_id(call)]
        return response.status_code, headers, bytes(response.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        call = began(scope)
        status = 0  # no answer: the caller left

        # No coroutine of its own, which would cost each message one more.
        def tell(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *call.headers, _request_id(call)]
            return send(message)

        try:
            await self.app(scope, receive, tell)
        finally:
            self._note(scope, status, time.perf_counter() - started, call)

    def _note(self, scope: Scope, status: int, seconds: float, call: Call) -> None:
        # Told in a row, which takes half as long; and after the answers are sent, which happens next.
        if not self._answered:
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._tell)
        self._answered.append((time.time(), scope, status, seconds, call))

    def _tell(self) -> None:
        answered, self._answered = self._answered, []
        for now, scope, status, seconds, call in answered:
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            route = scope.get("route")
            template = route.path_format if route else "-"
            code = scope.get(CODE, "")
            if self._metrics:
                self._metrics.request(method, template, status, seconds, code)
            if self._lines:
                self._lines.add(
                    now,
                    method,
                    template,
                    status,
                    seconds * 1000,
                    code or "-",
                    call.actor or "-",
                    call.address or "-",
                    str(call.request_id),
                )
        if self._lines:
            self._lines.write()


def _request_id(call: Call) -> tuple[bytes, bytes]:
    return b"x-request-id", str(call.request_id).encode()


class TrustedProxies:
    """Takes the caller's address, and the scheme, from what these say of them: uvicorn's middleware, also for
    requests that are answered at once.

    Args:
        proxies: addresses and networks.
    """

    def __init__(self, app: RequestLog, proxies: Collection[str]) -> None:
        self._app = app
        # uvicorn and Starlette write the one interface in types of their own.
        self._around = ProxyHeadersMiddleware(cast(Any, app), list(proxies))
        self._alone = ProxyHeadersMiddleware(cast(Any, _nothing), list(proxies))

    def at_once(self, scope: Scope, body: bytes) -> Whole | None:
        """As RequestLog."""
        at_once(self._alone(cast(Any, scope), cast(Any, None), cast(Any, None)))
        return self._app.at_once(scope, body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._around(cast(Any, scope), cast(Any, receive), cast(Any, send))


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass


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


def _is_shared(path: str) -> bool:
    # Somebody before us may read "/app/../auth" as another path.
    return path.startswith(_SHARED) and ".." not in path and "//" not in path


def _path(scope: Scope) -> str:
    # Without the prefix that a proxy took away.
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _is_local(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    hosts = headers.getlist("host")
    origins = headers.getlist("origin")
    return (
        # HTTP/1.0 is what nginx before 1.29.7 speaks to what is behind it, with nothing else that shows it.
        scope["http_version"] == "1.1"
        and scope["client"] is not None
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
