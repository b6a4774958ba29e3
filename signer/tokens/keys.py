"""The key ring: which secret signs, which only verify, and what is derived from them."""

import hashlib
import hmac
import re
import secrets
from abc import ABC, abstractmethod
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ..errors import KeyInvalid, RequestInvalid, TokenPurposeWrong
from ..policy import MIN_KEY_BYTES

#: How the exported key of one purpose begins.
EXPORT_PREFIX: Final = "sgk_"
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
HOW_TO_MAKE_A_KEY: Final = "Make one with: python -m signer keygen"
#: Makes the key once and keeps it.
PRODUCTION_LINE: Final = (
    '(umask 077; python -m signer keygen > signer.key); SECRET_KEY="$(cat signer.key)" python app.py'
)


def generate_key() -> str:
    """A new secret of 256 random bits, as 64 hexadecimal digits, which are safe in any shell or file."""
    return secrets.token_hex(32)


class _Derived(ABC):
    """What is derived from the key of one purpose. No text that such a key signs contains ":", so that the
    labels here cannot collide with tokens."""

    __slots__ = ("id",)
    #: Six characters. They select the key, so that verifying costs one HMAC, whatever the number of keys.
    id: str

    @abstractmethod
    def purpose_key(self, purpose: str) -> bytes:
        """The 32-byte signing key of one purpose; what itsdangerous derives with
        `key_derivation="hmac"` from the secret and the salt "signer.v1." + purpose."""

    def binding(self, jti: str, purpose: str, state: str) -> str:
        """The `bnd` claim: 132 bits of an HMAC over the token's id, its purpose and a state that the server
        knows, so that the token is refused when the state changes, with nothing stored."""
        return base64url(self._tag("signer.v1:bnd", purpose, f"{jti}.{purpose}.{state}"))[:22]

    def code(self, jti: str, purpose: str) -> str:
        """The six digits that answer a challenge: a truncated HMAC of its id, as in RFC 4226, section 5.3,
        but of all its bits, which leaves no digit likelier than another."""
        mac = self._tag("signer.v1:code", purpose, jti)
        return f"{int.from_bytes(mac) % 1_000_000:06d}"

    def _tag(self, label: str, purpose: str, message: str) -> bytes:
        key = hmac.digest(self.purpose_key(purpose), label.encode(), hashlib.sha256)
        return hmac.digest(key, message.encode(), hashlib.sha256)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r})"


class Key(_Derived):
    """One secret, its public id, and the keys derived from it. The secret shows in no repr."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str | bytes) -> None:
        if not isinstance(secret, str | bytes):
            raise KeyInvalid("A key is text or bytes; pass several as KeyRing(current, fallbacks).")
        # Checked first: the exception that encoding raises would contain the key.
        if isinstance(secret, str) and re.search(r"[\ud800-\udfff]", secret):
            raise KeyInvalid(f"A key is not text in UTF-8. {HOW_TO_MAKE_A_KEY}")
        self._secret = secret.encode() if isinstance(secret, str) else secret
        if len(self._secret) < MIN_KEY_BYTES:
            raise KeyInvalid(f"A key needs at least {MIN_KEY_BYTES} bytes. {HOW_TO_MAKE_A_KEY}")
        if self._secret.startswith(EXPORT_PREFIX.encode()):
            raise KeyInvalid("This is the key of one purpose: pass it to Verifier.")
        self.id = base64url(self._derive("signer.v1.kid"))[:6]

    def purpose_key(self, purpose: str) -> bytes:
        return self._derive("signer.v1." + purpose)

    def export(self, purpose: str) -> str:
        """The key of one purpose as text: `sgk_` + key id + `.` + key + `.` + purpose."""
        return f"{EXPORT_PREFIX}{self.id}.{base64url(self.purpose_key(purpose))}.{purpose}"

    def _derive(self, label: str) -> bytes:
        return hmac.digest(self._secret, label.encode(), hashlib.sha256)


class PurposeKey(_Derived):
    """The key of one purpose only, from the text that Key.export makes.

    Raises:
        KeyInvalid: the text is not an exported key.
    """

    __slots__ = ("_key", "purpose")

    def __init__(self, text: str) -> None:
        match = re.fullmatch(
            EXPORT_PREFIX + r"([A-Za-z0-9_-]{6})\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9._:-]{1,64})", str(text)
        )
        if match is None:
            raise KeyInvalid(
                "This is not the key of a purpose. Make one with: python -m signer purpose-key PURPOSE"
            )
        self.id, key, self.purpose = match.groups()
        self._key = urlsafe_b64decode(key + "=")

    def purpose_key(self, purpose: str) -> bytes:
        """The key, for its own purpose only.

        Raises:
            TokenPurposeWrong.
        """
        if purpose != self.purpose:
            raise TokenPurposeWrong
        return self._key


#: What a ring is made of.
Secret = str | bytes | PurposeKey


class KeyRing:
    """One key that signs, and any number that only verify. Two roles, two arguments: there is no order to get
    wrong.

    Args:
        current: the secret that signs and verifies; at least 32 bytes.
        fallbacks: earlier secrets that only verify, until their last token has expired.
            Keys of one purpose (PurposeKey) make a ring for that purpose alone.

    Raises:
        KeyInvalid: a key is missing, too short, or given twice.
    """

    def __init__(self, current: Secret, fallbacks: Iterable[Secret] = ()) -> None:
        if not current:
            raise KeyInvalid(f"The key is empty. {HOW_TO_MAKE_A_KEY}")
        if isinstance(fallbacks, (str, bytes)):
            raise KeyInvalid("Pass the fallback keys as a list, not as one string.")
        self.current: Final = _key(current)
        by_id: dict[str, Key | PurposeKey] = {}
        for key in (self.current, *map(_key, fallbacks)):
            if by_id.setdefault(key.id, key) is not key:
                raise KeyInvalid(
                    f"Two keys have the id {key.id!r}: remove or replace one. {HOW_TO_MAKE_A_KEY}"
                )
        self.by_id: Final[Mapping[str, Key | PurposeKey]] = MappingProxyType(by_id)

    def export(self, purpose: str) -> str:
        """The key of one purpose as text; see Key.export.

        Raises:
            RequestInvalid: the ring is of keys that are for one purpose only.
        """
        if not isinstance(self.current, Key):
            raise RequestInvalid("purpose: this Signer has only the key of one purpose", "purpose")
        return self.current.export(purpose)

    def __repr__(self) -> str:
        return f"KeyRing(current={self.current.id!r}, ids={list(self.by_id)!r})"


def _key(secret: Secret) -> Key | PurposeKey:
    return secret if isinstance(secret, PurposeKey) else Key(secret)


def base64url(value: bytes) -> str:
    """RFC 4648, section 5, without padding."""
    return b2a_base64(value).translate(_URL_SAFE, b"=\n").decode()
