"""Token libraries, each called as its users call it, with one payload for all: sub, jti and scope.

JWTs also carry `iat` and `exp`, which stock itsdangerous and Fernet replace by the token's timestamp. Every
token gets a fresh `jti` from `secrets.token_urlsafe(16)`, as Signer's do: the cheapest way in Python
(str(uuid.uuid4()) takes almost three times as long). Every verification checks signature and age.
"""

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from itsdangerous import URLSafeTimedSerializer

from signer import Signer, Store, open_store

logger = logging.getLogger(__name__)

KEY: Final = "a-benchmark-key-of-more-than-thirty-two-bytes"
SUB: Final = "user-4711"
SCOPE: Final = "read write"
LIFE: Final = 60 * 60

SIGNER: Final = "signer"
STOCK: Final = "stock itsdangerous SHA-256"
PYJWT: Final = "PyJWT HS256"
#: Peers with a core in Rust; the fastest of them in a run is the one to compare with.
RUST: Final = ("jwtoxide (Rust) HS256", "oxyjwt (Rust) HS256")


@dataclass(frozen=True)
class Peer:
    """A library: `issue` makes a token with a fresh jti; `verify` returns the claims of a token."""

    name: str
    issue: Callable[[], Any]
    verify: Callable[[Any], Any]


def payload() -> dict[str, Any]:
    """The claims of a token whose format has a timestamp."""
    return {"sub": SUB, "jti": secrets.token_urlsafe(16), "scope": SCOPE}


def jwt_payload() -> dict[str, Any]:
    """The same, with the times of issue and expiry."""
    now = int(time.time())
    return {
        "sub": SUB,
        "jti": secrets.token_urlsafe(16),
        "scope": SCOPE,
        "iat": now,
        "exp": now + LIFE,
    }


def of_signer(name: str = SIGNER, store: Store | None = None) -> Peer:
    """Signer with this list, or without one."""
    signer = Signer(KEY, store)
    return Peer(
        name,
        lambda: signer.issue(sub=SUB, scope=SCOPE),
        lambda token: signer.validate(token, scope=None),
    )


def installed() -> Iterator[Peer]:
    """Signer with its list in memory, and every peer that is installed. A line is logged for each of the
    others."""
    yield of_signer(store=open_store("memory://"))
    yield stock()
    others = {
        PYJWT: _pyjwt,
        "joserfc HS256": _joserfc,
        "Fernet + json": _fernet,
        RUST[0]: _jwtoxide,
        RUST[1]: _oxyjwt,
    }
    for name, make in others.items():
        try:
            yield make(name)
        except ImportError:
            logger.warning("%s is left out: not installed (pip install '.[benchmarks]')", name)


def stock() -> Peer:
    """The serializer that Signer's tokens are compatible with."""
    serializer = URLSafeTimedSerializer(
        KEY, salt="benchmark", signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"}
    )
    return Peer(
        STOCK, lambda: serializer.dumps(payload()), lambda token: serializer.loads(token, max_age=LIFE)
    )


def _pyjwt(name: str) -> Peer:
    import jwt

    return Peer(
        name,
        lambda: jwt.encode(jwt_payload(), KEY, algorithm="HS256"),
        lambda token: jwt.decode(token, KEY, algorithms=["HS256"]),
    )


def _joserfc(name: str) -> Peer:
    from joserfc import jwt
    from joserfc.jwk import OctKey

    key = OctKey.import_key(KEY)
    header = {"alg": "HS256"}
    # It checks `exp` in a separate call.
    rules = jwt.JWTClaimsRegistry(exp={"essential": True})

    def verify(token: str) -> Any:
        claims = jwt.decode(token, key, algorithms=["HS256"]).claims
        rules.validate(claims)
        return claims

    return Peer(name, lambda: jwt.encode(header, jwt_payload(), key), verify)


def _fernet(name: str) -> Peer:
    from cryptography.fernet import Fernet

    fernet = Fernet(Fernet.generate_key())
    return Peer(
        name,
        lambda: fernet.encrypt(json.dumps(payload()).encode()),
        lambda token: json.loads(fernet.decrypt(token, ttl=LIFE)),
    )


def _jwtoxide(name: str) -> Peer:
    import jwtoxide

    signing: Any = jwtoxide.EncodingKey.from_secret(KEY.encode())
    # Its annotations demand an EncodingKey here.
    verifying: Any = jwtoxide.DecodingKey.from_secret(KEY.encode())
    options = jwtoxide.ValidationOptions(
        aud=None, iss=None, required_spec_claims={"exp"}, algorithms=["HS256"]
    )
    return Peer(
        name,
        lambda: jwtoxide.encode(jwt_payload(), signing),
        lambda token: jwtoxide.decode(token, verifying, options),
    )


def _oxyjwt(name: str) -> Peer:
    import oxyjwt

    signing = oxyjwt.EncodingKey.from_secret(KEY)
    verifying = oxyjwt.DecodingKey.from_secret(KEY)
    return Peer(
        name,
        lambda: oxyjwt.encode(jwt_payload(), signing, algorithm="HS256"),
        lambda token: oxyjwt.decode(token, verifying, algorithms=["HS256"]),
    )
