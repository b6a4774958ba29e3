"""Sessions that renew themselves in a browser: a middleware for Starlette, or any ASGI application.

A cookie past half its life is answered with its successor. Tabs that ask at the same time get the same one,
and so does a retry within 30 seconds. If a cookie comes that was rotated before, two browsers have it: the
session ends, and its owner must log in again. No gateway can do this: it only asks for validity.

It avoids a log-out during work, a stolen cookie that works on unnoticed, a renewal that undoes a log-out or
another log-in, a cookie that a cache gives to strangers, and sessions lost because the list was down.
"""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from signer import Claims, Signer, SystemUnavailable, TokenError
from signer.errors import TokenRotated, TokenUsed

#: Behind a gateway give this name to signer as AUTH_COOKIE. The purpose is `access`, which gateways ask for
#: by default.
COOKIE = "__Host-session"
LIFE = 15 * 60
#: Seconds from the log-in until the session ends, whatever the user does.
SESSION_LIFE = 12 * 60 * 60
#: Where a browser goes from the forms of log-in and log-out.
HOME = "/"


class BrowserSessions:
    """Gives `app` the claims of the session as `request.state.session`; None if there is no session."""

    def __init__(self, app: ASGIApp, signer: Signer, clock: Callable[[], float] = time.time) -> None:
        self._app, self._signer, self._clock = app, signer, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        token = HTTPConnection(scope).cookies.get(COOKIE)
        try:
            # In a thread, because renewing a session writes to the list.
            claims, cookie = await run_in_threadpool(self._admit, token) if token else (None, "")
        except SystemUnavailable:
            return await unavailable()(scope, receive, send)

        async def send_with_cookie(message: Message) -> None:
            if cookie and message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                # The answer to a log-in or log-out sets a cookie of its own, which is newer than ours.
                if not any(value.startswith(f"{COOKIE}=") for value in headers.getlist("set-cookie")):
                    headers.append("set-cookie", cookie)
                    headers["cache-control"] = "no-store"
            await send(message)

        state = {**scope.get("state", {}), "session": claims}
        return await self._app({**scope, "state": state}, receive, send_with_cookie)

    def _admit(self, token: str) -> tuple[Claims | None, str]:
        # Together with the Set-Cookie that the answer needs, if any.
        try:
            claims = self._signer.validate(token)
            if claims.max_uses is not None:
                raise TokenUsed
            if self._clock() <= (claims.iat + claims.exp) / 2:
                return claims, ""
            successor, claims = self._signer.rotate(token, session_ttl=SESSION_LIFE)
        except TokenRotated:
            # The thief may have come first, and have the successor: it must end, too.
            self._signer.revoke(token)
            return None, set_cookie("", 0)
        except TokenError:
            return None, set_cookie("", 0)
        return claims, set_cookie(successor, claims.exp - claims.iat)


def set_cookie(token: str, life: int) -> str:
    """The Set-Cookie of a session; with life 0 it deletes the cookie."""
    return f"{COOKIE}={token}; Max-Age={life}; Path=/; Secure; HttpOnly; SameSite=Lax"


def unavailable(*_: object) -> Response:
    """The answer while the list is down. The cookie stays, and is valid again afterwards. Use it as the
    application's exception handler for SystemUnavailable, too."""
    return PlainTextResponse("Try again.", 503, {"Retry-After": "1"})


def done(request: Request, cookie: str) -> Response:
    """The answer that sets the cookie: for a form it leads to a page, for a script it is empty."""
    headers = {"Set-Cookie": cookie, "Cache-Control": "no-store"}
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(HOME, 303, headers)
    return Response(status_code=204, headers=headers)


def routes(signer: Signer, authenticate: Callable[[Request], Awaitable[str | None]]) -> list[Route]:
    """Log-in and log-out, in the area that gateways do not guard. `authenticate` is your own: it returns
    whose password a request contains."""

    def end(request: Request) -> None:
        # Together with its whole chain, because the answer to another tab may still bring a successor.
        with suppress(TokenError):
            signer.revoke(request.cookies.get(COOKIE, ""))

    def begin(request: Request, user_id: str) -> Response:
        end(request)
        return done(request, set_cookie(signer.issue(sub=user_id, ttl=LIFE), LIFE))

    async def log_in(request: Request) -> Response:
        user_id = await authenticate(request)
        if user_id is None:
            return PlainTextResponse("That is not the password.", 403)
        return await run_in_threadpool(begin, request, user_id)

    def log_out(request: Request) -> Response:
        end(request)
        return done(request, set_cookie("", 0))

    named = {"/public/log-in": log_in, "/public/log-out": log_out}
    return [Route(path, endpoint, methods=["POST"]) for path, endpoint in named.items()]
