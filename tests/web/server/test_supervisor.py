"""How the supervisor treats its workers, and how a service without one ends."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
import uvicorn
from support.clock import HANG, eventually

from signer.web.server import supervisor
from signer.web.server.supervisor import Worker


async def serving(scope: Any, receive: Any, send: Any) -> None:
    """An application that gets no requests."""


def serve() -> Any:
    """A factory of that application."""
    return serving


def hang() -> Any:
    """An application that hangs, as it does if the list's disk hangs."""
    time.sleep(HANG)


@contextmanager
def started(factory: Callable[[], Any]) -> Iterator[Worker]:
    config = uvicorn.Config(
        f"{__name__}:{factory.__name__}", factory=True, port=0, log_config=None, lifespan="off"
    )
    with closing(config.bind_socket()) as listener:
        worker = Worker(config, [listener])
        worker.start()
        try:
            yield worker
        finally:
            worker.kill()
            worker.join()


@pytest.mark.slow
def test_a_worker_that_hangs_before_it_serves_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although a thread of it answers, and says that it does not serve yet."""
    monkeypatch.setattr(supervisor, "BEGIN_TIMEOUT", 4.0)
    begun = time.monotonic()
    with started(hang) as worker:
        eventually(lambda: not worker.is_alive())
        assert time.monotonic() - begun > 3
        assert worker.process.is_alive()
        assert not worker.has_served


@pytest.mark.slow
def test_a_worker_that_serves_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """From then on it is alive as long as it answers, but not once it is dead."""
    with started(serve) as worker:
        eventually(lambda: worker.is_alive() and worker.has_served)
        monkeypatch.setattr(supervisor, "BEGIN_TIMEOUT", 0.0)
        assert worker.is_alive()
        worker.process.kill()
        worker.process.join()
        assert not worker.is_alive()


HANGING = """
import os, signal, time
from signer.web.server import run as server

server.END_TIMEOUT = 1.0

async def application(scope, receive, send):
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            time.sleep(3600)
        await send({"type": "lifespan.startup.complete"})
        os.kill(os.getpid(), signal.SIGTERM)

server._Server(server.uvicorn.Config(application, port=0, log_config=None)).run()
"""


def test_a_service_that_hangs_while_it_ends_ends() -> None:
    """Closing the list may take as long as its disk hangs."""
    assert subprocess.run([sys.executable, "-c", HANGING], timeout=HANG, check=False).returncode == 3
