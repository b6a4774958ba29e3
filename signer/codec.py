"""Claims to text and back; the only user of itsdangerous.

    sgt_KEYID.PAYLOAD.TIMESTAMP.SIGNATURE

After the prefix and key id stands exactly what stock itsdangerous makes:

    URLSafeTimedSerializer(secret, salt="signer.v1." + purpose,
                           signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"})

with compact JSON and never zlib. A token has one spelling: itsdangerous decodes base64 loosely, so that
several texts verify as one token; here the whole shape must match and signatures are compared encoded.
"""

import hashlib
import hmac
import re
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
from itsdangerous import BadData
from itsdangerous import Signer as StockSigner
from itsdangerous.encoding import base64_decode, base64_encode, bytes_to_int, int_to_bytes

from .claims import MAX_TIME, Claims
from .errors import (
    RequestInvalid,
    TokenKeyUnknown,
    TokenMalformed,
    TokenPurposeWrong,
    TokenSignatureInvalid,
)
from .keys import Key, KeyRing, PurposeKey

PREFIX: Final = "sgt_"
MAX_TOKEN_LENGTH: Final = 4096
#: Derived keys that are kept, one for each key and purpose; a service has a handful.
MAX_SIGNERS: Final = 1024

_SHAPE = re.compile(
    PREFIX + r"([A-Za-z0-9_-]{6})\.(([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{1,7}))\.([A-Za-z0-9_-]{43})"
)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Claims)


class _Parts(NamedTuple):
    kid: str
    signed: str
    payload: str
    timestamp: str
    signature: str


class Codec:
    """Signs claims and verifies tokens under a key ring. Pure: no clock, no list, no I/O."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys: Final = keys
        # Bounded: strangers choose the purposes that decode_any tries.
        self._signer = lru_cache(MAX_SIGNERS)(_signer)

    def encode(self, claims: Claims, iat: int) -> str:
        """The signed token. `iat` in seconds becomes its timestamp; `claims.iat` and `.kid` stay unset.

        Raises:
            RequestInvalid: the token would be longer than 4096 characters, or a value is of a type of the
                caller's own.
        """
        try:
            payload = base64_encode(_encoder.encode(claims))
        except TypeError as error:
            raise RequestInvalid(f"{error}: pass plain str, int, float, list and dict.") from None
        signed = payload + b"." + base64_encode(int_to_bytes(iat))
        key = self.keys.current
        signature = self._signer(key, claims.purpose).get_signature(signed)
        token = f"{PREFIX}{key.id}.{signed.decode()}.{signature.decode()}"
        if len(token) > MAX_TOKEN_LENGTH:
            field = "data" if claims.data is not None else ""
            raise RequestInvalid(
                f"The token would have {len(token)} characters; {MAX_TOKEN_LENGTH} is the limit."
                f" Say less{f' in {field}' if field else ''}: carry an id, and keep the rest under it.",
                field,
            )
        return token

    def decode(self, token: str, purpose: str) -> Claims:
        """The claims of a token signed for `purpose`. Says nothing of time or list.

        Raises:
            TokenMalformed, TokenKeyUnknown, TokenSignatureInvalid, TokenPurposeWrong.
        """
        parts = _split(token)
        is_signed = self._is_signed(parts, purpose)
        claims = _claims(parts)
        if claims.purpose != purpose:
            raise TokenPurposeWrong
        if not is_signed:
            raise TokenSignatureInvalid
        return claims

    def decode_any(self, token: str) -> Claims:
        """The same for a caller that cannot know the purpose: reads the claim, then verifies under it.

        Raises:
            TokenMalformed, TokenKeyUnknown, TokenSignatureInvalid.
        """
        parts = _split(token)
        claims = _claims(parts)
        if not self._is_signed(parts, claims.purpose):
            raise TokenSignatureInvalid
        return claims

    def read(self, token: str) -> Claims:
        """What the text says of itself, unverified.

        Raises:
            TokenMalformed.
        """
        return _claims(_split(token))

    def key(self, claims: Claims) -> Key | PurposeKey:
        """The key that signed the token, or is about to."""
        return self.keys.by_id[claims.kid] if claims.kid else self.keys.current

    def _is_signed(self, parts: _Parts, purpose: str) -> bool:
        key = self.keys.by_id.get(parts.kid)
        if key is None:
            raise TokenKeyUnknown
        signature = self._signer(key, purpose).get_signature(parts.signed)
        # Encoded against encoded: decoding would let four spellings of the last character pass.
        return hmac.compare_digest(signature, parts.signature.encode())


def _signer(key: Key | PurposeKey, purpose: str) -> StockSigner:
    return StockSigner(key.purpose_key(purpose), key_derivation="none", digest_method=hashlib.sha256)


def _split(token: str) -> _Parts:
    if not isinstance(token, str) or len(token) > MAX_TOKEN_LENGTH:
        raise TokenMalformed
    match = _SHAPE.fullmatch(token)
    if match is None:
        raise TokenMalformed
    kid, signed, payload, timestamp, signature = match.groups()
    return _Parts(kid, signed, payload, timestamp, signature)


def _claims(parts: _Parts) -> Claims:
    try:
        iat = bytes_to_int(base64_decode(parts.timestamp))
        claims = _decoder.decode(base64_decode(parts.payload))
    # What decoders throw at hostile input; msgspec's and Unicode's errors are ValueErrors. Ours is raised
    # further down, outside of this: theirs hold the payload, and would be kept as its context.
    except (BadData, ValueError, RecursionError):
        claims = None
    if claims is None or (
        claims.iat
        or claims.kid
        or iat > MAX_TIME
        # Or whoever had a key once could begin a chain that ends in the year 9999.
        or (claims.auth_time or 0) > iat
        or base64_encode(int_to_bytes(iat)).decode() != parts.timestamp
    ):
        raise TokenMalformed
    # The object is ours alone until it is returned; replacing it would decode everything twice.
    msgspec.structs.force_setattr(claims, "iat", iat)
    msgspec.structs.force_setattr(claims, "kid", parts.kid)
    return claims
