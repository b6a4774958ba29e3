"""One sign-in for all services behind a gateway.

The log-in page, in the area that needs no token, gets a token from the token service and sets it as a cookie.
The gateway asks `/auth` about each request (../deploy has the configuration of several gateways) and passes
on to the service behind it whose request it is. Signing out revokes the token, for all services at once.

It avoids a password form in every service, and trusting an X-Token-Subject that is not from the gateway: a
service must be reachable only through the gateway, which must overwrite the header.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import Request, urlopen

PURPOSE = "access"
LIFE = 8 * 60 * 60
#: AUTH_COOKIE gives this name to the token service. A `__Host-` cookie is for one host, with all services
#: behind it, and cannot be set by neighbouring hosts. Services with hosts of their own need
#: `__Secure-session`, and "; Domain=…" below.
COOKIE = "__Host-session"
ATTRIBUTES = "Path=/; Secure; HttpOnly; SameSite=Lax"
#: What the gateway asks about every request; for some areas it also demands a scope.
AUTH = f"/auth?purpose={PURPOSE}"


def sign_in(service: str, credential: str, user_id: str, scope: str) -> str:
    """For the log-in page, after the right password: the Set-Cookie. The credential needs `token:issue` and
    the scopes that it gives to others."""
    asked = {"purpose": PURPOSE, "sub": user_id, "scope": scope, "ttl": LIFE}
    return _cookie(_post(service + "/app/token", credential, asked)["token"], LIFE)


def sign_out(service: str, credential: str, token: str) -> str:
    """End this sign-in everywhere; return the Set-Cookie that deletes it. The credential needs
    `token:revoke`."""
    try:
        _post(service + "/app/revoke", credential, {"token": token})
    except HTTPError as error:
        # 409 means that it is not a valid token, now or ever. At any other error the sign-in has not ended.
        if error.code != HTTPStatus.CONFLICT:
            raise
        error.close()
    return _cookie("", 0)


def sign_out_everywhere(service: str, credential: str, user_id: str) -> None:
    """End all sign-ins of a user, in every browser."""
    _post(service + "/app/revoke", credential, {"sub": user_id})


def user_of(headers: Mapping[str, str]) -> str | None:
    """For a service behind the gateway: whose request this is, according to the gateway."""
    return unquote(headers.get("X-Token-Subject", "")) or None


def _cookie(token: str, life: int) -> str:
    return f"{COOKIE}={token}; Max-Age={life}; {ATTRIBUTES}"


def _post(url: str, credential: str, body: Mapping[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=5) as answer:
        return json.load(answer)
