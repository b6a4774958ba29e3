"""Short-lived API keys: made by a user for a program, limited to some scopes, and ended one by one.

The key is a token and is shown once. The application keeps its id for the list of "your keys", which
suffices to end it, and is worth nothing to a thief. Its purpose keeps it apart from sessions: no key makes
another key, or changes a password.

It avoids a table of secrets, a key that may do more than its owner, a key for ever, and deleting the keys of
others by their id.
"""

from dataclasses import dataclass

from signer import Claims, Signer

PURPOSE = "api-key"
#: What keys may do at all; a session can do more.
SCOPES = frozenset({"read", "write"})


@dataclass(frozen=True)
class Note:
    """A row of your own table of keys, by the key's id."""

    owner: str
    label: str
    expires_at: int


def create(
    signer: Signer, notes: dict[str, Note], owner: str, label: str, *, scopes: set[str], held: set[str]
) -> str:
    """A key for some of the scopes that its owner holds; show it once, and keep it nowhere."""
    if not scopes <= SCOPES & held:
        raise PermissionError("a key may do what its owner may, and no more")
    key = signer.issue(purpose=PURPOSE, sub=owner, ttl=24 * 60 * 60, scope=" ".join(sorted(scopes)) or None)
    claims = signer.validate(key, purpose=PURPOSE)
    notes[claims.jti] = Note(owner, label, claims.exp)
    return key


def check(signer: Signer, key: str, scope: str) -> Claims:
    """Whose key this is, on every call; raises TokenError where it is not good for this."""
    return signer.validate(key, purpose=PURPOSE, scope=scope)


def delete(signer: Signer, notes: dict[str, Note], owner: str, jti: str) -> bool:
    """End one of one's own keys; whether there was such a one."""
    if jti not in notes or notes[jti].owner != owner:
        return False
    signer.revoke_jti(jti)
    del notes[jti]
    return True
