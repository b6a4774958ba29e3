"""FastAPI: a dependency that gives the claims of the request's token, with scopes by `Security`.

HTTPBearer finds the token and adds it to the API's documentation. `current` checks it for every request, in a
worker thread, because a look-up may have to wait for a locked list. The status says what the caller should
do: 401 get a token, 403 get another one with this scope, 503 try again. It does not say why a token is
refused.

It avoids reading one of two Authorization headers, and a token for a number of uses that passes as a session.
"""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes

from signer import Claims, Signer, SystemUnavailable, TokenError
from signer.errors import TokenScopeInsufficient

bearer = HTTPBearer(auto_error=False)


def current(
    request: Request,
    needed: SecurityScopes,
    sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Claims:
    """The claims of the one valid token in the request, which has every scope that is needed."""
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        raise _refusal(401, "invalid_token")
    if (
        sent is None
    ):  # A token in another scheme does not count, either: no error code is sent then (RFC 6750, section 3.1).
        raise HTTPException(401, "Send a token.", {"WWW-Authenticate": "Bearer"})
    try:
        claims: Claims = request.app.state.signer.validate(sent.credentials, scope=needed.scope_str)
    except TokenScopeInsufficient:
        raise _refusal(403, "insufficient_scope") from None
    except TokenError:
        raise _refusal(401, "invalid_token") from None
    except SystemUnavailable:
        raise HTTPException(503, "Try again.", {"Retry-After": "1"}) from None
    if claims.max_uses is not None:
        raise _refusal(401, "invalid_token")
    return claims


def _refusal(status: int, error: str) -> HTTPException:
    return HTTPException(status, error, {"WWW-Authenticate": f'Bearer error="{error}"'})


def create_app(signer: Signer) -> FastAPI:
    """An application with two routes."""
    app = FastAPI()
    app.state.signer = signer

    @app.get("/me")
    def me(claims: Annotated[Claims, Depends(current)]) -> dict[str, str | None]:
        return {"sub": claims.sub}

    @app.post("/notes")
    def add_note(claims: Annotated[Claims, Security(current, scopes=["write"])]) -> dict[str, str | None]:
        return {"added_by": claims.sub}

    return app
