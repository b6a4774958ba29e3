"""The ASGI application."""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp

from ..aio.changes import Writer
from ..aio.lookups import Lookups
from ..assembly import Assembly, assemble
from ..errors import ConfigurationError, SignerError
from ..settings import LOG_LEVELS, Settings
from ..stores import Store
from ..stores.copies.feed import part_after
from ..stores.opening import MEMORY_URL
from ..stores.timed import TimedStore
from ..tokens.keys import PRODUCTION_LINE
from .access.callers import DEVELOPER, Caller, Guard
from .access.cors import CORS
from .access.development import DevelopmentGuard
from .access.limits import Limits
from .access.proxies import TrustedProxies
from .fastpath.dispatch import Dispatch
from .fastpath.front import Front
from .fastpath.shortcut import Shortcut
from .messages.problems import on_bug, on_disconnect, on_http_error, on_signer_error
from .routes.gateways import ForwardAuth
from .routes.guide import guide_routes
from .routes.oauth import OAuth
from .routes.openapi import Document
from .routes.pages import docs_routes
from .routes.table import operations
from .routes.tokens import API
from .telemetry.log import RequestLines
from .telemetry.metrics import Metrics, Page
from .telemetry.requests import RequestLog

logger = logging.getLogger(__name__)


def create_app(settings: Settings, *, is_worker: bool = False, node: Path | None = None) -> ASGIApp:
    """The service as an ASGI application, its list opened. One worker of several needs a list that is
    there: a worker that restarts after the list was lost must not go on with an empty one. In the folder
    `node` all workers have their metrics, or there are none; and what they have seen of the list, or each
    knows what it has seen itself.

    Raises:
        ConfigurationError, StoreError: the service cannot start.
    """
    if is_worker and settings.database_url == MEMORY_URL:
        raise ConfigurationError("DATABASE_URL=memory:// serves one process: start no worker processes.")
    limits = Limits(settings.rate_limit, settings.counting_url)
    metrics = Metrics(node) if settings.metrics else None
    assembly = assemble(
        settings,
        create=not is_worker,
        copies=True,
        node=node,
        hooks=[metrics] if metrics else [],
        watched=partial(TimedStore, observe=metrics.store) if metrics else _unwatched,
    )
    signer = assembly.signer
    anonymous = DEVELOPER if settings.is_development else Caller(scopes=settings.anonymous_scopes)
    lookups = Lookups(assembly.store)
    guard = Guard(signer, anonymous, limits, lookups)
    issues_wait = assembly.trail is not None or not assembly.store.is_local
    writer = Writer(
        signer,
        metrics.change_waits if metrics else _unheeded,
        issues_wait=issues_wait,
        together=assembly.store.together() is not None,
    )
    page = None
    # A worker that knows of no folder would tell its own part for the whole.
    if metrics and (node or not is_worker):
        metrics.expect(signer.keys)
        page = Page(metrics, assembly.store, signer.keys)
    means: Any = {"guard": guard, "writer": writer, "limits": limits, "lookups": lookups}
    api = API(signer, **means, feed=partial(part_after, assembly.store), page=page)
    oauth = OAuth(signer, **means, issuer=settings.issuer)
    served = operations(api, oauth, ForwardAuth(signer, lookups, settings.auth_cookie))
    document = Document(served, settings, None if settings.is_development else settings.anonymous_scopes)
    routes = [operation.route for operation in served]
    app = Starlette(
        routes=[
            *routes,
            Route("/openapi.json", document.endpoint),
            *docs_routes(settings.app_title),
            *guide_routes(settings.app_title),
        ],
        exception_handlers=_HANDLERS,
        lifespan=_lifespan(settings, assembly, writer, limits, lookups),
    )
    # A redirect would carry the path, and so the token, in a header and into histories.
    app.router.redirect_slashes = False
    dispatch = Dispatch(app, routes, _HANDLERS)
    shortcut = Shortcut(dispatch, lookups, issues_wait=issues_wait or bool(settings.rate_limit))
    return _surrounded(dispatch, settings, metrics, shortcut)


_HANDLERS: Final = {
    SignerError: on_signer_error,
    HTTPException: on_http_error,
    ClientDisconnect: on_disconnect,
    Exception: on_bug,
}


def _unwatched(store: Store) -> Store:
    return store


def _unheeded(more: int) -> None:
    pass


def _surrounded(app: ASGIApp, settings: Settings, metrics: Metrics | None, shortcut: Shortcut) -> ASGIApp:
    if settings.is_development:
        app = DevelopmentGuard(app)
    if settings.cors_origins:
        app = CORS(app, settings.cors_origins)
    # Around Starlette's own handling of bugs, too: the answer 500 needs its request id most.
    is_logged = LOG_LEVELS.index(settings.log_level) <= LOG_LEVELS.index("info") and sys.stderr
    lines = RequestLines(settings.log_format) if is_logged else None
    # Those between may have their say about any request, and then there is no way around them.
    is_straight = not settings.is_development and not settings.cors_origins
    front = Front(app, RequestLog(metrics, lines), shortcut if is_straight else None)
    return TrustedProxies(front, settings.trusted_proxies) if settings.trusted_proxies else front


def _lifespan(
    settings: Settings, assembly: Assembly, writer: Writer, limits: Limits, lookups: Lookups
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if settings.is_development:
            _warn()
        # Servers in threads get no signals.
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, _on_hangup, loop, assembly)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            _end_with_parent(loop)
        yield
        await writer.close()
        await limits.close()
        lookups.close()
        assembly.close()

    return lifespan


def _end_with_parent(loop: asyncio.AbstractEventLoop) -> None:
    # A worker whose supervisor was killed would hold the port, and keep the next service from starting.
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop.add_reader(parent.sentinel, _on_orphaned, loop, parent.sentinel)


def _on_orphaned(loop: asyncio.AbstractEventLoop, sentinel: int) -> None:
    loop.remove_reader(sentinel)
    os.kill(os.getpid(), signal.SIGTERM)


def _on_hangup(loop: asyncio.AbstractEventLoop, assembly: Assembly) -> None:
    # Also without a trail: unheeded, the signal would end the process.
    if assembly.trail:
        loop.run_in_executor(None, assembly.trail.reopen)


class _Text(StringConvertor):
    """Any text at all, to its last character: whatever is asked about is answered "not valid", not "no such
    page". Starlette's own convertors let a final line end go, and the token before it would be valid."""

    regex = r"[\s\S]*"


register_url_convertor("text", _Text())


def _warn() -> None:
    logger.warning(
        "DEVELOPMENT SERVICE: SECRET_KEY is not set. Whoever calls from this machine may issue and revoke"
        " tokens, under a key kept beside the list. For production: %s",
        PRODUCTION_LINE,
    )
