"""Guest access: a link that opens one document for a week, without an account.

The token has no subject, so that a guest is never taken for a user, and a purpose of its own, so that it is
no session. What it opens stands in the token. All links of one document are one group (`sid`): closing it
ends every link there is, whoever has it, and links shared afterwards work.

It avoids taking the document's id from the address, a hidden user "guest" with rights of its own, and a
table of links. Send `Referrer-Policy: no-referrer` with the page: the link is the key.
"""

from signer import Signer, TokenError

PURPOSE = "guest"


def share(signer: Signer, document: str) -> str:
    """A link to a document, to read it; `document` in the characters A-Z a-z 0-9 . _ ~ -"""
    token = signer.issue(
        purpose=PURPOSE, scope="read", sid=_group(document), data={"document": document}, ttl=7 * 24 * 60 * 60
    )
    return f"https://www.example.org/shared?token={token}"


def document_of(signer: Signer, token: str, scope: str = "read") -> str | None:
    """What this guest may see (or, with another scope, do something to); None for nothing."""
    try:
        claims = signer.validate(token, purpose=PURPOSE, scope=scope)
    except TokenError:
        return None
    return str(claims.data["document"])


def close(signer: Signer, document: str) -> None:
    """End every link to a document."""
    signer.revoke_session(_group(document))


def _group(document: str) -> str:
    # With a prefix: a user's session must never be named like a document.
    return f"document.{document}"
