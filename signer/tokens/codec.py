"""Claims to text and back; the only user of itsdangerous.

    sgt_KEYID.PAYLOAD.TIMESTAMP.SIGNATURE

After the prefix and the key id follows exactly what stock itsdangerous makes:

    URLSafeTimedSerializer(secret, salt="signer.v1." + purpose,
                           signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"})

with compact JSON and never zlib. A token has one spelling. itsdangerous decodes base64 loosely, so that
several texts verify as one token; here the whole shape must match, and signatures are compared encoded.

For every token, stock itsdangerous derives keys, tries zlib and inspects types, which takes four times as
long as necessary. Therefore only its extension point for the algorithm is used, and the rest of the format is
written out here; tests/tokens/test_codec.py compares the two.
"""

import hashlib
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from functools import lru_cache
from hmac import compare_digest
from typing import Final

import msgspec
from itsdangerous.signer import HMACAlgorithm
from msgspec.structs import force_setattr

from ..errors import (
    RequestInvalid,
    TokenError,
    TokenKeyUnknown,
    TokenMalformed,
    TokenPurposeWrong,
    TokenSignatureInvalid,
)
from ..policy import MAX_TOKEN_LENGTH
from .claims import MAX_TIME, Claims
from .keys import Key, KeyRing, PurposeKey, base64url
from .values import Purpose, converted

PREFIX: Final = "sgt_"
#: Derived keys in the cache, one per key and purpose; a service has a handful.
MAX_SIGNERS: Final = 1024

#: Characters of `sgt_KEYID.`, and of `.` and a signature, from the end.
_HEAD: Final = len(PREFIX) + 7
_SIGNED: Final = -44
_PARTS: Final = 4
_BLOCK: Final = 64
_SHAPE: Final = re.compile(PREFIX + r"[\w-]{6}\.[\w-]+\.[\w-]{1,7}\.[\w-]{43}", re.ASCII)
Mac = Callable[[bytes], bytes]
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#: To standard base64. A character that no token contains becomes "!", which no decoder accepts.
_STANDARD: Final = bytes(
    {"-": ord("+"), "_": ord("/")}.get(chr(byte), byte if chr(byte) in _ALPHABET + "." else ord("!"))
    for byte in range(256)
)
#: The end of a JSON string of base64, by its length modulo 4. A remainder of 1 is impossible.
_ENDS: Final = (b'"', b'!"', b'=="', b'="')
_encode_claims = msgspec.json.Encoder().encode
_decode_claims = msgspec.json.Decoder(Claims).decode
#: msgspec reads base64 faster than binascii.
_decode_text = msgspec.json.Decoder(bytes).decode


class PreKeyedHMAC(HMACAlgorithm):
    """HMAC-SHA256 for itsdangerous that hashes the blocks of a key once and not for every token (RFC 2104,
    section 4): to copy such a state takes a third of the time that OpenSSL needs to set one up."""

    def __init__(self) -> None:
        super().__init__(hashlib.sha256)

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        """The 32 bytes that sign `value`."""
        return self.keyed(key)(value)

    def keyed(self, key: bytes) -> Mac:
        """The same function for one key, to be cached."""
        block = (hashlib.sha256(key).digest() if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
        inner_state = hashlib.sha256(bytes(byte ^ 0x36 for byte in block)).copy
        outer_state = hashlib.sha256(bytes(byte ^ 0x5C for byte in block)).copy

        def mac(value: bytes) -> bytes:
            inner, outer = inner_state(), outer_state()
            inner.update(value)
            outer.update(inner.digest())
            return outer.digest()

        return mac


_algorithm: Final = PreKeyedHMAC()


class Codec:
    """Signs claims and verifies tokens under a key ring. Pure: no clock, no list, no I/O."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys: Final = keys
        self._head = _head(keys.current.id)
        #: By `sgt_KEYID.` and purpose.
        self._macs: dict[tuple[str, str], Mac] = {}

    def encode(self, claims: Claims, iat: int) -> str:
        """The signed token. `iat`, in seconds, becomes its timestamp; `claims.iat` and `.kid` are set.

        Raises:
            RequestInvalid: the token would be longer than 4096 characters, or a value is of a type of the
                caller's own.
        """
        head = self._head
        mac = self._macs.get((head, claims.purpose)) or self._cached(head, claims.purpose)
        try:
            signed = f"{base64url(_encode_claims(claims))}.{_timestamp(iat)}"
        except TypeError as error:
            raise RequestInvalid(f"{error}: pass plain str, int, float, list and dict.") from None
        token = f"{head}{signed}.{base64url(mac(signed.encode()))}"
        if len(token) > MAX_TOKEN_LENGTH:
            field = "data" if claims.data is not None else ""
            raise RequestInvalid(
                f"The token would have {len(token)} characters; {MAX_TOKEN_LENGTH} is the limit."
                f" Shorten {field or 'it'}: put an id in it, and store the rest under that id.",
                field,
            )
        # Nobody else has the object before it is returned.
        force_setattr(claims, "iat", iat)
        force_setattr(claims, "kid", self.keys.current.id)
        return token

    def decode(self, token: str, purpose: str | None = None) -> Claims:
        """The claims of a token that was signed for `purpose`, or with None for the purpose that it names.
        Checks neither time nor list.

        Raises:
            TokenMalformed, TokenKeyUnknown, TokenSignatureInvalid, TokenPurposeWrong.
            RequestInvalid: no token has such a purpose.
        """
        # In one function: one more call would take a fortieth of the whole.
        if not isinstance(token, str) or len(token) > MAX_TOKEN_LENGTH or not token.isascii():
            raise TokenMalformed
        text = token.encode()
        parts = text.translate(_STANDARD).split(b".")
        if len(parts) != _PARTS:
            raise TokenMalformed
        head, payload, timestamp, signature = parts
        claims = _claims(payload, timestamp)
        asked = claims.purpose if purpose is None else purpose
        try:
            mac = self._macs[token[:_HEAD], asked]
        except (KeyError, TypeError):  # TypeError: the purpose is not text
            if purpose is not None:
                converted(purpose, Purpose, "purpose")
            mac = self._cached(token[:_HEAD], asked)
        # Compared encoded: decoding would accept four spellings of the last character.
        if not compare_digest(b2a_base64(mac(text[_HEAD:_SIGNED])), signature + b"=\n"):
            raise _refusal(head, signature, mac, claims.purpose == asked)
        if claims.purpose != asked:
            raise TokenPurposeWrong
        force_setattr(claims, "kid", token[len(PREFIX) : _HEAD - 1])
        return claims

    def read(self, token: str) -> Claims:
        """What the text says of itself, unverified.

        Raises:
            TokenMalformed.
        """
        if not isinstance(token, str) or len(token) > MAX_TOKEN_LENGTH or not _SHAPE.fullmatch(token):
            raise TokenMalformed
        head, payload, timestamp, _ = token.encode().split(b".")
        claims = _claims(payload.translate(_STANDARD), timestamp.translate(_STANDARD))
        force_setattr(claims, "kid", head[len(PREFIX) :].decode())
        return claims

    def key(self, claims: Claims) -> Key | PurposeKey:
        """The key that signed the token, or will sign it."""
        return self.keys.by_id[claims.kid] if claims.kid else self.keys.current

    def _cached(self, head: str, purpose: str) -> Mac:
        key = self.keys.by_id.get(head[len(PREFIX) : -1])
        if key is None or head != _head(key.id):
            return _no_mac
        # Bounded, because strangers choose the purposes that are tried.
        if len(self._macs) >= MAX_SIGNERS:
            self._macs.clear()
        mac = self._macs[head, purpose] = _algorithm.keyed(key.purpose_key(purpose))
        return mac


def _refusal(head: bytes, signature: bytes, mac: Mac, is_purpose_right: bool) -> TokenError:
    """Why a token whose signature does not fit is refused; its parts are in standard base64."""
    if len(signature) != -_SIGNED - 1 or b"!" in signature:
        return TokenMalformed()
    if mac is _no_mac:
        is_shaped = head.startswith(b"sgt/") and len(head) == _HEAD - 1 and b"!" not in head
        return TokenKeyUnknown() if is_shaped else TokenMalformed()
    return TokenSignatureInvalid() if is_purpose_right else TokenPurposeWrong()


def _head(kid: str) -> str:
    return f"{PREFIX}{kid}."


def _no_mac(value: bytes) -> bytes:
    """The MAC of a key that is unknown: it fits nothing."""
    return b""


def _claims(payload: bytes, timestamp: bytes) -> Claims:
    """The claims in two parts in standard base64, without `kid`.

    Raises:
        TokenMalformed.
    """
    try:
        iat = _seconds(timestamp)
        claims = _decode_claims(_decode_text(b'"' + payload + _ENDS[len(payload) & 3]))
    # Decoders raise these for hostile input: errors of msgspec and Unicode are ValueErrors. Ours is raised
    # outside of this block, because theirs contain the payload, and would be its context.
    except (ValueError, RecursionError):
        claims = None
    # auth_time: otherwise an attacker who had a key once could start a chain that ends in the year 9999.
    if claims is None or claims.iat or claims.kid or (claims.auth_time or 0) > iat:
        raise TokenMalformed
    # Nobody else has the object before it is returned; replacing it would take as long as decoding it.
    force_setattr(claims, "iat", iat)
    return claims


@lru_cache(4096)
def _timestamp(iat: int) -> str:
    return base64url(iat.to_bytes((iat.bit_length() + 7) // 8))


@lru_cache(4096)
def _seconds(timestamp: bytes) -> int:
    """A timestamp in standard base64 as seconds. Cached: tokens that live an hour have 3,600 of them.

    Raises:
        ValueError: it has another spelling, or there is no such time.
    """
    seconds = int.from_bytes(a2b_base64(timestamp + b"=="))
    if not 0 < seconds <= MAX_TIME or _timestamp(seconds).encode().translate(_STANDARD) != timestamp:
        raise ValueError
    return seconds
