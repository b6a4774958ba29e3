"""Chains of rotated tokens: what the successor of a token is, and whether a token has kin."""

import hashlib
import hmac

from msgspec.structs import replace

from ..stores.contract import Entry
from ..tokens.claims import Claims, started
from ..tokens.keys import base64url


def successor(claims: Claims, iat: int, end: int) -> Claims:
    """The claims that a token is traded for at second `iat`, the same to every caller. They live as long as
    the token was to live, and not past second `end`, where the chain ends."""
    exp = min(iat + claims.exp - claims.iat, end)
    # Not of a key: machines that sign with different ones, while keys are changed, must agree.
    name = f"signer.v1:next:{claims.purpose}:{exp}".encode()
    jti = base64url(hmac.digest(claims.jti.encode(), name, hashlib.sha256)[:16])
    # Its generation is the token's: what revokes the session after that was looked up revokes it, too.
    return replace(
        claims,
        jti=jti,
        exp=exp,
        sid=claims.sid or claims.jti,
        # The first token may be of a clock that runs ahead, and no token begins before its chain.
        auth_time=min(started(claims), iat),
        iat=0,
        kid="",
    )


def may_have_kin(claims: Claims, entry: Entry) -> bool:
    """Whether the token has a predecessor or successor; where its row is purged, nobody can tell."""
    is_purged = claims.exp < entry.horizon and claims.max_uses is None
    return claims.auth_time is not None or entry.rotated_at > 0 or is_purged
