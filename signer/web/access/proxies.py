"""Proxies in front of the service that are trusted to name the caller."""

from collections.abc import Collection
from typing import Any, cast

from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ..connections.plain import Whole
from ..fastpath.front import Front
from ..fastpath.shortcut import at_once


class TrustedProxies:
    """Takes the caller's address and the scheme from the headers of these proxies. It runs uvicorn's
    middleware, on the short way of a request, too.

    Args:
        app: the application that answers.
        proxies: addresses and networks.
    """

    def __init__(self, app: Front, proxies: Collection[str]) -> None:
        self._app = app
        # uvicorn and Starlette describe the same interface with types of their own.
        self._around = ProxyHeadersMiddleware(cast(Any, app), list(proxies))
        self._alone = ProxyHeadersMiddleware(cast(Any, _nothing), list(proxies))

    def at_once(self, scope: Scope, body: bytes) -> Whole | None:
        """As Front."""
        at_once(self._alone(cast(Any, scope), cast(Any, None), cast(Any, None)))
        return self._app.at_once(scope, body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._around(cast(Any, scope), cast(Any, receive), cast(Any, send))


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    pass
