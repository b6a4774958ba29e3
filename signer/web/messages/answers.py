"""JSON answers."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...tokens.claims import Claims
from ..telemetry.calls import CODE

_encoder = msgspec.json.Encoder()
#: Every answer speaks of tokens, and none is ever a page.
_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_RAW_HEADERS: Final = [
    (name.encode(), value.encode())
    for name, value in (*_HEADERS.items(), ("content-type", "application/json"))
]

#: How a client may send its credential to the OAuth endpoints, in the registry's words.
_METHODS: Final = ("client_secret_basic", "client_secret_post")


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
        content = _encoder.encode(body)
        if headers or media_type:
            super().__init__(content, status_code, {**_HEADERS, **(headers or {})}, media_type)
            return
        # What that would make, of parts that are made already.
        self.status_code = status_code
        self.background = None
        self.body = content
        self.raw_headers = [(b"content-length", b"%d" % len(content)), *_RAW_HEADERS]


class Refusal(Answer):
    """An answer that is an error, whose `code` the log and the metrics get, too."""

    def __init__(
        self,
        code: str,
        body: Any,
        status_code: int,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(body, status_code, headers, media_type)
        self.code = code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[CODE] = self.code
        await super().__call__(scope, receive, send)


class Done(Struct, frozen=True, kw_only=True):
    """The original service's "yes"; `status` false is its "no"."""

    status_code: int = 200
    status: bool = True


class Purged(Done, frozen=True, kw_only=True):
    """How many rows went."""

    purged: int


class Admitted(Done, frozen=True, kw_only=True):
    """A token that was good, and what it says."""

    claims: Claims


class Used(Done, frozen=True, kw_only=True):
    """A use granted, and how many are left after it."""

    uses_left: int
    claims: Claims


class Verdict(Done, frozen=True, kw_only=True):
    """What a token that is good says, or why it is refused."""

    claims: Claims | UnsetType = UNSET
    code: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class Verdicts(Done, frozen=True, kw_only=True):
    """A verdict for each token, in order; `status` is true where every one is."""

    results: list[Verdict]


class _Secret(Struct, frozen=True, kw_only=True):
    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class NewToken(_Secret, frozen=True, kw_only=True):
    """A token, and what names it in the list."""

    status_code: int = 200
    token: str
    jti: str
    exp: int


class Rotated(NewToken, frozen=True, kw_only=True):
    """A successor, and the session that names its chain."""

    sid: str


class NewCode(NewToken, frozen=True, kw_only=True):
    """A challenge, and the code that answers it."""

    code: str


class Outcome(_Secret, frozen=True, kw_only=True):
    """One of many: a new token, or why there is none; `status_code` is as if it had been asked alone."""

    status_code: int = 200
    token: str | UnsetType = UNSET
    jti: str | UnsetType = UNSET
    exp: int | UnsetType = UNSET
    code: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    field: str | UnsetType = UNSET


class NewTokens(Struct, frozen=True, kw_only=True):
    """An outcome for each request, in order."""

    status_code: int = 200
    tokens: list[Outcome]


class Health(Struct, frozen=True, kw_only=True):
    """All is well."""

    status: str = "ok"


class Problem(Struct, frozen=True, kw_only=True):
    """RFC 9457, with a stable `code`; `field` where one member is at fault, and `attempts_left` where a code
    was wrong."""

    title: str
    status: int
    code: str
    detail: str
    field: str | UnsetType = UNSET
    attempts_left: int | UnsetType = UNSET


class Undecided(Struct, frozen=True, kw_only=True):
    """No verdict, where a verdict was asked for; `status` is false, so that nobody takes it for a yes."""

    status_code: int = 503
    status: bool = False
    code: str
    detail: str


class OAuthProblem(Struct, frozen=True, kw_only=True):
    """RFC 6749, section 5.2."""

    error: str
    error_description: str


class AccessToken(_Secret, frozen=True, kw_only=True):
    """RFC 6749, section 5.1."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - a type, no secret
    expires_in: int
    scope: str


class Metadata(Struct, frozen=True, kw_only=True):
    """RFC 8414, section 2. No authorization endpoint is here, and the response types are required: "none" is
    the registered word for no response."""

    issuer: str
    token_endpoint: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = _METHODS
    introspection_endpoint: str
    introspection_endpoint_auth_methods_supported: tuple[str, ...] = (*_METHODS, "Bearer")
    revocation_endpoint: str
    revocation_endpoint_auth_methods_supported: tuple[str, ...] = _METHODS
    grant_types_supported: tuple[str, ...] = ("client_credentials",)
    response_types_supported: tuple[str, ...] = ("none",)
    service_documentation: str


class Inactive(Struct, frozen=True, kw_only=True):
    """All that is ever told of a token that is not good (RFC 7662, section 2.2)."""

    active: bool = False


class Ended(Struct, frozen=True):
    """An empty object (RFC 7009, section 2.2)."""


class Introspection(Struct, frozen=True, kw_only=True):
    """What RFC 7662, section 2.2, tells of an active token; `purpose`, `sid` and `data` are ours."""

    active: bool = True
    token_type: str = "Bearer"  # noqa: S105 - a type, no secret
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
        return cls(**told, iss=iss)
