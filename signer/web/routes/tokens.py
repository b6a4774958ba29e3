"""The handlers of routes about tokens. `API.endpoint` adds what all of them need: the caller and the body."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any, Final, TypeVar

from msgspec import Raw
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ...aio.changes import Writer
from ...aio.lookups import Lookups
from ...errors import (
    CredentialMissing,
    RequestInvalid,
    ScopeInsufficient,
    TokenError,
)
from ...policy import PURGE_PAUSE
from ...signer import Signer
from ...tokens.claims import Issued, scope_words
from ...tokens.values import CodeRequest, IssueRequest, Request, check_public
from ..access.callers import Caller, Guard
from ..access.limits import ISSUE, VERIFY_CODE, Limits
from ..messages.answers import (
    Admitted,
    Answer,
    Done,
    NewCode,
    NewToken,
    NewTokens,
    Outcome,
    Purged,
    Rotated,
    Used,
    Verdict,
    Verdicts,
)
from ..messages.bodies import (
    BatchRequest,
    ConsumeRequest,
    RevokeRequest,
    RotateRequest,
    SameTokenRequest,
    ValidateRequest,
    VerifyCodeRequest,
    decoded,
    read,
)
from ..messages.problems import refusal

B = TypeVar("B", bound=Request)
Endpoint = Callable[[HTTPRequest], Awaitable[Response]]
TokenHandler = Callable[[Caller, Any], Awaitable[Response]]


_VALID: Final = Answer(Done())
_INVALID: Final = Answer(Done(status=False))
#: Tokens that are validated without a pause. They take a millisecond at most.
_AT_ONCE: Final = 250


class API:
    """The handlers of routes about tokens.

    Args:
        signer: does the work.
        guard: says who calls.
        writer: makes the changes, which wait for a disk.
        limits: count expensive calls.
        lookups: runs validations that may have to wait for a network.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        guard: Guard,
        writer: Writer,
        limits: Limits,
        lookups: Lookups[Signer],
    ) -> None:
        self._signer = signer
        self._lookups = lookups
        self._guard = guard
        self._writer = writer
        self._limits = limits
        self._slice = asyncio.Lock()

    def endpoint(
        self, handler: Callable[[Caller, B], Awaitable[Response]], body: type[B], scope: str
    ) -> Endpoint:
        """The function of a route. It checks the caller, then reads the body, then calls the handler."""
        words = scope_words(scope)

        async def answer(request: HTTPRequest) -> Response:
            caller = await self._guard.admit(request.scope, words)
            return await handler(caller, await read(request, body))

        return answer

    async def issue(self, caller: Caller, request: IssueRequest) -> Response:
        """POST /app/token"""
        await self._limits.count(ISSUE)
        return Answer(await self._writer.issue(self._granted, caller, request))

    async def issue_many(self, caller: Caller, request: BatchRequest) -> Response:
        """POST /app/tokens"""
        await self._limits.count(ISSUE, len(request.tokens))
        return Answer(await self._writer.issue(self._outcomes, caller, request.tokens))

    async def is_valid(self, request: HTTPRequest) -> Response:
        """GET and POST /app/valid/{token}: yes or no. Anybody can ask, and asking has no effect."""
        token = request.path_params["token"]
        # If the body names another token, the answer is no.
        if request.method == "POST" and (await read(request, SameTokenRequest)).token not in (None, token):
            return _INVALID
        try:
            await self._lookups.run(Signer.introspect, token)
        except TokenError:
            return _INVALID
        return _VALID

    async def validate(self, caller: Caller, request: ValidateRequest) -> Response:
        """POST /app/valid"""
        if isinstance(request.token, str):
            (verdict,) = await self._lookups.run(self._verdicts, [request.token], request)
            return Answer(verdict)
        tokens, results = request.tokens or [], list[Verdict]()
        for start in range(0, len(tokens), _AT_ONCE):
            # Of all such requests, one slice at a time; other requests are answered in between.
            async with self._slice if self._lookups.are_prompt else nullcontext():
                await asyncio.sleep(0)
                results += await self._lookups.run(self._verdicts, tokens[start : start + _AT_ONCE], request)
        return Answer(Verdicts(status=all(result.status for result in results), results=results))

    async def consume(self, caller: Caller, request: ConsumeRequest) -> Response:
        """POST /app/consume"""
        check_public(request.purpose)
        use = await self._writer.run(
            caller.acting(self._signer).consume, request.token, purpose=request.purpose, **request.demands()
        )
        return Answer(Used(uses_left=use.uses_left, claims=use.claims))

    async def rotate(self, caller: Caller, request: RotateRequest) -> Response:
        """POST /app/rotate"""
        check_public(request.purpose)
        # Claims that are not verified are enough here, because `rotate` verifies them before it acts.
        claims = self._signer.inspect(request.token).unverified_claims
        if not caller.holds(scope_words(claims.scope)):
            raise ScopeInsufficient("The client credential lacks a scope that the token has.")
        await self._limits.count(ISSUE)
        if caller.client_id is None and not caller.is_developer:
            raise CredentialMissing  # a token without a client may belong to anybody
        issued = await self._writer.run(
            caller.acting(self._signer).rotate,
            request.token,
            purpose=request.purpose,
            aud=request.aud,
            bind=request.bind,
            session_ttl=request.session_ttl,
            client_id=caller.client_id,
        )
        new = _new(issued)
        return Answer(Rotated(token=new.token, jti=new.jti, exp=new.exp, sid=issued.claims.sid or ""))

    async def issue_code(self, caller: Caller, request: CodeRequest) -> Response:
        """POST /app/code"""
        await self._limits.count(ISSUE)
        token, code, claims = await self._writer.issue(
            caller.acting(self._signer).grant_code, request, caller.client_id
        )
        return Answer(NewCode(token=token, code=code, jti=claims.jti, exp=claims.exp))

    async def verify_code(self, caller: Caller, request: VerifyCodeRequest) -> Response:
        """POST /app/code/verify"""
        await self._limits.count(VERIFY_CODE)
        claims = await self._writer.run(
            caller.acting(self._signer).verify_code, request.token, request.code, purpose=request.purpose
        )
        return Answer(Admitted(claims=claims))

    async def revoke(self, caller: Caller, request: RevokeRequest) -> Response:
        """POST /app/revoke"""
        signer = caller.acting(self._signer)
        match request:
            case RevokeRequest(token=str(token)):
                await self._writer.run(signer.revoke, token)
            case RevokeRequest(jti=str(jti)):
                await self._writer.run(signer.revoke_jti, jti)
            case RevokeRequest(sub=str(sub)):
                await self._writer.run(signer.revoke_subject, sub)
            case RevokeRequest(sid=str(sid)):
                await self._writer.run(signer.revoke_session, sid)
            case RevokeRequest(client_id=str(client_id)):
                await self._writer.run(signer.revoke_client, client_id)
        return Answer(Done())

    async def purge(self, caller: Caller, request: Request) -> Response:
        """DELETE /app/clear/all/tokens"""
        steps = caller.acting(self._signer).purge_steps()
        purged = 0
        # Not together with other changes, which would wait: an engine may allow them between two steps.
        while (step := await self._lookups.elsewhere(next, steps, None)) is not None:
            purged += step
            await asyncio.sleep(PURGE_PAUSE)
        return Answer(Purged(purged=purged))

    def _granted(self, caller: Caller, request: IssueRequest) -> NewToken:
        check_public(request.purpose)
        caller.require(scope_words(request.scope))
        return _new(caller.acting(self._signer).grant(request, caller.client_id))

    def _outcomes(self, caller: Caller, requests: list[Raw]) -> NewTokens:
        return NewTokens(tokens=[self._outcome(caller, raw) for raw in requests])

    def _outcome(self, caller: Caller, raw: Raw) -> Outcome:
        try:
            new = self._granted(caller, decoded(raw, IssueRequest))
            return Outcome(token=new.token, jti=new.jti, exp=new.exp)
        except (RequestInvalid, CredentialMissing, ScopeInsufficient) as error:
            return refusal(error)

    def _verdicts(self, signer: Signer, tokens: list[str], request: ValidateRequest) -> list[Verdict]:
        found = signer.validate_each(tokens, purpose=request.purpose, **request.demands())
        return [
            Verdict(status=False, code=said.code, detail=str(said))
            if isinstance(said, TokenError)
            else Verdict(claims=said)
            for said in found
        ]


def _new(issued: Issued) -> NewToken:
    return NewToken(token=issued.token, jti=issued.claims.jti, exp=issued.claims.exp)
