"""Runs the service: uvicorn, with the settings that it needs here."""

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from ...assembly import assemble
from ...environment import Variable
from ...errors import ConfigurationError, SignerError, StoreError, SystemUnavailable
from ...exits import exit_code, say
from ...policy import END_TIMEOUT, SHUTDOWN_TIMEOUT
from ...settings import Settings, variables_in
from ...stores.newest import NewestOfNode
from ..access.limits import Limits
from ..app import create_app
from ..telemetry.log import configure_logging
from ..telemetry.metrics import FOLDER_VARIABLE
from .supervisor import Supervisor

logger = logging.getLogger(__name__)

#: The thresholds of the garbage collector: new objects before it checks the young generation, and how many
#: such checks before it checks an older one. Python's defaults are 700, 10 and 10.
_GC_THRESHOLDS: Final = (10_000, 50, 100)
#: File descriptors that the service asks for. As many connections take 400 MB.
_MOST_DESCRIPTORS: Final = 65_536
#: The first file descriptor that a service manager passes on (sd_listen_fds(3)).
_FIRST_PASSED: Final = 3


def load(found: Mapping[str, Variable] | None = None) -> ASGIApp:
    """The application, for `uvicorn app:app` and for every worker.

    Args:
        found: the settings, as their service found them when it started; None reads the environment.

    Raises:
        SystemExit: the application cannot start. A line on standard error says why; the code is that of
            exits.exit_code.
    """
    is_worker = multiprocessing.parent_process() is not None
    try:
        settings = Settings.from_variables(variables_in(os.environ) if found is None else found)
        configure_logging(settings.log_level, settings.log_format)
        folder = os.environ.get(FOLDER_VARIABLE)
        app = create_app(settings, is_worker=is_worker, node=Path(folder) if folder else None)
    except SignerError as error:
        say(error)
        # For uvicorn's supervisor, 3 means that no worker can start, and it would end the running ones.
        raise SystemExit(1 if is_worker else exit_code(error)) from None
    settle()
    return app


def settle() -> None:
    """Exempt all present objects from the garbage collector, because they stay, and have it check new ones
    less often: requests leave hardly any reference cycles, and all of them wait during a check."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def serve() -> None:
    """Serve until a signal ends the service. SIGTERM ends it after the requests under way, SIGHUP reopens the
    file of the audit trail, and SIGUSR2 replaces the workers one by one, if there are several.

    Raises:
        SystemExit: the service cannot start, or its workers cannot start any more. A line on standard error
            says why; the code is that of exits.exit_code.
    """
    # Until a handler is installed, because the signal would end the process.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    # The folder that workers share is set below. A single process shares none.
    os.environ.pop(FOLDER_VARIABLE, None)
    with ExitStack() as opened:
        try:
            found = variables_in(os.environ)
            settings = Settings.from_variables(found)
            configure_logging(settings.log_level, settings.log_format)
            # A configuration error that would stop every worker stops the service here, once.
            Limits(settings.rate_limit, settings.counting_url)
            node = opened.enter_context(_folder()) if settings.web_concurrency > 1 else None
            # The list is created here, before there are workers: a worker that restarts must find it, not
            # create another. And this start accepts the list as it is, while a worker that restarts must not
            # accept an older one.
            assemble(settings, create_key=True, node=node).close()
        except SignerError as error:
            say(error)
            raise SystemExit(exit_code(error)) from None
        _serve(settings, found, node)


def _serve(settings: Settings, found: Mapping[str, Variable], node: Path | None) -> None:
    _raise_descriptors()
    make = partial(load, found)
    config = configured(make, settings.host, settings.port, settings.web_concurrency)
    passed = _passed()
    if node:
        # Before there are workers, because prometheus_client reads it when it is imported.
        os.environ[FOLDER_VARIABLE] = str(node)
        supervisor = Supervisor(config, passed or [config.bind_socket()])
        supervisor.run()
        if supervisor.has_failed:
            error = _given_up(node)
            say(error)
            raise SystemExit(exit_code(error))
    else:
        # Ignored, because there are no workers to replace.
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        server = _Server(config)
        server.run(sockets=passed)
        if not server.started:
            sys.exit(uvicorn.config.STARTUP_FAILURE)


class _Server(uvicorn.Server):
    """A server that no supervisor kills if it hangs, so it ends itself."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn.Server."""
        ending = threading.Timer(END_TIMEOUT, _end)
        ending.daemon = True
        ending.start()
        await super().shutdown(sockets)


def _end() -> None:
    logger.error("The service hangs while it ends, perhaps because a disk hangs: ended")
    os._exit(3)


def _given_up(node: Path) -> SignerError:
    with suppress(StoreError), closing(NewestOfNode(node)) as newest:
        if newest.get().is_missed:
            # A new start would accept this list, so a person must decide. This error's exit code keeps a
            # service manager from starting the service again.
            return ConfigurationError(
                "No worker can start, because the revocation list is older than before, or another one:"
                " restore the newer one. To accept this one, start the service again."
            )
    return SystemUnavailable("No worker can start; the lines above say why. The service ends.")


def _raise_descriptors() -> None:
    # The soft limit is low because of programs that use select(2). A service can raise it (setrlimit(2)).
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # the system allows less than the hard limit says
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _MOST_DESCRIPTORS)), hard))


def configured(factory: str | Callable[[], ASGIApp], host: str, port: int, workers: int) -> uvicorn.Config:
    """The configuration of uvicorn. `factory`, a function or "module:name", makes the application in each
    process."""
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
    """The folder that the workers share: their metrics, and what they have seen of the list. It is deleted
    when the service ends."""
    # In memory if possible, because a full disk would kill a worker that writes to a mapped file.
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a new folder in it
    with tempfile.TemporaryDirectory(prefix="signer-node-", dir=parent) as folder:
        yield Path(folder)


def _passed() -> list[socket.socket] | None:
    """The sockets that the service manager opened, and keeps open while the service restarts."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not re.fullmatch("[1-9]", count):
        return None
    return [socket.socket(fileno=_FIRST_PASSED + number) for number in range(int(count))]
