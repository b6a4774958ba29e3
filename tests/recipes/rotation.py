"""Automatic rotation: a session's token lives for minutes, and is replaced while the session is used.

A token past half its life is answered with its successor as a new cookie. Tabs that ask at the same time, and
a browser that lost the answer and asks again within 30 seconds, get the same one. If a replaced token comes
later, two parties have it and one is a thief: the session ends, and the owner must log in again.

It avoids logging users out because two tabs asked at once, a thief who goes on unnoticed with the successor,
and a session without end.
"""

import time

from signer import Claims, Signer
from signer.errors import TokenRotated

PURPOSE = "access"
LIFE = 15 * 60
#: Seconds from the log-in until the session ends, whatever the user does.
SESSION_LIFE = 12 * 60 * 60


def log_in(signer: Signer, user_id: str) -> str:
    """The first token, after the right password."""
    return signer.issue(purpose=PURPOSE, sub=user_id, ttl=LIFE)


def admit(signer: Signer, token: str, now: float | None = None) -> tuple[Claims, str | None]:
    """The claims of the request's token, and the token to set as the new cookie, if it is time for one.
    Raises TokenError if the user must log in."""
    try:
        claims = signer.validate(token, purpose=PURPOSE)
    except TokenRotated:
        # The thief may have come first, and have the successor: it must end, too.
        signer.revoke(token)
        raise
    if (time.time() if now is None else now) < (claims.iat + claims.exp) / 2:
        return claims, None
    issued = signer.rotate(token, purpose=PURPOSE, session_ttl=SESSION_LIFE)
    return issued.claims, issued.token
