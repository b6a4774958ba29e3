"""Sessions that can be ended: log in, log out, log out everywhere.

The cookie holds the token, and no table holds sessions. Ending one writes a row, which every check in every
process sees at once. After a change of the password all sessions end, and the present browser gets a new one:
revoke first, then issue.

It avoids a log-out that only deletes the cookie while a copy of it still works, and a session id from before
the log-in. SameSite prevents other sites from acting in the user's name; a GET must not change anything.
"""

from contextlib import suppress

from signer import Signer, TokenError

#: Gateways ask for this purpose, too (../deploy); give signer AUTH_COOKIE=__Host-session there.
PURPOSE = "access"
COOKIE = "__Host-session"
LIFE = 12 * 60 * 60


def log_in(signer: Signer, user_id: str) -> str:
    """The Set-Cookie of a new session, after the right password."""
    return _cookie(signer.issue(purpose=PURPOSE, sub=user_id, ttl=LIFE), LIFE)


def user_of(signer: Signer, token: str) -> str | None:
    """Whose session this is, checked for every request; at None redirect to the log-in."""
    try:
        return signer.validate(token, purpose=PURPOSE).sub
    except TokenError:
        return None


def log_out(signer: Signer, token: str) -> str:
    """End this session; return the Set-Cookie that deletes it. If the list is down this raises: the session
    has not ended then."""
    with suppress(TokenError):
        signer.revoke(token)
    return _cookie("", 0)


def log_out_everywhere(signer: Signer, user_id: str) -> str:
    """End all sessions of a user."""
    signer.revoke_subject(user_id)
    return _cookie("", 0)


def password_changed(signer: Signer, user_id: str) -> str:
    """End all sessions of a user, and begin a new one where the password was changed."""
    signer.revoke_subject(user_id)
    return log_in(signer, user_id)


def _cookie(token: str, life: int) -> str:
    return f"{COOKIE}={token}; Max-Age={life}; Path=/; Secure; HttpOnly; SameSite=Lax"
