"""Password reset: a link by mail that sets one new password, within a quarter of an hour.

The token is for this purpose alone, and bound to the user and the password's hash: once the password has
changed, by this link or in any other way, every link mailed before is dead. Opening the link only shows a
form, since mail scanners open links, too; sending the form consumes the token.

It avoids a table of reset tokens, a link that works after the password was changed, an answer that tells who
has an account, and a thief's session that outlives the new password.
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
    """Mail a link to whoever has this address. The page says "look into your mail" in either case; let a
    queue do the sending, or the time it takes tells who has an account."""
    for user in users.values():
        if user.email == email:
            token = signer.issue(purpose=PURPOSE, sub=user.id, ttl=15 * 60, bind=_state(user))
            send(user.email, f"https://www.example.org/reset?user={user.id}&token={token}")


def set_password(signer: Signer, users: dict[str, User], user_id: str, token: str, new_hash: str) -> bool:
    """Whether the link was good, and the password is the new one."""
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
    # With the id: users without a password may all have the same hash.
    return f"{user.id} {user.password_hash}"
