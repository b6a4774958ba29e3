"""Tokens as the users of a Starlette application, through Starlette's own AuthenticationMiddleware.

    backend = TokenBackend(signer.validate, cookie="session")
    Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)

For another purpose or an audience: `partial(signer.validate, purpose="session", aud="shop")`. The method
`validate` of a Verifier works, too. Browsers also add a cookie to requests that pages of other sites send, so
set it with the attribute SameSite.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from ..errors import StoreRequired, SystemUnavailable, TokenError
from ..tokens.claims import Claims, check_reusable, scope_words

logger = logging.getLogger(__name__)

_REFUSED: Final = "The token is not valid."
_UNDECIDED: Final = "The token cannot be checked now: try again."


@dataclass(frozen=True)
class TokenUser(BaseUser):
    """The user that a valid token stands for."""

    claims: Claims

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def display_name(self) -> str:
        """The token's subject; "" where it has none."""
        return self.claims.sub or ""

    @property
    def identity(self) -> str:
        """The token's subject, or its id if it has none: two users without a name are not the same user."""
        return self.claims.sub or f"jti:{self.claims.jti}"


class Undecided(AuthenticationError):
    """The revocation list or the clock does not work now. The request must not count as anonymous."""


class TokenBackend(AuthenticationBackend):
    """Authenticates requests by `Authorization: Bearer`, or by a cookie if there is no Authorization header.
    A request with neither is anonymous. A request is refused if its token is not valid, if it has two tokens,
    or if its Authorization has another scheme.

    The scopes are the words of the token's scope, and "authenticated". A token for the service itself, and
    one whose uses are counted, is no session: these are refused even if `validate` accepts them.

    Args:
        validate: returns the claims of a valid token; raises as Signer.validate does. It is called in the
            event loop, so a revocation list on another machine needs a copy with a bound. While the copy is
            being loaded, or if the list is too large for one, the loop waits for the engine.
        cookie: the cookie's name; "" for none.
    """

    def __init__(self, validate: Callable[[str], Claims], cookie: str = "") -> None:
        self._validate = validate
        self._cookie = cookie

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        token = token_in(conn.headers, self._cookie)
        if token is None:
            if "authorization" in conn.headers:
                raise AuthenticationError(_REFUSED)
            return None
        claims = self._admitted(token)
        return AuthCredentials(["authenticated", *sorted(scope_words(claims.scope))]), TokenUser(claims)

    def on_error(self, conn: HTTPConnection, error: AuthenticationError) -> Response:
        """The middleware's answer to a refused request: 401, or 503 if the token cannot be checked now."""
        if isinstance(error, Undecided):
            # The reason is for the operator only.
            logger.error("%s", error.__cause__)
            return PlainTextResponse(str(error), 503, {"retry-after": "1"})
        # RFC 6750, section 3.1: without a token, the challenge names no error.
        is_shown = token_in(conn.headers, self._cookie) is not None
        challenge = 'Bearer error="invalid_token"' if is_shown else "Bearer"
        response = PlainTextResponse(str(error), 401, {"www-authenticate": challenge})
        if self._cookie and "authorization" not in conn.headers:
            # A browser that kept the cookie would be refused at the login page, too.
            response.delete_cookie(self._cookie, secure=True, httponly=True)
        return response

    def _admitted(self, token: str) -> Claims:
        try:
            # In the event loop: a look-up takes microseconds, and 250 ms at most if the file is locked.
            claims = self._validate(token)
            check_reusable(claims)
        # StoreRequired: the token has max_uses, and the Signer has no revocation list.
        except (TokenError, StoreRequired):
            raise AuthenticationError(_REFUSED) from None
        except SystemUnavailable as error:
            raise Undecided(_UNDECIDED) from error
        return claims


def token_in(headers: Headers, cookie: str) -> str | None:
    """The token in `Authorization: Bearer` or, if there is no such header, in the cookie of this name.

    None if there is no token, for example because the header has another scheme. "", which is never a valid
    token, if there are two headers or two cookies: an application behind us might read the other one.
    """
    found: list[str | None]
    if values := [value.partition(" ") for value in headers.getlist("authorization")]:
        found = [token.strip(" \t") if scheme.lower() == "bearer" else None for scheme, _, token in values]
    else:
        pairs = [pair.partition("=") for value in headers.getlist("cookie") for pair in value.split(";")]
        found = [value.strip(" \t") for name, _, value in pairs if cookie and name.strip(" \t") == cookie]
    if all(token is None for token in found):
        return None
    return found[0] if len(found) == 1 else ""
