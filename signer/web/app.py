"""The ASGI application."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp

from ..assembly import assemble
from ..errors import ConfigurationError, SignerError
from ..keys import PRODUCTION_LINE
from ..settings import Settings
from ..stores.opening import MEMORY_URL
from .api import API
from .callers import DEVELOPER, Caller
from .docs import docs_routes
from .forward_auth import ForwardAuth
from .middleware import DevelopmentGuard, RequestLog
from .oauth import OAuth
from .openapi import Document
from .operations import operations
from .problems import on_bug, on_disconnect, on_http_error, on_signer_error
from .writer import Writer

logger = logging.getLogger(__name__)


def create_app(settings: Settings, *, is_worker: bool = False) -> ASGIApp:
    """The service as an ASGI application, its list opened. One worker of several needs a list that is
    there: a worker that restarts after the list was lost must not go on with an empty one.

    Raises:
        ConfigurationError, StoreError: the service cannot start.
    """
    if is_worker and settings.database_url == MEMORY_URL:
        raise ConfigurationError("DATABASE_URL=memory:// serves one process: start no worker processes.")
    signer, store = assemble(settings, create=not is_worker)
    anonymous = DEVELOPER if settings.is_development else Caller(scopes=settings.anonymous_scopes)
    writer = Writer()
    api = API(signer, writer, anonymous)
    oauth = OAuth(signer, writer, anonymous, settings.issuer)
    served = operations(api, oauth, ForwardAuth(signer, settings.auth_cookie))
    document = Document(served, settings, None if settings.is_development else settings.anonymous_scopes)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        if settings.is_development:
            _warn()
        yield
        await writer.close()
        store.close()

    guard = [Middleware(DevelopmentGuard)] if settings.is_development else []
    app = Starlette(
        routes=[
            *(operation.route for operation in served),
            Route("/openapi.json", document.endpoint),
            *docs_routes(settings.app_title),
        ],
        middleware=guard,
        exception_handlers={
            SignerError: on_signer_error,
            HTTPException: on_http_error,
            ClientDisconnect: on_disconnect,
            Exception: on_bug,
        },
        lifespan=lifespan,
    )
    # A redirect would carry the path, and so the token, in a header and into histories.
    app.router.redirect_slashes = False
    # Around all of it, Starlette's own handling of bugs too: the answer 500 needs its request id most.
    return RequestLog(app)


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
