"""What a token says, and the rules that need neither key nor list.

Names follow RFC 7519 (JWT) and RFC 9068 wherever those have one.
"""

from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Meta, Struct

from ..errors import (
    TokenAudienceWrong,
    TokenExpired,
    TokenNotYetValid,
    TokenPurposeWrong,
    TokenScopeInsufficient,
    TokenUsed,
)

DEFAULT_PURPOSE: Final = "access"
#: Purposes under this prefix are the service's own.
RESERVED_PREFIX: Final = "signer:"
#: The purpose of client credentials.
CLIENT_PURPOSE: Final = "signer:client"
#: The purpose of a code's challenge is this prefix and the purpose of the code. It proves nothing by itself.
CODE_PREFIX: Final = "signer:code:"
#: The last second of the year 9999, the last that calendars can write.
MAX_TIME: Final = 253_402_300_799

Time = Annotated[int, Meta(ge=0, le=MAX_TIME)]
#: Milliseconds since 1970; the maximum is the largest integer that every JSON reader keeps exactly.
Generation = Annotated[int, Meta(ge=0, le=2**53)]
Uses = Annotated[int, Meta(ge=1, le=1_000_000_000)]
#: Ours have 22 characters, and names 64. A holder of a purpose's key can choose others, and every engine must
#: be able to store them: PostgreSQL indexes up to 2,700 bytes.
Id = Annotated[str, Meta(max_length=255)]


class Claims(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What a token says. A token with an unknown member is refused, because that member may be a restriction
    that a later version made.

    Attributes:
        jti: the token's id, which names it in the revocation list.
        exp: when the token expires, in seconds since 1970 (UTC).
        purpose: what the token was issued for.
        sub: the subject, such as a user's id.
        scope: what the token permits: words separated by spaces.
        aud: the audience that the token is meant for.
        client_id: the client that asked for the token.
        sid: the session that the token belongs to.
        data: the JSON that the issuer put into the token.
        max_uses: how many times the token can be consumed.
        bnd: an HMAC of the state that the token is bound to.
        gen: the generation in which the token was issued: revoking a subject, a session or a client refuses
            earlier ones.
        auth_time: when the first token of this chain of rotated ones was issued, in seconds since 1970 (UTC).
        iat: when the token was issued, in seconds since 1970 (UTC). It is read from the token's timestamp.
        kid: the id of the key that signed the token. It is read from the token's prefix.
    """

    jti: Id
    exp: Time
    purpose: str
    sub: str | None = None
    scope: str | None = None
    aud: str | None = None
    client_id: Id | None = None
    sid: Id | None = None
    data: Any = None
    max_uses: Uses | None = None
    #: See keys.Key.binding.
    bnd: str | None = None
    #: See stores.Store.advance.
    gen: Generation = 0
    auth_time: Time | None = None
    #: From the token's timestamp and prefix, never from its payload.
    iat: int = 0
    kid: str = ""


class Unverified(Struct, frozen=True):
    """What a text says of itself. Nothing is verified: never decide anything by this."""

    unverified_claims: Claims


class Issued(NamedTuple):
    """A new token and its claims."""

    token: str
    claims: Claims

    def __repr__(self) -> str:
        return "Issued(…)"


class Challenge(NamedTuple):
    """A code to send to its subject, and the token that must come back with it."""

    token: str
    code: str
    claims: Claims

    def __repr__(self) -> str:
        return "Challenge(…)"


class Use(Struct, frozen=True):
    """One use granted: the token's claims and how many uses are left after it."""

    claims: Claims
    uses_left: int


def started(claims: Claims) -> int:
    """The second at which the token's chain of rotated tokens began: `auth_time`, or else `iat`."""
    return claims.iat if claims.auth_time is None else claims.auth_time


def check_time(claims: Claims, now: float, leeway: int, max_age: int) -> int:
    """The time rule: `iat - leeway <= now < min(exp, started + max_age)`; all in seconds. Returns that end.

    Leeway allows for a clock behind the issuer's; it never prolongs a life. A token that was rotated
    is as old as the first of its chain, or rotating would make an old login a fresh one (OpenID Connect Core,
    section 3.1.2.1, max_age).

    Raises:
        TokenNotYetValid, TokenExpired.
    """
    oldest = (claims.iat if claims.auth_time is None else claims.auth_time) + max_age
    end = oldest if oldest < claims.exp else claims.exp  # noqa: FURB136 - on every token's way
    # Written so that a `now` of NaN fails.
    if not claims.iat - leeway <= now:
        raise TokenNotYetValid
    if not now < end:
        raise TokenExpired
    return end


def check_audience(claims: Claims, aud: str | None) -> None:
    """Token and caller must name the same audience, or neither one (RFC 7519, section 4.1.3).

    Raises:
        TokenAudienceWrong.
    """
    if claims.aud != aud:
        raise TokenAudienceWrong


def check_scope(claims: Claims, scope: str) -> None:
    """Every word of `scope` must stand in the token's (RFC 6749, section 3.3).

    Raises:
        TokenScopeInsufficient.
    """
    if not scope_words(scope) <= scope_words(claims.scope):
        raise TokenScopeInsufficient


def check_reusable(claims: Claims) -> None:
    """Return only if the token may be presented repeatedly, as a session is. One with `max_uses` may not,
    because nothing counts there; nor may the service's own: a client's credential, or a challenge.

    Raises:
        TokenPurposeWrong, TokenUsed.
    """
    if claims.purpose.startswith(RESERVED_PREFIX):
        raise TokenPurposeWrong
    if claims.max_uses is not None:
        raise TokenUsed


def check_proof(claims: Claims) -> None:
    """Return only if the token proves anything: a challenge does not, before its code is verified.

    Raises:
        TokenPurposeWrong.
    """
    if claims.purpose.startswith(CODE_PREFIX):
        raise TokenPurposeWrong


@lru_cache
def scope_words(scope: str | None) -> frozenset[str]:
    """The words of a space-separated scope; none for None."""
    return frozenset((scope or "").split())
