"""Running the service: uvicorn with the settings it needs here."""

import gc
import logging
import multiprocessing
import os
import re
import resource
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from ...assembly import assemble
from ...errors import ConfigurationError, SignerError, StoreError, SystemUnavailable
from ...exits import exit_code, say
from ...policy import END_TIMEOUT, SHUTDOWN_TIMEOUT
from ...settings import Settings
from ...stores.newest import NewestOfNode
from ..access.limits import Limits
from ..app import create_app
from ..telemetry.log import configure_logging
from ..telemetry.metrics import FOLDER_VARIABLE
from .supervisor import Supervisor

logger = logging.getLogger(__name__)

#: How many objects come before the collector looks at the young ones, and how many such looks before it looks
#: at older ones. Python's own are 700, 10, 10.
_GC_THRESHOLDS: Final = (10_000, 50, 100)
#: Descriptors that it asks for; as many connections take 400 MB.
_MOST_DESCRIPTORS: Final = 65_536
#: The first descriptor that a service manager hands over (sd_listen_fds(3)).
_FIRST_PASSED: Final = 3


def load() -> ASGIApp:
    """The application as the environment describes it, for `uvicorn app:app` and every worker.

    Raises:
        SystemExit: it cannot start; a line says why, and its code, as in exits.exit_code.
    """
    is_worker = multiprocessing.parent_process() is not None
    try:
        settings = Settings.from_env(os.environ)
        configure_logging(settings.log_level, settings.log_format)
        folder = os.environ.get(FOLDER_VARIABLE)
        app = create_app(settings, is_worker=is_worker, node=Path(folder) if folder else None)
    except SignerError as error:
        say(error)
        # To uvicorn's supervisor 3 means that no worker can start, and that it should end those that run.
        raise SystemExit(1 if is_worker else exit_code(error)) from None
    settle()
    return app


def settle() -> None:
    """Spare the garbage collector what was made until now and stays, and have it look less often at what
    comes: a request leaves hardly anything to it, and at each look all requests wait."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def serve() -> None:
    """Serve until a signal ends it. SIGTERM ends it when what is under way is done, SIGHUP opens the audit
    trail's file anew, and SIGUSR2 replaces the workers one by one, where there are several.

    Raises:
        SystemExit: it cannot start, or its workers cannot any more; a line says why, and its code, as in
            exits.exit_code.
    """
    # Until there is somebody to hear it: it would end the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    # What workers share is named below, and one alone shares nothing.
    os.environ.pop(FOLDER_VARIABLE, None)
    with ExitStack() as opened:
        try:
            settings = Settings.from_env(os.environ)
            configure_logging(settings.log_level, settings.log_format)
            # What would keep workers from starting, again and again, keeps us from it once.
            Limits(settings.rate_limit, settings.counting_url)
            node = opened.enter_context(_folder()) if settings.web_concurrency > 1 else None
            # The list is made here, before there are workers: one that restarts must find it, not make
            # another. And it is accepted here as it is: one that restarts must not accept an older one.
            assemble(settings, node=node).close()
        except SignerError as error:
            say(error)
            raise SystemExit(exit_code(error)) from None
        _serve(settings, node)


def _serve(settings: Settings, node: Path | None) -> None:
    _raise_descriptors()
    config = configured("signer.web.server.run:load", settings.host, settings.port, settings.web_concurrency)
    passed = _passed()
    if node:
        # Before there are workers: prometheus_client reads it when it is imported.
        os.environ[FOLDER_VARIABLE] = str(node)
        supervisor = Supervisor(config, passed or [config.bind_socket()])
        supervisor.run()
        if supervisor.has_failed:
            error = _given_up(node)
            say(error)
            raise SystemExit(exit_code(error))
    else:
        # It has no workers to replace.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        server = _Server(config)
        server.run(sockets=passed)
        if not server.started:
            sys.exit(uvicorn.config.STARTUP_FAILURE)


class _Server(uvicorn.Server):
    """One that has no supervisor to kill it when it hangs."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn.Server."""
        ending = threading.Timer(END_TIMEOUT, _end)
        ending.daemon = True
        ending.start()
        await super().shutdown(sockets)


def _end() -> None:
    logger.error("The service hangs while it ends, as where a disk does: ended")
    os._exit(3)


def _given_up(node: Path) -> SignerError:
    with suppress(StoreError), closing(NewestOfNode(node)) as newest:
        if newest.get().is_missed:
            # A start accepts the list, so only a person is to start us: the exit code is one that says so.
            return ConfigurationError(
                "No worker can start, since the list is older than it was, or another: put the newer one"
                " back. A start of the service accepts this one."
            )
    return SystemUnavailable("No worker can start; the lines above say why. The service ends.")


def _raise_descriptors() -> None:
    # The soft limit is low for programs that use select(2); a service takes what it may have (setrlimit(2)).
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # the system allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _MOST_DESCRIPTORS)), hard))


def configured(factory: str, host: str, port: int, workers: int) -> uvicorn.Config:
    """How uvicorn serves what the function `factory`, "module:name", makes in each process."""
    return uvicorn.Config(
        factory,
        factory=True,
        host=host,
        port=port,
        workers=workers,
        http="signer.web.connections.protocol:CappedProtocol",
        loop="signer.web.connections.loop:Loop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # it prints paths, and so tokens
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )


@contextmanager
def _folder() -> Iterator[Path]:
    """What the workers share, which ends with us: their metrics, and what they have seen of the list."""
    # In memory where there is such a folder: a full disk would end a worker that writes to a mapped file.
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a new folder in it
    with tempfile.TemporaryDirectory(prefix="signer-node-", dir=parent) as folder:
        yield Path(folder)


def _passed() -> list[socket.socket] | None:
    """The sockets that the service manager listens on for us, which stay open while we restart."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not re.fullmatch("[1-9]", count):
        return None
    return [socket.socket(fileno=_FIRST_PASSED + number) for number in range(int(count))]
