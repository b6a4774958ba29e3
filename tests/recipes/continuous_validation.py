"""Continuous validation: every request is checked, long ones repeatedly, and dangerous ones more strictly.

A check is a look-up of microseconds: without a cache of its results a revocation takes effect at the next
call. A stream checks before each message, after it has waited for it. A dangerous action demands a log-in
within five minutes: `max_age` counts from the log-in, however often the token was rotated.

It avoids a cache of "valid", a stream that continues after the log-out, and a young token that passes for a
recent log-in.
"""

from collections.abc import Iterable, Iterator

from signer import Claims, Signer

PURPOSE = "access"


def stream(signer: Signer, token: str, messages: Iterable[str]) -> Iterator[str]:
    """Messages for as long as the token is valid; then raises TokenError."""
    for message in messages:
        signer.validate(token, purpose=PURPOSE)
        yield message


def require_recent_login(signer: Signer, token: str) -> Claims:
    """Whose token it is, if the user logged in within the last five minutes. At TokenExpired ask for the
    password, and issue a new session."""
    return signer.validate(token, purpose=PURPOSE, max_age=5 * 60)
