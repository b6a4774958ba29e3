"""The ASGI application, with all of its parts."""

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
from typing import Any, Final, NamedTuple

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from ..aio.changes import Writer
from ..aio.lookups import Lookups
from ..assembly import Assembly, assemble
from ..errors import ConfigurationError, SignerError
from ..settings import LOG_LEVELS, Settings
from ..signer import Signer
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
from .routes.entry import RouteEntry
from .routes.gateways import ForwardAuth
from .routes.guide import guide_routes
from .routes.oauth import OAuth
from .routes.openapi import Document
from .routes.pages import docs_routes
from .routes.probes import Probes
from .routes.table import route_entries
from .routes.tokens import API
from .telemetry.log import RequestLines
from .telemetry.metrics import Exposition, Metrics
from .telemetry.requests import RequestLog

logger = logging.getLogger(__name__)


class _Means(NamedTuple):
    """What the handlers of all routes share, and what ends with the application."""

    assembly: Assembly
    limits: Limits
    lookups: Lookups[Signer]
    writer: Writer
    guard: Guard
    #: Whether issuing a token has to wait for a disk or a network.
    issues_wait: bool


def create_app(settings: Settings, *, is_worker: bool = False, node: Path | None = None) -> ASGIApp:
    """The service as an ASGI application. The revocation list is opened here.

    Args:
        settings: of the service.
        is_worker: whether this is one of several workers. It needs a list that exists: a worker that restarts
            after the list was lost must not continue with an empty one.
        node: the folder that the workers of this machine share, for their metrics and for what they have seen
            of the list. Without it, a worker has no metrics, and knows only what it has seen itself.

    Raises:
        ConfigurationError, StoreError: the service cannot start.
    """
    if is_worker and settings.database_url == MEMORY_URL:
        raise ConfigurationError("DATABASE_URL=memory:// serves one process: start no worker processes.")
    limits = Limits(settings.rate_limit, settings.counting_url)
    metrics = Metrics(node) if settings.metrics else None
    assembly = _assembled(settings, metrics, create=not is_worker, node=node)
    means = _means(settings, assembly, limits, metrics)
    # A worker without a folder would report its own part as the whole.
    exposition = _exposition(assembly, metrics) if metrics and (node or not is_worker) else None
    served = _route_entries(settings, means, exposition)
    routes = [entry.route for entry in served]
    app = Starlette(
        routes=[*routes, *_document_routes(settings, served)],
        exception_handlers=_HANDLERS,
        lifespan=_lifespan(settings, means),
    )
    # A redirect would copy the path, and so the token, into a header and into histories.
    app.router.redirect_slashes = False
    dispatch = Dispatch(app, routes, _HANDLERS)
    issues_wait = means.issues_wait or bool(settings.rate_limit)
    return _surrounded(
        dispatch, settings, metrics, Shortcut(dispatch, means.lookups, issues_wait=issues_wait)
    )


def _assembled(settings: Settings, metrics: Metrics | None, *, create: bool, node: Path | None) -> Assembly:
    return assemble(
        settings,
        create=create,
        create_key=create,
        copies=True,
        node=node,
        hooks=[metrics] if metrics else [],
        watched=partial(TimedStore, observe=metrics.store) if metrics else _unwatched,
    )


def _means(settings: Settings, assembly: Assembly, limits: Limits, metrics: Metrics | None) -> _Means:
    anonymous = DEVELOPER if settings.is_development else Caller(scopes=settings.anonymous_scopes)
    lookups = Lookups(assembly.signer, assembly.store.view)
    issues_wait = assembly.trail is not None or not assembly.store.view.is_local
    writer = Writer(
        assembly.signer,
        metrics.change_waits if metrics else _unheeded,
        issues_wait=issues_wait,
        together=assembly.store.together() is not None,
    )
    guard = Guard(assembly.signer, anonymous, limits, lookups)
    return _Means(assembly, limits, lookups, writer, guard, issues_wait)


def _exposition(assembly: Assembly, metrics: Metrics) -> Exposition:
    metrics.expect(assembly.signer.keys)
    return Exposition(metrics, assembly.store, assembly.signer.keys)


def _route_entries(settings: Settings, means: _Means, exposition: Exposition | None) -> list[RouteEntry]:
    signer, guard, lookups = means.assembly.signer, means.guard, means.lookups
    changing: Any = {"guard": guard, "writer": means.writer, "limits": means.limits, "lookups": lookups}
    feed = partial(part_after, means.assembly.store)
    return route_entries(
        API(signer, **changing),
        OAuth(signer, **changing, issuer=settings.issuer),
        ForwardAuth(lookups, settings.auth_cookie),
        Probes(signer, guard=guard, lookups=lookups, feed=feed, exposition=exposition),
    )


def _document_routes(settings: Settings, served: list[RouteEntry]) -> list[BaseRoute]:
    document = Document(served, settings, None if settings.is_development else settings.anonymous_scopes)
    title = settings.app_title
    return [Route("/openapi.json", document.endpoint), *docs_routes(title), *guide_routes(title)]


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
    # The front is around Starlette's own handling of bugs, too: a status 500 needs its request id most.
    is_logged = LOG_LEVELS.index(settings.log_level) <= LOG_LEVELS.index("info") and sys.stderr
    lines = RequestLines(settings.log_format) if is_logged else None
    # The middlewares above may decide about any request, so with them there is no short way.
    is_straight = not settings.is_development and not settings.cors_origins
    front = Front(app, RequestLog(metrics, lines), shortcut if is_straight else None)
    return TrustedProxies(front, settings.trusted_proxies) if settings.trusted_proxies else front


def _lifespan(settings: Settings, means: _Means) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if settings.is_development:
            _warn()
        # Servers in other threads get no signals.
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, _on_hangup, loop, means.assembly)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            _end_with_parent(loop)
        yield
        await means.writer.close()
        await means.limits.close()
        means.lookups.close()
        means.assembly.close()

    return lifespan


def _end_with_parent(loop: asyncio.AbstractEventLoop) -> None:
    # A worker whose supervisor was killed would keep the port, and the next service could not start.
    parent = multiprocessing.parent_process()
    if parent is not None:
        loop.add_reader(parent.sentinel, _on_orphaned, loop, parent.sentinel)


def _on_orphaned(loop: asyncio.AbstractEventLoop, sentinel: int) -> None:
    loop.remove_reader(sentinel)
    os.kill(os.getpid(), signal.SIGTERM)


def _on_hangup(loop: asyncio.AbstractEventLoop, assembly: Assembly) -> None:
    # Handled also without a trail: by default, the signal would end the process.
    if assembly.trail:
        loop.run_in_executor(None, assembly.trail.reopen)


class _Text(StringConvertor):
    """Any text, to its last character: the answer about any text is "not valid", and never "not found".
    Starlette's own convertors drop a final line end, and the token before it would be valid."""

    regex = r"[\s\S]*"


register_url_convertor("text", _Text())


def _warn() -> None:
    logger.warning(
        "DEVELOPMENT SERVICE: SECRET_KEY is not set. Any caller on this machine can issue and revoke"
        " tokens, with a key that is kept beside the revocation list. For production: %s",
        PRODUCTION_LINE,
    )
