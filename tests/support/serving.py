"""Applications in real servers on this machine, for the time of a test."""

import http.client
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from time import sleep
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import WSGIApplication

import uvicorn
from support.clock import HANG
from support.service import Reply


@contextmanager
def serving(app: Any) -> Iterator[int]:
    """The port at which uvicorn serves an ASGI application."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off", ws="none", access_log=False)
    server = uvicorn.Server(config)
    with config.bind_socket() as listener:
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                sleep(0.005)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(HANG)


@contextmanager
def serving_wsgi(app: WSGIApplication) -> Iterator[int]:
    """The port at which the standard library's server serves a WSGI application."""
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(HANG)


def call(port: int, path: str, headers: Iterable[tuple[str, str]] = (), method: str = "GET") -> Reply:
    """Send one request with exactly these headers in this order; a name may occur twice."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
    try:
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


def bearer(*tokens: str) -> list[tuple[str, str]]:
    """A header Authorization for each token."""
    return [("Authorization", f"Bearer {token}") for token in tokens]


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it has there
        """Log nothing: no test reads it."""
