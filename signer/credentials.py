"""Client credentials: the service authenticates its callers by its own tokens.

A credential is a token with purpose `signer:client`. Its `sub` and `client_id` are the client's name; its
`scope` is what the client may do, and which scopes it may give to others. It expires and is rotated and
revoked like any token, so that no registry of clients is needed.
"""

from typing import Final

from .errors import RequestInvalid
from .signer import Signer
from .tokens.claims import CLIENT_PURPOSE, scope_words
from .tokens.values import Name, Scope, converted

#: The scopes that the service itself demands, one for each thing that a client may do.
SERVICE_SCOPES: Final = frozenset(
    {"token:issue", "token:introspect", "token:revoke", "token:purge", "metrics:read", "revocations:read"}
)


def issue_credential(signer: Signer, client_id: str, scope: str, ttl: int) -> str:
    """A new credential for a client, valid for `ttl` seconds.

    Args:
        scope: space-separated words: those of SERVICE_SCOPES say what the client may do, and any others which
            scopes it may give to the tokens that it issues.

    Raises:
        RequestInvalid: naming the argument that is not acceptable.
    """
    converted(client_id, Name, "client_id")
    check_scopes(scope)
    return signer.issue(purpose=CLIENT_PURPOSE, sub=client_id, client_id=client_id, scope=scope, ttl=ttl)


def check_scopes(scope: str) -> frozenset[str]:
    """The words of `scope`. A word that looks like one of the service's own but is none is refused: the
    typing error would otherwise show only when a call is refused.

    Raises:
        RequestInvalid: naming `scope`.
    """
    if not scope:
        return frozenset()
    words = scope_words(converted(scope, Scope, "scope"))
    strangers = {
        word for word in words if word.startswith(("token:", "metrics:", "revocations:"))
    } - SERVICE_SCOPES
    if strangers:
        known = " ".join(sorted(SERVICE_SCOPES))
        raise RequestInvalid(f"scope: {' '.join(sorted(strangers))} is none of: {known}", "scope")
    return words
