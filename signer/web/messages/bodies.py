"""Request bodies: what they can contain, and how they are read within limits of size and time."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, TypedDict, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.types import Scope as HTTPScope

from ...errors import RequestInvalid
from ...policy import BODY_TIMEOUT, MAX_BATCH_BODY, MAX_FIELDS, MAX_ISSUED, MAX_VALIDATED
from ...tokens.claims import DEFAULT_PURPOSE, Time
from ...tokens.values import (
    Audience,
    Binding,
    Code,
    CodePurpose,
    Jti,
    Name,
    Purpose,
    Request,
    Scope,
    Subject,
    Ttl,
    converted,
    explained,
)
from ..telemetry.calls import header

#: The key under which a scope has the whole body, if that arrived together with the head.
WHOLE: Final = "signer.body"

T = TypeVar("T", bound=Request)
F = TypeVar("F", bound="Form")


class Demands(TypedDict):
    """What a token must have besides its purpose; see Signer.validate."""

    scope: str | None
    aud: str | None
    bind: str | None


class _CheckRequest(Request, frozen=True, kw_only=True):
    """What a token must have.

    Attributes:
        scope: words, separated by spaces, that the token's scope must contain.
        aud: the audience that the token must be meant for; leave it out if the token must have none.
        bind: the state that the token was bound to, such as the user's current password hash.
    """

    scope: Scope | None = None
    aud: Audience | None = None
    bind: Binding | None = None

    def demands(self) -> Demands:
        return {"scope": self.scope, "aud": self.aud, "bind": self.bind}


class OneOf(Request, frozen=True, kw_only=True):
    """A request that names its object in one of several ways."""

    #: Exactly one of these members must be given.
    one_of: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        given = {name for name in self.__struct_fields__ if getattr(self, name) is not UNSET}
        if len(given.intersection(self.one_of)) != 1:
            raise ValueError(f"give exactly one of: {', '.join(self.one_of)}")


class BatchRequest(Request, frozen=True, kw_only=True):
    """Several tokens at once. A request that is wrong is reported in its place, and the others are answered.

    Attributes:
        tokens: up to 100 requests, each with the members of a body of POST /app/token.
    """

    max_body = MAX_BATCH_BODY

    tokens: Annotated[list[Raw], Meta(min_length=1, max_length=MAX_ISSUED)]


class ValidateRequest(_CheckRequest, OneOf, frozen=True, kw_only=True):
    """Which token to validate, or which tokens, and what each must have.

    Attributes:
        token: the token's text.
        tokens: the texts of up to 1,000 tokens, instead of `token`.
        purpose: what the token must have been issued for; null or nothing accepts any purpose.
        aud: the audience that the token must be meant for. With a `purpose`, leave it out only if the token
            must have none.
    """

    max_body = MAX_BATCH_BODY
    one_of = ("token", "tokens")

    token: str | UnsetType = UNSET
    tokens: Annotated[list[str], Meta(min_length=1, max_length=MAX_VALIDATED)] | UnsetType = UNSET
    purpose: Purpose | None = None


class ConsumeRequest(_CheckRequest, frozen=True, kw_only=True):
    """Which token to use once, and what it must have.

    Attributes:
        token: the token's text.
        purpose: what the token must have been issued for.
    """

    token: str
    purpose: Purpose = DEFAULT_PURPOSE


class RotateRequest(Request, frozen=True, kw_only=True):
    """Which token to trade for its successor.

    Attributes:
        token: the token's text.
        purpose: what the token must have been issued for.
        aud: the audience that the token must be meant for; leave it out if the token must have none.
        bind: the state that the token is bound to; its successor is bound to the same.
        session_ttl: seconds after which the chain of tokens ends, counted from the issue of the first one.
            Send the same number each time.
    """

    token: str
    purpose: Purpose = DEFAULT_PURPOSE
    aud: Audience | None = None
    bind: Binding | None = None
    session_ttl: Ttl | None = None


class VerifyCodeRequest(Request, frozen=True, kw_only=True):
    """A code to verify.

    Attributes:
        token: the challenge that was issued with the code.
        code: the six digits that the subject has entered.
        purpose: what the code must have been issued for.
    """

    token: str
    code: Code
    purpose: CodePurpose = DEFAULT_PURPOSE


class RevokeRequest(OneOf, frozen=True, kw_only=True):
    """What to revoke: exactly one of `token`, `jti`, `sub`, `sid` and `client_id`.

    Attributes:
        token: the text of one token.
        jti: the id of one token.
        exp: when the token with that `jti` expires, in seconds since 1970 (UTC). It may be left out.
        sub: a subject, all of whose tokens end.
        sid: a session, all of whose tokens end.
        client_id: a client, all of whose tokens and credentials end.
    """

    one_of = ("token", "jti", "sub", "sid", "client_id")

    token: str | UnsetType = UNSET
    jti: Jti | UnsetType = UNSET
    exp: Time | UnsetType = UNSET
    sub: Subject | UnsetType = UNSET
    sid: Name | UnsetType = UNSET
    client_id: Name | UnsetType = UNSET


class SameTokenRequest(Request, frozen=True, kw_only=True):
    """The body of POST /app/valid/{token}, as the original service had it.

    Attributes:
        token: the same token as in the path. With another one, the answer is no.
    """

    token: str | None = None


class Form(Struct, frozen=True, kw_only=True):
    """The form of an OAuth endpoint. Unknown parameters are ignored (RFC 6749, section 3.2).

    Attributes:
        client_id: the client, if its credential is sent in the form and not in a header.
        client_secret: the credential of that client.
    """

    client_id: str | UnsetType = UNSET
    client_secret: str | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class TokenRequestForm(Form, frozen=True, kw_only=True):
    """A request for an access token (RFC 6749, section 4.4.2).

    Attributes:
        grant_type: always `client_credentials`.
        scope: the scopes to grant, separated by spaces; without it, all that the credential can hand out.
    """

    grant_type: Annotated[str, Meta(extra_json_schema={"enum": ["client_credentials"]})]
    scope: str | UnsetType = UNSET


class TokenForm(Form, frozen=True, kw_only=True):
    """A token to look up or to revoke (RFC 7662, section 2.1, and RFC 7009, section 2.1).

    Attributes:
        token: the token's text.
        token_type_hint: the kind of token. It is ignored: there is one kind here.
    """

    token: Annotated[str, Meta(min_length=1)]
    token_type_hint: str | UnsetType = UNSET


async def read(request: HTTPRequest, wanted: type[T]) -> T:
    """The body as `wanted`; an empty body counts as an empty object.

    Raises:
        HTTPException: 400 not JSON, 408 too slow, 413 too long, 415 not declared as JSON.
        RequestInvalid: naming the member at fault.
        ClientDisconnect: the sender is gone.
    """
    scope = request.scope

    def check(length: int) -> None:
        _check_length(length, wanted.max_body)
        # This also keeps out pages of other sites: a browser sends this type only after asking us (CORS).
        if length and _media_type(scope) != b"application/json":
            raise HTTPException(415, "Send JSON, and say so: Content-Type: application/json.")

    raw: bytes | None = scope.get(WHOLE)
    if raw is None:
        raw = await _read_bytes(request, check)
    else:
        check(len(raw))
    if not raw:
        empty: T = _empty(wanted)
        return empty
    return decoded(raw, wanted)


@lru_cache
def _empty(wanted: type[T]) -> T:
    # It is frozen, so all requests can share it.
    return decoded(b"{}", wanted)


def decoded(raw: bytes | Raw, wanted: type[T]) -> T:
    """JSON as `wanted`.

    Raises:
        HTTPException: 400 not JSON.
        RequestInvalid: naming the member at fault.
    """
    refusal: RequestInvalid | HTTPException
    try:
        return _leniently(raw, wanted)
    except msgspec.ValidationError as error:
        refusal = explained(error)
    # msgspec's and Unicode's errors are ValueErrors; too many brackets are a RecursionError.
    except (ValueError, RecursionError):
        refusal = HTTPException(400, "The body is not JSON in UTF-8, or is nested too deep.")
    # Raised outside of the handler: as its context, the decoder's error could carry the whole body.
    raise refusal


def _leniently(raw: bytes | Raw, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=wanted)
    except msgspec.ValidationError:
        # For JSON Schema, and for the encoders of some languages, 900.0 is an integer.
        with suppress(ValueError, RecursionError):
            members = msgspec.json.decode(raw, type=dict[str, Any])
            return msgspec.convert({name: _whole(name, value) for name, value in members.items()}, wanted)
        raise


def _whole(name: str, value: Any) -> Any:
    return int(value) if name != "data" and isinstance(value, float) and value.is_integer() else value


async def read_form(request: HTTPRequest, wanted: type[F]) -> F:
    """The form in the body as `wanted`.

    Raises:
        HTTPException: 408 too slow, 413 too long, 415 not declared as a form.
        RequestInvalid: it is no form, or a parameter is missing or given twice.
        ClientDisconnect: the sender is gone.
    """

    def check(length: int) -> None:
        _check_length(length, Request.max_body)
        if _media_type(request.scope) != b"application/x-www-form-urlencoded":
            raise HTTPException(415, "Send a form: Content-Type: application/x-www-form-urlencoded.")

    raw = await _read_bytes(request, check)
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        pairs = None
    if pairs is None:
        raise RequestInvalid("The body is not a form in UTF-8.")
    if len({name for name, _ in pairs}) < len(pairs):
        raise RequestInvalid("A parameter is given twice.")
    # RFC 6749, section 3.2: a parameter without a value counts as not sent.
    form: F = converted({name: value for name, value in pairs if value}, wanted)
    return form


async def _read_bytes(request: HTTPRequest, check: Callable[[int], None]) -> bytes:
    """The body, unless `check` raises. It is called with the length that the head declares, before any part
    of the body is awaited, and then with the number of bytes that have arrived."""
    declared = _declared_length(request.scope)
    check(declared or 0)
    if declared is None:
        return b""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                check(len(body))
    except TimeoutError:
        # RFC 9110, section 15.5.9: the rest of the body cannot be told apart from another request.
        detail = f"The body did not arrive within {BODY_TIMEOUT:.0f} seconds."
        raise HTTPException(408, detail, {"connection": "close"}) from None
    return bytes(body)


def _declared_length(scope: HTTPScope) -> int | None:
    """Bytes of the body, or the least number of them; None where there is no body (RFC 9112, section 6.3). A
    body in chunks has at least one byte if its sender names its type or asks whether to send it; otherwise it
    can be empty."""
    if header(scope, b"transfer-encoding"):
        return 1 if header(scope, b"content-type") or header(scope, b"expect") else 0
    length = header(scope, b"content-length")
    return int(length[0]) if length else None


def _check_length(length: int, limit: int) -> None:
    if length > limit:
        raise HTTPException(413, f"The body is too long: at most {limit} bytes are accepted here.")


def _media_type(scope: HTTPScope) -> bytes:
    declared = header(scope, b"content-type")
    return declared[0].partition(b";")[0].strip().lower() if declared else b""
