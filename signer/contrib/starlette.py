"""Tokens as the users of a Starlette application, through Starlette's own AuthenticationMiddleware.

    backend = TokenBackend(signer.validate, cookie="session")
    Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)

For another purpose or an audience: `partial(signer.validate, purpose="session", aud="shop")`. A Verifier's
`validate` will do, too. A cookie also comes with what other sites' pages send: set it with SameSite.
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
    """Whoever a good token speaks for."""

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
        """The token's subject, or its id: two without a name are not the same one."""
        return self.claims.sub or f"jti:{self.claims.jti}"


class Undecided(AuthenticationError):
    """List or clock could not answer. Nobody is anonymous for that."""


class TokenBackend(AuthenticationBackend):
    """Authenticates requests by `Authorization: Bearer`, and where there is no Authorization by a cookie.
    One without either is anonymous; one with a token that is not good, with two, or with an Authorization of
    another scheme is refused.

    The scopes are the token's words, and "authenticated". Neither a token for the service itself nor one
    that is to be used up is anybody's session: they are refused whatever `validate` says.

    Args:
        validate: the claims of a token that is good, by whatever purpose; raises as Signer.validate does. It
            is called in the event loop: of a list on another machine there must be a copy with a bound. While
            that is loaded, or where the list is too large for it, the loop waits for the engine.
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
        """The middleware's answer to whom it refuses: 401, or 503 where nobody can tell."""
        if isinstance(error, Undecided):
            # What ails the machine is for its operator.
            logger.error("%s", error.__cause__)
            return PlainTextResponse(str(error), 503, {"retry-after": "1"})
        # RFC 6750, section 3.1: no error is named to those who showed no token.
        is_shown = token_in(conn.headers, self._cookie) is not None
        challenge = 'Bearer error="invalid_token"' if is_shown else "Bearer"
        response = PlainTextResponse(str(error), 401, {"www-authenticate": challenge})
        if self._cookie and "authorization" not in conn.headers:
            # A browser that kept it would be refused at the login page, too.
            response.delete_cookie(self._cookie, secure=True, httponly=True)
        return response

    def _admitted(self, token: str) -> Claims:
        try:
            # In the event loop: a look-up takes microseconds, and a locked file 250 ms at the most.
            claims = self._validate(token)
            check_reusable(claims)
        # StoreRequired: a token with max_uses, and a Signer without a list.
        except (TokenError, StoreRequired):
            raise AuthenticationError(_REFUSED) from None
        except SystemUnavailable as error:
            raise Undecided(_UNDECIDED) from error
        return claims


def token_in(headers: Headers, cookie: str) -> str | None:
    """The token that a request shows, in `Authorization: Bearer` or, where there is no such header, in the
    cookie of this name; None where it shows none, as in another scheme. "", which is no token, where it has
    two headers or cookies: somebody behind us may see the other one."""
    found: list[str | None]
    if values := [value.partition(" ") for value in headers.getlist("authorization")]:
        found = [token.strip(" \t") if scheme.lower() == "bearer" else None for scheme, _, token in values]
    else:
        pairs = [pair.partition("=") for value in headers.getlist("cookie") for pair in value.split(";")]
        found = [value.strip(" \t") for name, _, value in pairs if cookie and name.strip(" \t") == cookie]
    if all(token is None for token in found):
        return None
    return found[0] if len(found) == 1 else ""
