"""Request bodies: what they may hold, and reading them with limits."""

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

#: Where a scope holds the whole body, if that came with the head.
WHOLE: Final = "signer.body"

T = TypeVar("T", bound=Request)
F = TypeVar("F", bound="Form")


class Demands(TypedDict):
    """What a token must satisfy besides its purpose; see Signer.validate."""

    scope: str | None
    aud: str | None
    bind: str | None


class _CheckRequest(Request, frozen=True, kw_only=True):
    scope: Scope | None = None
    aud: Audience | None = None
    bind: Binding | None = None

    def demands(self) -> Demands:
        return {"scope": self.scope, "aud": self.aud, "bind": self.bind}


class OneOf(Request, frozen=True, kw_only=True):
    """A request in one of several ways."""

    #: Exactly one of these members must be there.
    one_of: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        given = {name for name in self.__struct_fields__ if getattr(self, name) is not UNSET}
        if len(given.intersection(self.one_of)) != 1:
            raise ValueError(f"give exactly one of: {', '.join(self.one_of)}")


class BatchRequest(Request, frozen=True, kw_only=True):
    """Several tokens at once: each as in POST /app/token. What is wrong with one is told in its place."""

    max_body = MAX_BATCH_BODY

    tokens: Annotated[list[Raw], Meta(min_length=1, max_length=MAX_ISSUED)]


class ValidateRequest(_CheckRequest, OneOf, frozen=True, kw_only=True):
    """Is this token good, or are these, and for this? Without `purpose`, for whatever it was issued for."""

    max_body = MAX_BATCH_BODY
    one_of = ("token", "tokens")

    token: str | UnsetType = UNSET
    tokens: Annotated[list[str], Meta(min_length=1, max_length=MAX_VALIDATED)] | UnsetType = UNSET
    purpose: Purpose | None = None


class ConsumeRequest(_CheckRequest, frozen=True, kw_only=True):
    """Use this token once, for this purpose."""

    token: str
    purpose: Purpose = DEFAULT_PURPOSE


class RotateRequest(Request, frozen=True, kw_only=True):
    """Trade this token for its successor; `session_ttl` in seconds from the first token of the chain."""

    token: str
    purpose: Purpose = DEFAULT_PURPOSE
    aud: Audience | None = None
    bind: Binding | None = None
    session_ttl: Ttl | None = None


class VerifyCodeRequest(Request, frozen=True, kw_only=True):
    """Is this the code of this challenge?"""

    token: str
    code: Code
    purpose: CodePurpose = DEFAULT_PURPOSE


class RevokeRequest(OneOf, frozen=True, kw_only=True):
    """Exactly one of: `token`, `jti`, `sub`, `sid`, `client_id`. Whoever knows a `jti`'s `exp` may add it."""

    one_of = ("token", "jti", "sub", "sid", "client_id")

    token: str | UnsetType = UNSET
    jti: Jti | UnsetType = UNSET
    exp: Time | UnsetType = UNSET
    sub: Subject | UnsetType = UNSET
    sid: Name | UnsetType = UNSET
    client_id: Name | UnsetType = UNSET


class SameTokenRequest(Request, frozen=True, kw_only=True):
    """The body of the original POST /app/valid/{token}: the same token again."""

    token: str | None = None


class Form(Struct, frozen=True, kw_only=True):
    """The form of an OAuth endpoint. What it does not know it ignores (RFC 6749, section 3.2)."""

    client_id: str | UnsetType = UNSET
    client_secret: str | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class TokenRequestForm(Form, frozen=True, kw_only=True):
    """RFC 6749, section 4.4.2."""

    grant_type: Annotated[str, Meta(extra_json_schema={"enum": ["client_credentials"]})]
    scope: str | UnsetType = UNSET


class TokenForm(Form, frozen=True, kw_only=True):
    """RFC 7662, section 2.1, and RFC 7009, section 2.1."""

    token: Annotated[str, Meta(min_length=1)]
    token_type_hint: str | UnsetType = UNSET


async def read(request: HTTPRequest, wanted: type[T]) -> T:
    """The body as `wanted`; an empty one as an empty object.

    Raises:
        HTTPException: 400 not JSON, 408 too slow, 413 too long, 415 not declared as JSON.
        RequestInvalid: naming the member at fault.
        ClientDisconnect: the sender is gone.
    """
    scope = request.scope

    def check(length: int) -> None:
        _check_length(length, wanted.max_body)
        # Also keeps pages of other sites out: a browser asks first (CORS) before it sends this type.
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
    # What is frozen may be everybody's.
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
    # Out here, or the decoder's error, which may hold the whole body, would stay as its context.
    raise refusal


def _leniently(raw: bytes | Raw, wanted: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=wanted)
    except msgspec.ValidationError:
        # To JSON Schema, and to some languages' encoders, 900.0 is an integer.
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
        RequestInvalid: not a form, a parameter is missing or given twice.
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
    # RFC 6749, section 3.2: a parameter without a value is one that was not sent.
    form: F = converted({name: value for name, value in pairs if value}, wanted)
    return form


async def _read_bytes(request: HTTPRequest, check: Callable[[int], None]) -> bytes:
    """The body, unless `check` raises, which is given the length that the head declares before anything of
    the body is awaited, and then how much has come."""
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
        # RFC 9110, section 15.5.9: what else may come on this connection cannot be told from the body.
        detail = f"The body did not arrive within {BODY_TIMEOUT:.0f} seconds."
        raise HTTPException(408, detail, {"connection": "close"}) from None
    return bytes(body)


def _declared_length(scope: HTTPScope) -> int | None:
    """None where there is no body (RFC 9112, section 6.3). One in chunks has a byte at least where its sender
    gives it a type, or asks whether to send it; otherwise it may be empty."""
    if header(scope, b"transfer-encoding"):
        return 1 if header(scope, b"content-type") or header(scope, b"expect") else 0
    length = header(scope, b"content-length")
    return int(length[0]) if length else None


def _check_length(length: int, limit: int) -> None:
    if length > limit:
        raise HTTPException(413, f"This body may have {limit} bytes.")


def _media_type(scope: HTTPScope) -> bytes:
    declared = header(scope, b"content-type")
    return declared[0].partition(b";")[0].strip().lower() if declared else b""
