"""Running the service: uvicorn with the settings it needs here."""

import logging
import multiprocessing
import os
import sys

import uvicorn
from starlette.types import ASGIApp

from ..assembly import assemble
from ..errors import SignerError
from ..settings import Settings
from .app import create_app
from .protocol import CappedProtocol

#: Seconds a shut-down waits for requests under way; uvicorn alone waits without limit.
SHUTDOWN_TIMEOUT = 10


def load() -> ASGIApp:
    """The application as the environment describes it, for `uvicorn app:app` and every worker.

    Raises:
        SystemExit: it cannot start; the one line says why.
    """
    try:
        settings = Settings.from_env(os.environ)
        configure_logging(settings.log_level)
        return create_app(settings, is_worker=multiprocessing.parent_process() is not None)
    except SignerError as error:
        raise SystemExit(f"signer: {error}") from None


def serve() -> None:
    """Serve until a signal ends it.

    Raises:
        SystemExit: it cannot start; the one line says why.
    """
    try:
        settings = Settings.from_env(os.environ)
        # The list is made here, before there are workers: one that restarts must find it, not make another.
        assemble(settings).store.close()
    except SignerError as error:
        raise SystemExit(f"signer: {error}") from None
    configure_logging(settings.log_level)
    uvicorn.run(
        "signer.web.server:load",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.web_concurrency,
        http=CappedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # it prints paths, and so tokens
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )


def configure_logging(level: str) -> None:
    """One line a record on standard error, and no access log, whoever started the server."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
