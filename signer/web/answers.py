"""JSON answers."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import Response

from ..claims import Claims

_encoder = msgspec.json.Encoder()
#: Every answer speaks of tokens, and none is ever a page.
_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
#: The original service's "yes".
OK: Final[dict[str, Any]] = {"status_code": 200, "status": True}


class Answer(Response):
    """A JSON body that no cache keeps."""

    media_type = "application/json"

    def __init__(
        self,
        body: Any,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(_encoder.encode(body), status_code, {**_HEADERS, **(headers or {})}, media_type)


class Introspection(Struct, frozen=True, kw_only=True):
    """What RFC 7662, section 2.2, tells of an active token; `purpose`, `sid` and `data` are ours."""

    active: bool
    token_type: str
    iss: str
    jti: str
    iat: int
    exp: int
    purpose: str
    sub: str | UnsetType = UNSET
    client_id: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    aud: str | UnsetType = UNSET
    sid: str | UnsetType = UNSET
    auth_time: int | UnsetType = UNSET
    data: Any = UNSET

    @classmethod
    def of(cls, claims: Claims, iss: str) -> "Introspection":
        """The claims of an active token that the service at `iss` issued."""
        said = {name: getattr(claims, name, None) for name in cls.__struct_fields__}
        told = {name: value for name, value in said.items() if value is not None}
        return cls(**told, active=True, token_type="Bearer", iss=iss)  # noqa: S106 - a type, no secret


#: All that is ever told of any other token (RFC 7662, section 2.2).
INACTIVE: Final = {"active": False}
