"""Stateless signed tokens: HMAC-signed, timestamped, revocable. See Signer."""

from . import errors
from .errors import SignerError, SystemUnavailable, TokenError
from .signer import Signer
from .stores import Store, open_store
from .tokens.claims import Challenge, Claims, Issued, Unverified, Use
from .tokens.keys import KeyRing, generate_key
from .verifier import Verifier

__version__ = "0.2.0"

__all__ = [
    "Challenge",
    "Claims",
    "Issued",
    "KeyRing",
    "Signer",
    "SignerError",
    "Store",
    "SystemUnavailable",
    "TokenError",
    "Unverified",
    "Use",
    "Verifier",
    "errors",
    "generate_key",
    "open_store",
]
