"""E-mail verification: a link proves that the user who is logged in reads the mail of an address.

The address stands in the token, so that the link confirms the address it was mailed to and no other. The
account gets the address only then. The token is bound to the account and its present address: once one of
several links is confirmed, the others are refused.

It avoids marking "the account" as verified (ask for your own address, change it to somebody else's, then
click), and confirming in the account of a stranger who signed up with your address.
"""

from collections.abc import Callable
from dataclasses import dataclass

from signer import Signer, TokenError

PURPOSE = "verify-email"


@dataclass
class User:
    """A row of your own table of users; without an address until one is verified."""

    id: str
    email: str = ""


def ask(signer: Signer, user: User, email: str, send: Callable[[str, str], None]) -> None:
    """Mail a link to the address that the user wants to use."""
    token = signer.issue(
        purpose=PURPOSE, sub=user.id, ttl=24 * 60 * 60, data={"email": email}, bind=_state(user)
    )
    send(email, f"https://www.example.org/verify?token={token}")


def confirm(signer: Signer, user: User, token: str) -> bool:
    """Whether the address is now the user's: the user who is logged in, and who pressed the button on the
    page behind the link."""
    try:
        claims = signer.consume(token, purpose=PURPOSE, bind=_state(user)).claims
    except TokenError:
        return False
    user.email = claims.data["email"]
    return True


def _state(user: User) -> str:
    return f"{user.id} {user.email}"
