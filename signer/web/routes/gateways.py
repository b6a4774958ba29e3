"""/auth: a gateway asks whether to forward a request, and in whose name."""

from functools import partial
from typing import Final
from urllib.parse import quote

from starlette.datastructures import QueryParams
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...aio.lookups import Lookups
from ...contrib.starlette import token_in
from ...errors import (
    TokenError,
    TokenPurposeWrong,
    TokenScopeInsufficient,
)
from ...signer import Signer
from ...tokens.claims import Claims, check_audience, check_scope
from ..access.sessions import checked_session
from ..messages.answers import Answer, Done
from ..messages.problems import challenge, problem

#: Every visible ASCII character except "%". All others in a subject are percent-encoded, so that no two
#: subjects look alike, and none can end the header.
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_MISSING: Final = "Send a token: Authorization: Bearer …"
_REFUSED: Final = "The token is not valid here."
_SHORT: Final = "The token's scope does not cover this request."


class ForwardAuth:
    """Answers 200, 401 or 403, and nothing else, to any method. nginx turns any other status into 500, and
    Envoy forwards nothing but 200.

    The query of the URL, which the gateway's configuration sets, says what the token must have: `scope`,
    `purpose`, `aud`. Every value given applies. So a client whose own query reaches this URL (Envoy appends
    it) can add demands, but cannot remove any. A token for the service itself, and one whose uses are
    counted, is no session, and is always refused.

    Args:
        lookups: runs validations that may have to wait for a network.
        cookie: the cookie that has the token if there is no Authorization header; "" for none.
    """

    def __init__(self, lookups: Lookups[Signer], cookie: str = "") -> None:
        self._lookups = lookups
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.answer(HTTPRequest(scope))
        await response(scope, receive, send)

    async def answer(self, request: HTTPRequest) -> Response:
        """The answer to a request of any method."""
        token = token_in(request.headers, self._cookie)
        if token is None:
            return problem(401, "token_missing", _MISSING, challenge())
        try:
            demands = partial(_check_demands, request.query_params)
            claims = await self._lookups.run(checked_session, token, demands)
        except TokenScopeInsufficient as error:
            return problem(403, error.code, _SHORT, challenge("insufficient_scope"))
        # The reason is not given, because anybody may see this answer.
        except TokenError:
            return problem(401, TokenError.code, _REFUSED, challenge("invalid_token"))
        return Answer(Done(), headers=_identity(claims))


def _check_demands(demands: QueryParams, claims: Claims) -> None:
    if {*demands.getlist("purpose")} - {claims.purpose}:
        raise TokenPurposeWrong
    for aud in demands.getlist("aud"):
        check_audience(claims, aud)
    for scope in demands.getlist("scope"):
        check_scope(claims, scope)


def _identity(claims: Claims) -> dict[str, str]:
    # Every answer has all of these headers. If one were missing, a header of that name which the client sent
    # could take its place. All are quoted, because a holder of a purpose's key can put any text into a token.
    return {
        "x-token-subject": quote(claims.sub or "", safe=_VISIBLE),
        "x-token-scope": quote(claims.scope or "", safe=_VISIBLE + " "),
        "x-token-id": quote(claims.jti, safe=_VISIBLE),
        "x-token-client": quote(claims.client_id or "", safe=_VISIBLE),
    }
