"""A plain twin of signer.tokens.codec. It implements the format with itsdangerous alone, as a reference for
the fast implementation."""

import hashlib
import hmac
import re

import msgspec
from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode, bytes_to_int, int_to_bytes
from msgspec.structs import replace

from signer.errors import TokenKeyUnknown, TokenMalformed, TokenPurposeWrong, TokenSignatureInvalid
from signer.tokens.claims import MAX_TIME, Claims
from signer.tokens.keys import KeyRing

SHAPE = re.compile(
    r"sgt_([A-Za-z0-9_-]{6})\.(([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{1,7}))\.([A-Za-z0-9_-]{43})", re.ASCII
)


class PlainCodec:
    """Does what Codec does, in simple steps."""

    def __init__(self, keys: KeyRing) -> None:
        self.keys = keys

    def encode(self, claims: Claims, iat: int) -> str:
        """The token, of any length."""
        signed = base64_encode(msgspec.json.encode(claims)) + b"." + base64_encode(int_to_bytes(iat))
        kid = self.keys.current.id
        return f"sgt_{kid}.{signed.decode()}.{self._signature(kid, claims.purpose, signed).decode()}"

    def decode(self, token: str, purpose: str | None = None) -> Claims:
        """The claims. Raises the same error as Codec.decode."""
        match = SHAPE.fullmatch(token)
        if match is None or len(token) > 4096:
            raise TokenMalformed
        kid, signed, payload, timestamp, signature = match.groups()
        claims = self._claims(payload, timestamp)
        if kid not in self.keys.by_id:
            raise TokenKeyUnknown
        expected = self._signature(kid, purpose or claims.purpose, signed.encode())
        if purpose not in (None, claims.purpose):
            raise TokenPurposeWrong
        if not hmac.compare_digest(expected, signature.encode()):
            raise TokenSignatureInvalid
        return replace(claims, kid=kid)

    def _claims(self, payload: str, timestamp: str) -> Claims:
        try:
            iat = bytes_to_int(base64_decode(timestamp))
            claims = msgspec.json.decode(base64_decode(payload), type=Claims)
        except (BadData, ValueError, RecursionError):
            raise TokenMalformed from None
        is_canonical = base64_encode(int_to_bytes(iat)).decode() == timestamp
        if claims.iat or claims.kid or iat > MAX_TIME or (claims.auth_time or 0) > iat or not is_canonical:
            raise TokenMalformed
        return replace(claims, iat=iat)

    def _signature(self, kid: str, purpose: str, signed: bytes) -> bytes:
        key = self.keys.by_id[kid].purpose_key(purpose)
        return Signer(key, key_derivation="none", digest_method=hashlib.sha256).get_signature(signed)
