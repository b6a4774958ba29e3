"""Proxies in front of the service, and what they are believed."""

from collections.abc import Collection
from typing import Any, cast

from starlette.types import Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from ..connections.plain import Whole
from ..fastpath.front import Front
from ..fastpath.shortcut import at_once


class TrustedProxies:
    """Takes the caller's address, and the scheme, from what these say of them: uvicorn's middleware, also for
    requests that are answered at once.

    Args:
        proxies: addresses and networks.
    """

    def __init__(self, app: Front, proxies: Collection[str]) -> None:
        self._app = app
        # uvicorn and Starlette write the one interface in types of their own.
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
