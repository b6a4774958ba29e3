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
#: Every answer is about tokens, so no cache may keep it; and no browser may take it for a page.
_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_RAW_HEADERS: Final = [
    (name.encode(), value.encode())
    for name, value in (*_HEADERS.items(), ("content-type", "application/json"))
]

#: How a client may send its credential to the OAuth endpoints, in the words of IANA's registry.
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
        # The same result as above, from parts that are encoded once: most answers come this way.
        self.status_code = status_code
        self.background = None
        self.body = content
        self.raw_headers = [(b"content-length", b"%d" % len(content)), *_RAW_HEADERS]


class Refusal(Answer):
    """An answer that reports an error; the request log and the metrics count it by its `code`."""

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
    """Yes or no, in the form of the original service.

    Attributes:
        status_code: the HTTP status, repeated in the body.
        status: true for yes, false for no.
    """

    status_code: int = 200
    status: bool = True


class Purged(Done, frozen=True, kw_only=True):
    """The result of a purge.

    Attributes:
        purged: how many rows of expired tokens were deleted.
    """

    purged: int


class Admitted(Done, frozen=True, kw_only=True):
    """A code was right.

    Attributes:
        claims: what the challenge says about its subject.
    """

    claims: Claims


class Used(Done, frozen=True, kw_only=True):
    """One use of a token was granted.

    Attributes:
        uses_left: how many uses are left after this one.
        claims: what the token says.
    """

    uses_left: int
    claims: Claims


class Verdict(Done, frozen=True, kw_only=True):
    """What a valid token says, or why a token is refused.

    Attributes:
        claims: what the token says; only if it is valid.
        code: why it is refused, as a stable code such as `token_expired`; only if it is refused.
        detail: why it is refused, in words; only if it is refused.
    """

    claims: Claims | UnsetType = UNSET
    code: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class Verdicts(Done, frozen=True, kw_only=True):
    """The verdicts on many tokens.

    Attributes:
        status: true if every token is valid.
        results: one verdict for each token, in the order of the request.
    """

    results: list[Verdict]


class _Secret(Struct, frozen=True, kw_only=True):
    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class NewToken(_Secret, frozen=True, kw_only=True):
    """A new token.

    Attributes:
        status_code: the HTTP status, repeated in the body.
        token: the token's text. It is a secret: anybody who has it can use it.
        jti: the token's id, which names it in the revocation list, the log and the audit trail.
        exp: when the token expires, in seconds since 1970 (UTC).
    """

    status_code: int = 200
    token: str
    jti: str
    exp: int


class Rotated(NewToken, frozen=True, kw_only=True):
    """The successor of a token.

    Attributes:
        sid: the session that the token and all its successors belong to; it can be revoked as a whole.
    """

    sid: str


class NewCode(NewToken, frozen=True, kw_only=True):
    """A challenge, and the code that answers it.

    Attributes:
        token: the challenge, which must come back with the code. It proves nothing by itself.
        code: six digits to send to the subject, and to nobody else.
    """

    code: str


class Outcome(_Secret, frozen=True, kw_only=True):
    """One result of many: a new token, or the reason why there is none.

    Attributes:
        status_code: the HTTP status that this request alone would have had.
        token: the token's text; only if one was issued.
        jti: the token's id; only if one was issued.
        exp: when the token expires, in seconds since 1970 (UTC); only if one was issued.
        code: why there is none, as a stable code such as `request_invalid`.
        detail: why there is none, in words.
        field: the member of the request that is wrong, if one is.
    """

    status_code: int = 200
    token: str | UnsetType = UNSET
    jti: str | UnsetType = UNSET
    exp: int | UnsetType = UNSET
    code: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
    field: str | UnsetType = UNSET


class NewTokens(Struct, frozen=True, kw_only=True):
    """The results of many requests.

    Attributes:
        status_code: the HTTP status, repeated in the body.
        tokens: one result for each request, in the same order.
    """

    status_code: int = 200
    tokens: list[Outcome]


class Health(Struct, frozen=True, kw_only=True):
    """The service works.

    Attributes:
        status: always `ok`; a service that does not work answers with an error.
    """

    status: str = "ok"


class Problem(Struct, frozen=True, kw_only=True):
    """An error in the form of RFC 9457, with a stable code.

    Attributes:
        title: the name of the HTTP status.
        status: the HTTP status.
        code: what went wrong, as a code that does not change; programs should read this.
        detail: what went wrong and what to do, for people.
        field: the member of the request that is wrong, if one is.
        attempts_left: how many guesses the challenge still takes, if a code was wrong.
    """

    title: str
    status: int
    code: str
    detail: str
    field: str | UnsetType = UNSET
    attempts_left: int | UnsetType = UNSET


class Undecided(Struct, frozen=True, kw_only=True):
    """The token cannot be checked now.

    Attributes:
        status_code: the HTTP status, repeated in the body.
        status: always false, so that no client mistakes a missing verdict for a yes.
        code: why, as a stable code such as `store_unavailable`.
        detail: why, in words.
    """

    status_code: int = 503
    status: bool = False
    code: str
    detail: str


class OAuthProblem(Struct, frozen=True, kw_only=True):
    """An error in the form of RFC 6749, section 5.2.

    Attributes:
        error: the error's code, from the registry of OAuth.
        error_description: what went wrong and what to do, for people.
    """

    error: str
    error_description: str


class AccessToken(_Secret, frozen=True, kw_only=True):
    """An access token (RFC 6749, section 5.1).

    Attributes:
        access_token: the token's text. It is a secret: anybody who has it can use it.
        token_type: always `Bearer`: send the token as `Authorization: Bearer …` (RFC 6750).
        expires_in: seconds until the token expires.
        scope: the scopes that were granted, separated by spaces.
    """

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - a type, no secret
    expires_in: int
    scope: str


class Metadata(Struct, frozen=True, kw_only=True):
    """The OAuth endpoints of this service (RFC 8414, section 2).

    Attributes:
        issuer: the URL that identifies this service.
        token_endpoint: where a client gets an access token.
        token_endpoint_auth_methods_supported: how a client can send its credential there.
        introspection_endpoint: where a token is looked up (RFC 7662).
        introspection_endpoint_auth_methods_supported: how a client can send its credential there.
        revocation_endpoint: where a token is revoked (RFC 7009).
        revocation_endpoint_auth_methods_supported: how a client can send its credential there.
        grant_types_supported: the grant types of the token endpoint.
        response_types_supported: always `none`, the registered word for a service that has no authorization
            endpoint; RFC 8414 requires this member.
        service_documentation: a page for people.
    """

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
    """A token that is not valid. No reason is given (RFC 7662, section 2.2).

    Attributes:
        active: always false.
    """

    active: bool = False


class Ended(Struct, frozen=True):
    """An empty object: the token is revoked, or was not valid anyway (RFC 7009, section 2.2)."""


class Introspection(Struct, frozen=True, kw_only=True):
    """A valid token, as RFC 7662, section 2.2, describes it; `purpose`, `sid` and `data` are our own members.

    Attributes:
        active: always true.
        token_type: always `Bearer`.
        iss: the URL of the service that issued the token.
        jti: the token's id.
        iat: when the token was issued, in seconds since 1970 (UTC).
        exp: when the token expires, in seconds since 1970 (UTC).
        purpose: what the token was issued for.
        sub: the subject, such as a user's id.
        client_id: the client that asked for the token.
        scope: what the token permits: words separated by spaces.
        aud: the audience that the token is meant for.
        sid: the session that the token belongs to.
        auth_time: when the first token of this chain of rotated ones was issued, in seconds since 1970 (UTC).
        data: the JSON that the issuer put into the token.
    """

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
        """The answer about a valid token with these claims, which the service at `iss` issued."""
        members = {name: getattr(claims, name, None) for name in cls.__struct_fields__}
        return cls(**{name: value for name, value in members.items() if value is not None}, iss=iss)
