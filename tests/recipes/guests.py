"""Guest access: a link that opens one document for a week, without an account.

The token has no subject, so that a guest is never mistaken for a user, and its own purpose, so that it is no
session. The document stands in the token. All links to one document are one group (`sid`): closing it revokes
every link that exists, for everybody; links that are shared afterwards work.

It avoids taking the document's id from the URL, a hidden user "guest" with rights of its own, and a table of
links. Send `Referrer-Policy: no-referrer` with the page, because the link is the key.
"""

from signer import Signer, TokenError

PURPOSE = "guest"


def share(signer: Signer, document: str) -> str:
    """A link for reading a document; `document` consists of the characters A-Z a-z 0-9 . _ ~ -"""
    token = signer.issue(
        purpose=PURPOSE, scope="read", sid=_group(document), data={"document": document}, ttl=7 * 24 * 60 * 60
    )
    return f"https://www.example.org/shared?token={token}"


def document_of(signer: Signer, token: str, scope: str = "read") -> str | None:
    """The document that this guest may see (or, with another scope, change); None for nothing."""
    try:
        claims = signer.validate(token, purpose=PURPOSE, scope=scope)
    except TokenError:
        return None
    return str(claims.data["document"])


def close(signer: Signer, document: str) -> None:
    """Revoke every link to a document."""
    signer.revoke_session(_group(document))


def _group(document: str) -> str:
    # With a prefix, so that no user's session ever has the name of a document.
    return f"document.{document}"
