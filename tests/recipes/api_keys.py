"""Short-lived API keys: created by a user for a program, limited to some scopes, deleted one by one.

The key is a token and is shown once. The application keeps only its id, for the list of "your keys". The id
suffices to delete the key, and is worth nothing to a thief. The purpose keeps keys apart from sessions: no
key can create another key or change a password.

It avoids a table of secrets, a key that may do more than its owner, a key that lives for ever, and deleting
other users' keys by their id.
"""

from dataclasses import dataclass

from signer import Claims, Signer

PURPOSE = "api-key"
#: The most that a key may do; a session can do more.
SCOPES = frozenset({"read", "write"})


@dataclass(frozen=True)
class Note:
    """A row of your own table of keys; the id is that of the key."""

    owner: str
    label: str
    expires_at: int


def create(
    signer: Signer, notes: dict[str, Note], owner: str, label: str, *, scopes: set[str], held: set[str]
) -> str:
    """A key for some of the scopes that its owner has. Show it once, and do not store it."""
    if not scopes <= SCOPES & held:
        raise PermissionError("a key may do what its owner may, and no more")
    key = signer.issue(purpose=PURPOSE, sub=owner, ttl=24 * 60 * 60, scope=" ".join(sorted(scopes)) or None)
    claims = signer.validate(key, purpose=PURPOSE)
    notes[claims.jti] = Note(owner, label, claims.exp)
    return key


def check(signer: Signer, key: str, scope: str) -> Claims:
    """Whose key this is, for every call. Raises TokenError if the key is not valid for this."""
    return signer.validate(key, purpose=PURPOSE, scope=scope)


def delete(signer: Signer, notes: dict[str, Note], owner: str, jti: str) -> bool:
    """Delete one of the user's own keys; return whether there was one."""
    if jti not in notes or notes[jti].owner != owner:
        return False
    signer.revoke_jti(jti)
    del notes[jti]
    return True
