"""Continuous validation: every request asks again, long ones ask again and again, dangerous ones ask for more.

A check is a look-up of microseconds: nothing is gained by remembering that a token was good, and a
revocation takes effect on the next call. A stream checks before each message, after it has waited for it. What
is dangerous wants a log-in of the last five minutes: `max_age` counts from there, whatever was rotated since.

It avoids a cache of "valid", a stream that goes on after the log-out, and a young token that passes for a
fresh log-in.
"""

from collections.abc import Iterable, Iterator

from signer import Claims, Signer

PURPOSE = "access"


def stream(signer: Signer, token: str, messages: Iterable[str]) -> Iterator[str]:
    """Messages for as long as the token is good; raises TokenError with the first for which it is not."""
    for message in messages:
        signer.validate(token, purpose=PURPOSE)
        yield message


def require_recent_login(signer: Signer, token: str) -> Claims:
    """Whose token it is, if they logged in within five minutes; at TokenExpired ask for the password, and
    issue a new session."""
    return signer.validate(token, purpose=PURPOSE, max_age=5 * 60)
