"""Stateless signed tokens: HMAC-signed, timestamped, revocable. See Signer."""

from . import errors
from .claims import Claims, Unverified, Use
from .errors import SignerError, SystemUnavailable, TokenError
from .keys import KeyRing, generate_key
from .signer import Signer
from .stores import Store, open_store

__all__ = [
    "Claims",
    "KeyRing",
    "Signer",
    "SignerError",
    "Store",
    "SystemUnavailable",
    "TokenError",
    "Unverified",
    "Use",
    "errors",
    "generate_key",
    "open_store",
]
