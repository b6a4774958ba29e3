"""Automatic rotation: a session whose token lives for minutes, and is traded for the next one in passing.

A token past half its life is answered with its successor as a new cookie. Tabs that trade it at once, and a
browser that lost the answer and asks again within 30 seconds, get the same one. Who comes later with a token
that was traded shares it with somebody: one is a thief, so the session ends, and the owner logs in again.

It avoids logging users out because two tabs were quick, a thief who goes on unnoticed with the successor,
and a session without end.
"""

import time

from signer import Claims, Signer
from signer.errors import TokenRotated

PURPOSE = "access"
LIFE = 15 * 60
#: Seconds from the log-in; however busy, the session ends then.
SESSION_LIFE = 12 * 60 * 60


def log_in(signer: Signer, user_id: str) -> str:
    """The first token, after the right password."""
    return signer.issue(purpose=PURPOSE, sub=user_id, ttl=LIFE)


def admit(signer: Signer, token: str, now: float | None = None) -> tuple[Claims, str | None]:
    """What the token of a request says, and the token to set as the new cookie, if it is time for one.
    Raises TokenError where the user must log in."""
    try:
        claims = signer.validate(token, purpose=PURPOSE)
    except TokenRotated:
        # If the thief was first, it is the thief who has the successor.
        signer.revoke(token)
        raise
    if (time.time() if now is None else now) < (claims.iat + claims.exp) / 2:
        return claims, None
    issued = signer.rotate(token, purpose=PURPOSE, session_ttl=SESSION_LIFE)
    return issued.claims, issued.token
