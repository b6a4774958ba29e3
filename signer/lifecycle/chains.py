"""Chains of rotated tokens: trading a token for its successor, and ending the chain of a token that was
stolen."""

import hashlib
import hmac

from msgspec.structs import replace

from ..errors import TokenExpired, TokenNotRotatable, TokenRotated, TokenUsed
from ..stores import names
from ..stores.contract import Entry
from ..tokens.claims import Claims, Issued, check_audience, check_proof, started
from ..tokens.keys import base64url
from ..tokens.values import Ttl, converted
from .core import Core, check_owner
from .issuing import sealed
from .validation import named


def rotate(  # noqa: PLR0917 - in the order of Signer's
    core: Core,
    token: str,
    purpose: str,
    aud: str | None,
    bind: str | None,
    session_ttl: int | None,
    client_id: str | None,
) -> Issued:
    """See Signer.rotate."""
    with core.hooks.operation("rotate") as operation:
        store = core.required_store()
        claims = operation.about(core.codec.decode(token, named(purpose)))
        check_owner(claims, client_id)
        check_proof(claims)
        if claims.max_uses is not None:
            raise TokenNotRotatable
        check_audience(claims, aud)
        longest = converted(session_ttl, Ttl | None, "session_ttl") or core.max_ttl
        end = started(claims) + min(longest, core.max_ttl)
        claims = replace(claims, gen=_admit_or_end(core, claims, bind))
        now = int(core.admission.now())
        if now >= end:
            raise TokenExpired
        # A trial: a successor that would be too long must be refused before the token is traded.
        sealed(core, successor(claims, now, end), now, bind)
        core.begin(operation)
        rotated_at = store.rotate(names.row(claims), claims.exp, now)
        if rotated_at is None:
            raise TokenUsed
        if core.admission.is_past_grace(rotated_at, core.admission.now()):
            _admit_or_end(core, claims, bind)  # another trade came first while this one slept
        return Issued(*sealed(core, successor(claims, rotated_at, end), rotated_at, bind))


def _admit_or_end(core: Core, claims: Claims, bind: str | None) -> int:
    # A token that is traded again is held by two, and one of them stole it.
    try:
        return core.admission.admit(claims, bind=bind, is_change=True)
    except TokenRotated:
        _end(core, claims)
        raise
    except TokenExpired:
        # An expired token reveals a theft as well, until its row is purged.
        if not core.admission.is_rotated(claims):
            raise
        _end(core, claims)
        raise TokenRotated from None


def _end(core: Core, claims: Claims) -> None:
    with core.hooks.operation("theft") as operation:
        operation.about(claims)
        core.begin(operation)
        core.advance(names.by_chain(claims))


def successor(claims: Claims, iat: int, end: int) -> Claims:
    """The claims that a token is traded for at second `iat`, the same for every caller. They live as long as
    the token did, but not past second `end`, at which the chain ends."""
    exp = min(iat + claims.exp - claims.iat, end)
    # Not derived from a key: machines that sign with different keys during a change of keys must agree.
    name = f"signer.v1:next:{claims.purpose}:{exp}".encode()
    jti = base64url(hmac.digest(claims.jti.encode(), name, hashlib.sha256)[:16])
    # Its generation is the token's: a revocation of the session after that look-up revokes it, too.
    return replace(
        claims,
        jti=jti,
        exp=exp,
        sid=claims.sid or claims.jti,
        # The first token may come from a clock that is ahead, and no token begins before its chain.
        auth_time=min(started(claims), iat),
        iat=0,
        kid="",
    )


def may_have_kin(claims: Claims, entry: Entry) -> bool:
    """Whether the token has, or may have, a predecessor or a successor. If its row was purged, it may."""
    is_purged = claims.exp < entry.horizon and claims.max_uses is None
    return claims.auth_time is not None or entry.rotated_at > 0 or is_purged
