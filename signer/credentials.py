"""Client credentials: the service guards itself with its own tokens.

A credential is a token with purpose `signer:client`, `sub` and `client_id` the client's name, and `scope`
what it may do and hand out. It expires, is replaced and revoked like any token; no registry is needed.
"""

from typing import Final

from .errors import RequestInvalid
from .signer import Signer
from .tokens.claims import CLIENT_PURPOSE, scope_words
from .tokens.values import Name, Scope, converted

#: What the service itself asks for, one word for each thing a client may do.
SERVICE_SCOPES: Final = frozenset(
    {"token:issue", "token:introspect", "token:revoke", "token:purge", "metrics:read", "revocations:read"}
)


def issue_credential(signer: Signer, client_id: str, scope: str, ttl: int) -> str:
    """A credential for `client_id`, good for `ttl` seconds and for the words of `scope`: some of
    SERVICE_SCOPES, and any others, which it may hand out in the tokens it issues.

    Raises:
        RequestInvalid: naming the argument that cannot be.
    """
    converted(client_id, Name, "client_id")
    check_scopes(scope)
    return signer.issue(purpose=CLIENT_PURPOSE, sub=client_id, client_id=client_id, scope=scope, ttl=ttl)


def check_scopes(scope: str) -> frozenset[str]:
    """The words of `scope`. A word that looks like one of the service's own and is none is a slip of the
    pen that would show only when a call is refused.

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
