"""An audit trail: who did what, on whose behalf, with which token.

Each line names the user (`sub`), who had the token issued (`client_id`), the token (`jti`), its session (`sid`)
and the X-Request-ID of the check, as in the service's log. It is written before the deed: what is not written
down does not happen. A `jti` suffices to end that token; a rotated one goes on under another, so end its `sid`.

It avoids tokens in the trail, which whoever reads it could use; a request id chosen by the caller; and
lines that a caller forges with a line end in a name.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen


def checked(service: str, credential: str, token: str, scope: str) -> tuple[dict[str, Any] | None, str]:
    """The token's claims, or None, and the id under which the service logged the question."""
    asked = {"token": token, "purpose": "access", "scope": scope}
    answer, request_id = _post(service + "/app/valid", credential, asked)
    return answer.get("claims"), request_id


def record(trail: Path, what: str, claims: Mapping[str, Any] | None, request_id: str, **details: str) -> None:
    """Add a line, also about whoever was refused; raises OSError where it cannot be written."""
    who = {name: (claims or {}).get(name) for name in ("sub", "client_id", "jti", "sid")}
    entry = {"time": time.time(), "what": what, **who, "request_id": request_id, "details": details}
    with trail.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def deeds(trail: Path, **who: str) -> list[dict[str, Any]]:
    """All that was done by a `sub`, a `client_id`, a `jti` or a `sid`."""
    entries = map(json.loads, trail.read_text().splitlines())
    return [entry for entry in entries if who.items() <= {key: entry[key] for key in who}.items()]


def end(service: str, credential: str, **what: str) -> None:
    """Refuse a token (`jti`) or a session (`sid`) from now on, of which no more is known than its id."""
    _post(service + "/app/revoke", credential, what)


def _post(url: str, credential: str, body: Mapping[str, Any]) -> tuple[Any, str]:
    headers = {"Authorization": f"Bearer {credential}", "Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=5) as answer:
        return json.load(answer), answer.headers["X-Request-ID"]
