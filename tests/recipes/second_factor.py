"""A code of six digits as the second factor of a log-in.

A user who knows the password gets a challenge, which is no session, and receives the code in another way.
Each challenge allows five guesses, and each user twenty an hour. A guess is counted before it is checked, so
that guessing in parallel gains nothing. No table holds the code: only guesses are stored.

It avoids a session that exists before the second factor, a user id taken from the form, and a code that works
twice.
"""

from collections.abc import Callable

from signer import Signer, TokenError
from signer.errors import AttemptsExceeded, CodeWrong, RequestInvalid

PURPOSE = "login"
SESSION = "access"


def begin(signer: Signer, user_id: str, send: Callable[[str], None]) -> str:
    """After the right password: send the code, and return the challenge for a hidden field of the form."""
    token, code, _ = signer.issue_code(sub=user_id, purpose=PURPOSE, ttl=5 * 60)
    send(f"Your code: {code}. Nobody of us will ever ask you for it.")
    return token


def finish(signer: Signer, challenge: str, typed: str) -> tuple[str, str]:
    """The token of a session and "", or "" and a message for the user."""
    try:
        claims = signer.verify_code(challenge, typed.strip(), purpose=PURPOSE)
    except CodeWrong as error:
        return "", f"That is not the code. Attempts left: {error.attempts_left}."
    except AttemptsExceeded:
        return "", "Too many attempts: log in again, perhaps in an hour."
    except RequestInvalid:
        return "", "A code has six digits."  # The text cannot be a code, so it is not counted.
    except TokenError:
        return "", "Log in again."
    return signer.issue(purpose=SESSION, sub=claims.sub, ttl=12 * 60 * 60), ""
