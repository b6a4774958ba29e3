"""The development service answers direct callers on this machine only."""

import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ...tokens.keys import PRODUCTION_LINE
from ..messages.problems import problem
from .hosts import host_of, is_loopback

#: Headers that proxies and content delivery networks add, under their many names.
_FORWARDING: Final = re.compile(
    "^via$|forwarded|(client|real|user|connecting|cluster).?ip|^(cf|x-envoy|x-original)-"
)


class DevelopmentGuard:
    """Refuses callers of the development service that are not on this machine, because it asks for no
    credential.

    The threats: a proxy that forwards requests of strangers, a page whose host name resolves to 127.0.0.1
    (DNS rebinding), and a page of another site that sends requests to localhost.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not _is_local(scope):
            refusal = problem(
                403,
                "development_only",
                "Without SECRET_KEY this service answers only direct calls to localhost. For production: "
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
        # nginx before 1.29.7 sends HTTP/1.0 to the service behind it, and nothing else may show its presence.
        scope["http_version"] == "1.1"
        and scope["client"] is not None
        and is_loopback(scope["client"][0])
        and len(hosts) == 1
        and is_loopback(host_of(hosts[0]))
        and all(is_loopback(host_of(origin.partition("://")[2])) for origin in origins)
        and headers.get("sec-fetch-site") in (None, "none", "same-origin", "same-site")
        and not any(_FORWARDING.search(name) for name in headers)
    )
