"""An audit trail: who did what, on whose behalf, with which token.

Each line names the user (`sub`), the client that had the token issued (`client_id`), the token (`jti`), its
session (`sid`) and the X-Request-ID of the check. It is written before the action, so that none is missing.
The `jti` suffices to revoke the token; a rotated one continues under another id, so revoke its `sid`.

It avoids tokens in the trail, which its readers could use; a request id that the caller chose; and lines that
a caller forges with a line end in a name.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen


def checked(service: str, credential: str, token: str, scope: str) -> tuple[dict[str, Any] | None, str]:
    """The claims of the token, or None, and the id under which the service logged the check."""
    asked = {"token": token, "purpose": "access", "scope": scope}
    answer, request_id = _post(service + "/app/valid", credential, asked)
    return answer.get("claims"), request_id


def record(trail: Path, what: str, claims: Mapping[str, Any] | None, request_id: str, **details: str) -> None:
    """Add a line, also about a refused caller. Raises OSError if the line cannot be written."""
    who = {name: (claims or {}).get(name) for name in ("sub", "client_id", "jti", "sid")}
    entry = {"time": time.time(), "what": what, **who, "request_id": request_id, "details": details}
    with trail.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def deeds(trail: Path, **who: str) -> list[dict[str, Any]]:
    """Everything that was done by a `sub`, a `client_id`, a `jti` or a `sid`."""
    entries = map(json.loads, trail.read_text().splitlines())
    return [entry for entry in entries if who.items() <= {key: entry[key] for key in who}.items()]


def end(service: str, credential: str, **what: str) -> None:
    """Revoke a token (`jti`) or a session (`sid`) of which only the id is known."""
    _post(service + "/app/revoke", credential, what)


def _post(url: str, credential: str, body: Mapping[str, Any]) -> tuple[Any, str]:
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=5) as answer:
        return json.load(answer), answer.headers["X-Request-ID"]
