"""The handlers: each says what one route does; endpoint() does what all of them need."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ..claims import scope_words
from ..credentials import check_public
from ..errors import RequestInvalid, TokenError
from ..requests import IssueRequest, Request
from ..signer import PURGE_PAUSE, Signer
from ..stores.base import PURGE_STEP
from .answers import OK, Answer
from .bodies import ConsumeRequest, RevokeRequest, SameTokenRequest, ValidateRequest, read
from .callers import Caller, identify
from .writer import Writer

B = TypeVar("B", bound=Request)
Endpoint = Callable[[HTTPRequest], Awaitable[Response]]


class API:
    """The service's calls on one Signer. Look-ups are a few microseconds and run in the event loop."""

    def __init__(self, signer: Signer, writer: Writer, anonymous: Caller) -> None:
        self._signer = signer
        self._writer = writer
        self._anonymous = anonymous
        self._check: asyncio.Future[None] | None = None

    def endpoint(
        self, handler: Callable[[Caller, B], Awaitable[Response]], body: type[B], scope: str
    ) -> Endpoint:
        """A route's function: the caller's credential first, then the body, then the handler."""
        words = scope_words(scope)

        async def answer(request: HTTPRequest) -> Response:
            caller = identify(request.headers, self._signer, self._anonymous)
            caller.require(words)
            return await handler(caller, await read(request, body))

        return answer

    async def issue(self, caller: Caller, request: IssueRequest) -> Response:
        """POST /app/token"""
        check_public(request.purpose)
        caller.require(scope_words(request.scope))
        token, claims = self._signer.grant(request, caller.client_id)
        return Answer({"status_code": 200, "token": token, "jti": claims.jti, "exp": claims.exp})

    async def is_valid(self, request: HTTPRequest) -> Response:
        """GET and POST /app/valid/{token}: yes or no, to anybody, with no effect."""
        token = request.path_params["token"]
        if request.method == "POST":
            again = (await read(request, SameTokenRequest)).token
            if again is not None and again != token:
                raise RequestInvalid("token: the body names another token than the path", "token")
        try:
            self._signer.introspect(token)
        except TokenError:
            return Answer({"status_code": 200, "status": False})
        return Answer(OK)

    async def validate(self, caller: Caller, request: ValidateRequest) -> Response:
        """POST /app/valid"""
        try:
            if request.purpose is None:
                claims = self._signer.introspect(request.token, **request.demands())
            else:
                claims = self._signer.validate(request.token, purpose=request.purpose, **request.demands())
        except TokenError as error:
            return Answer({"status_code": 200, "status": False, "code": error.code, "detail": str(error)})
        return Answer(OK | {"claims": claims})

    async def consume(self, caller: Caller, request: ConsumeRequest) -> Response:
        """POST /app/consume"""
        check_public(request.purpose)
        use = await self._writer.run(
            self._signer.consume, request.token, purpose=request.purpose, **request.demands()
        )
        return Answer(OK | {"uses_left": use.uses_left, "claims": use.claims})

    async def revoke(self, caller: Caller, request: RevokeRequest) -> Response:
        """POST /app/revoke"""
        match request:
            case RevokeRequest(token=str(token)):
                await self._writer.run(self._signer.revoke, token)
            case RevokeRequest(jti=str(jti)):
                await self._writer.run(self._signer.revoke_jti, jti)
            case RevokeRequest(sub=str(sub)):
                await self._writer.run(self._signer.revoke_subject, sub)
            case RevokeRequest(sid=str(sid)):
                await self._writer.run(self._signer.revoke_session, sid)
            case RevokeRequest(client_id=str(client_id)):
                await self._writer.run(self._signer.revoke_client, client_id)
        return Answer(OK)

    async def purge(self, caller: Caller, request: Request) -> Response:
        """DELETE /app/clear/all/tokens"""
        purged = step = await self._writer.run(self._signer.purge_step)
        while step == PURGE_STEP:
            await asyncio.sleep(PURGE_PAUSE)
            step = await self._writer.run(self._signer.purge_step)
            purged += step
        return Answer(OK | {"purged": purged})

    async def healthz(self, request: HTTPRequest) -> Response:
        """GET /healthz: the process answers."""
        return Answer({"status": "ok"})

    async def readyz(self, request: HTTPRequest) -> Response:
        """GET /readyz: clock and list can answer."""
        # One check at a time, however many ask: it reads the whole list.
        if self._check is None or self._check.done():
            self._check = asyncio.ensure_future(asyncio.to_thread(self._signer.ping))
        await asyncio.shield(self._check)
        return Answer({"status": "ok"})
