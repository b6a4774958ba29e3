"""Authentication between services: a service gets a token for itself, and shows it to another one.

The caller exchanges its credential for access tokens (RFC 6749, client_credentials). The called service asks
the token service (RFC 7662), which knows revocations; or it validates alone with the key of this purpose, and
cannot notice a revocation. That key can also make such tokens, so keep it secret.

It avoids sending the credential to other services, taking "active" for "may do this", and taking the token of
a link or a user for a service's. Give no user the name of a client, or one of these scopes.
"""

import json
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from signer import TokenError, Verifier


@dataclass(frozen=True)
class TokenService:
    """The token service at `url`, for the client with this id and credential."""

    url: str
    client_id: str
    credential: str = field(repr=False)

    def post(self, path: str, **form: str) -> Any:
        """Send a form; return the answer. Anything else raises, and is never a yes."""
        basic = b64encode(f"{self.client_id}:{self.credential}".encode()).decode()
        request = Request(self.url + path, urlencode(form).encode(), {"Authorization": f"Basic {basic}"})
        with urlopen(request, timeout=5) as answer:
            return json.load(answer)


@dataclass
class AccessTokens:
    """For the calling service: a token to send as `Authorization: Bearer`."""

    service: TokenService
    scope: str
    _token: str = field(default="", repr=False)
    _until: float = 0.0

    def current(self) -> str:
        """A valid token, from memory or new."""
        if time.monotonic() >= self._until:
            form = {"grant_type": "client_credentials", "scope": self.scope}
            answer = self.service.post("/oauth/token", **form)
            self._token = answer["access_token"]
            self._until = time.monotonic() + answer["expires_in"] - 60
        return self._token


def caller_of(service: TokenService, token: str, scope: str) -> str | None:
    """For the called service, asking the token service: the client that may do this, or None."""
    answer = service.post("/oauth/introspect", token=token)
    if not answer["active"] or answer["purpose"] != "access" or "aud" in answer:
        return None
    if scope not in answer.get("scope", "").split():
        return None
    return _client(answer.get("sub"), answer.get("client_id"))


def caller_alone(verifier: Verifier, token: str, scope: str) -> str | None:
    """The same, without asking."""
    try:
        claims = verifier.validate(token, scope=scope)
    except TokenError:
        return None
    return _client(claims.sub, claims.client_id)


def _client(sub: str | None, client_id: str | None) -> str | None:
    # A client that acts for itself is its own subject. In a user's token it is only the issuer.
    return client_id if sub == client_id else None
