"""The key ring: which secret signs, which only verify, and what is derived from them."""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from .errors import KeyInvalid

MIN_KEY_BYTES: Final = 32
HOW_TO_MAKE_A_KEY: Final = "Make one with: python -m signer keygen"
#: Makes the key once and keeps it.
PRODUCTION_LINE: Final = (
    '(umask 077; python -m signer keygen > signer.key); SECRET_KEY="$(cat signer.key)" python app.py'
)


def generate_key() -> str:
    """A new secret of 256 random bits, as 64 hexadecimal digits, which no shell or file minds."""
    return secrets.token_hex(32)


class Key:
    """One secret, its public id, and the keys derived from it. The secret shows in no repr."""

    __slots__ = ("_secret", "id")

    def __init__(self, secret: str | bytes) -> None:
        if not isinstance(secret, str | bytes):
            raise KeyInvalid("A key is text or bytes; pass several as KeyRing(current, fallbacks).")
        # Checked first: the exception that encoding raises would hold the key.
        if isinstance(secret, str) and re.search(r"[\ud800-\udfff]", secret):
            raise KeyInvalid(f"A key is not text in UTF-8. {HOW_TO_MAKE_A_KEY}")
        self._secret = secret.encode() if isinstance(secret, str) else secret
        if len(self._secret) < MIN_KEY_BYTES:
            raise KeyInvalid(f"A key needs at least {MIN_KEY_BYTES} bytes. {HOW_TO_MAKE_A_KEY}")
        #: Six characters; they pick the key, so that verifying costs one HMAC however many there are.
        self.id: str = _base64url(self._derive("signer.v1.kid"))[:6]

    def purpose_key(self, purpose: str) -> bytes:
        """The 32-byte signing key of one purpose; what itsdangerous derives with
        `key_derivation="hmac"` from the secret and the salt "signer.v1." + purpose."""
        return self._derive("signer.v1." + purpose)

    def binding(self, jti: str, purpose: str, state: str) -> str:
        """The `bnd` claim: 132 bits of an HMAC over the token's id, its purpose and a state that the
        server knows, so that the token dies when the state changes, with nothing stored."""
        # Derived from the purpose's key; ":" occurs in no text that key signs.
        key = hmac.digest(self.purpose_key(purpose), b"signer.v1:bnd", hashlib.sha256)
        mac = hmac.digest(key, f"{jti}.{purpose}.".encode() + state.encode(), hashlib.sha256)
        return _base64url(mac)[:22]

    def _derive(self, label: str) -> bytes:
        return hmac.digest(self._secret, label.encode(), hashlib.sha256)

    def __repr__(self) -> str:
        return f"Key(id={self.id!r})"


class KeyRing:
    """One key that signs and any number that only verify. Two roles, two arguments: there is no
    order to get wrong.

    Args:
        current: the secret that signs and verifies; at least 32 bytes.
        fallbacks: earlier secrets that only verify, until their last token has expired.

    Raises:
        KeyInvalid: a key is missing, too short, or given twice.
    """

    def __init__(self, current: str | bytes, fallbacks: Iterable[str | bytes] = ()) -> None:
        if not current:
            raise KeyInvalid(f"The key is empty. {HOW_TO_MAKE_A_KEY}")
        if isinstance(fallbacks, (str, bytes)):
            raise KeyInvalid("Pass the fallback keys as a list, not as one string.")
        self.current: Final = Key(current)
        by_id: dict[str, Key] = {}
        for key in (self.current, *map(Key, fallbacks)):
            if by_id.setdefault(key.id, key) is not key:
                raise KeyInvalid(
                    f"Two keys have the id {key.id!r}: remove or replace one. {HOW_TO_MAKE_A_KEY}"
                )
        self.by_id: Final[Mapping[str, Key]] = MappingProxyType(by_id)

    def __repr__(self) -> str:
        return f"KeyRing(current={self.current.id!r}, ids={list(self.by_id)!r})"


def _base64url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
