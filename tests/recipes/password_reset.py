"""Password reset: a link by mail that sets one new password, within a quarter of an hour.

The token is for this purpose only, and bound to the user and the hash of the password. When the password
changes, by this link or in any other way, every link that was mailed before is refused. Opening the link only
shows a form, because mail scanners open links, too. Sending the form consumes the token.

It avoids a table of reset tokens, a link that works after the password was changed, an answer that reveals
who has an account, and a thief's session that outlives the old password.
"""

from collections.abc import Callable
from dataclasses import dataclass

from signer import Signer, TokenError

PURPOSE = "password-reset"


@dataclass
class User:
    """A row of your own table of users."""

    id: str
    email: str
    password_hash: str


def ask(signer: Signer, users: dict[str, User], email: str, send: Callable[[str, str], None]) -> None:
    """Mail a link to the user with this address, if there is one. The page says "look into your mail" in
    either case. Let a queue send the mail: otherwise the response time reveals who has an account."""
    for user in users.values():
        if user.email == email:
            token = signer.issue(purpose=PURPOSE, sub=user.id, ttl=15 * 60, bind=_state(user))
            send(user.email, f"https://www.example.org/reset?user={user.id}&token={token}")


def set_password(signer: Signer, users: dict[str, User], user_id: str, token: str, new_hash: str) -> bool:
    """Set the new password; return whether the link was valid."""
    user = users.get(user_id)
    if user is None:
        return False
    try:
        signer.consume(token, purpose=PURPOSE, bind=_state(user))
    except TokenError:
        return False
    user.password_hash = new_hash
    signer.revoke_subject(user.id)
    return True


def _state(user: User) -> str:
    # Together with the id, because users without a password may all have the same hash.
    return f"{user.id} {user.password_hash}"
