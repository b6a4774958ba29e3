"""The entrance of every request. It is pure ASGI, because Starlette's BaseHTTPMiddleware would cost most of
the throughput."""

import time
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..connections.plain import Whole
from ..telemetry.calls import Call, began
from ..telemetry.requests import RequestLog
from .shortcut import Shortcut


class Front:
    """Begins a call for each request, gives every answer its request id, and reports it to the log.

    Args:
        app: the application that answers.
        log: is notified of each request.
        shortcut: answers some requests instead of `app`, if the server calls `at_once`; None for none.
    """

    def __init__(self, app: ASGIApp, log: RequestLog, shortcut: Shortcut | None = None) -> None:
        self.app = app
        self._log = log
        self._shortcut = shortcut

    def at_once(self, scope: Scope, body: bytes) -> Whole | None:
        """The whole answer to a request that does not have to wait; None if it may have to."""
        if self._shortcut is None or not self._shortcut.takes(scope):
            return None
        started = time.perf_counter()
        call = began(scope)
        response = self._shortcut(scope, body)
        if response is None:
            return None
        self._log.note(scope, response.status_code, time.perf_counter() - started, call)
        headers = [*response.raw_headers, *call.headers, _request_id(call)]
        return response.status_code, headers, bytes(response.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        call = began(scope)
        status = 0  # there was no answer: the client has left

        # A plain function: a coroutine would add another one to each message.
        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *call.headers, _request_id(call)]
            return send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            self._log.note(scope, status, time.perf_counter() - started, call)


def _request_id(call: Call) -> tuple[bytes, bytes]:
    return b"x-request-id", str(call.request_id).encode()
