"""Authentication between services: a service gets a token for itself, and shows it to another one.

The caller trades its credential for short access tokens (RFC 6749, client_credentials). The called service
asks the token service about each (RFC 7662), which knows of revocations; or it checks alone, with the key of
this one purpose, and learns of them when the token ends. That key makes such tokens, too: it is a secret.

It avoids sending the credential to other services, taking "active" for "may do this", and taking a
mailed link's token, or a user's, for a service's. Name no user like a client, and give users no scope of these.
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
    """The token service at `url`, for the client that has this id and credential."""

    url: str
    client_id: str
    credential: str = field(repr=False)

    def post(self, path: str, **form: str) -> Any:
        """The answer to a form; whatever is no answer raises, and is never a yes."""
        basic = b64encode(f"{self.client_id}:{self.credential}".encode()).decode()
        request = Request(self.url + path, urlencode(form).encode(), {"Authorization": f"Basic {basic}"})
        with urlopen(request, timeout=5) as answer:
            return json.load(answer)


@dataclass
class AccessTokens:
    """In the service that calls: a token to send as `Authorization: Bearer`."""

    service: TokenService
    scope: str
    _token: str = field(default="", repr=False)
    _until: float = 0.0

    def current(self) -> str:
        """A good one, from memory or new."""
        if time.monotonic() >= self._until:
            form = {"grant_type": "client_credentials", "scope": self.scope}
            answer = self.service.post("/oauth/token", **form)
            self._token = answer["access_token"]
            self._until = time.monotonic() + answer["expires_in"] - 60
        return self._token


def caller_of(service: TokenService, token: str, scope: str) -> str | None:
    """In the service that is called, asking: the client that may do this, or None."""
    answer = service.post("/oauth/introspect", token=token)
    if not answer["active"] or answer["purpose"] != "access" or "aud" in answer:
        return None
    if scope not in answer.get("scope", "").split():
        return None
    return _client(answer.get("sub"), answer.get("client_id"))


def caller_alone(verifier: Verifier, token: str, scope: str) -> str | None:
    """The same without asking."""
    try:
        claims = verifier.validate(token, scope=scope)
    except TokenError:
        return None
    return _client(claims.sub, claims.client_id)


def _client(sub: str | None, client_id: str | None) -> str | None:
    # A client that speaks for itself is its own subject; in a user's token, it is merely who issued it.
    return client_id if sub == client_id else None
