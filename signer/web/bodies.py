"""Request bodies: what they may hold, and reading them with limits."""

import asyncio
from typing import Final, TypedDict, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest

from ..claims import DEFAULT_PURPOSE, Time
from ..errors import RequestInvalid
from ..requests import Audience, Binding, Jti, Name, Purpose, Request, Scope, Subject, converted, explained

#: Bytes. A token holds 4096 characters at most, and JSON may write a character in six.
MAX_BODY: Final = 64 * 1024
MAX_FIELDS: Final = 64
#: Seconds for a whole body; a sender that dawdles holds a connection, and a shut-down, up.
BODY_TIMEOUT: Final = 10.0

T = TypeVar("T", bound=Request)
F = TypeVar("F", bound="Form")


class Demands(TypedDict):
    """What a token must satisfy besides its purpose; see Signer.validate."""

    scope: str | None
    aud: str | None
    bind: str | None


class _CheckRequest(Request, frozen=True, kw_only=True):
    token: str
    scope: Scope | None = None
    aud: Audience | None = None
    bind: Binding | None = None

    def demands(self) -> Demands:
        return {"scope": self.scope, "aud": self.aud, "bind": self.bind}


class ValidateRequest(_CheckRequest, frozen=True, kw_only=True):
    """Is this token good, and for this? Without `purpose`, for whatever it was issued for."""

    purpose: Purpose | None = None


class ConsumeRequest(_CheckRequest, frozen=True, kw_only=True):
    """Use this token once, for this purpose."""

    purpose: Purpose = DEFAULT_PURPOSE


class RevokeRequest(Request, frozen=True, kw_only=True):
    """Exactly one of: `token`; `jti`, for which `exp` may be given too; `sub`; `sid`; `client_id`."""

    token: str | None = None
    jti: Jti | None = None
    exp: Time | None = None
    sub: Subject | None = None
    sid: Name | None = None
    client_id: Name | None = None

    def __post_init__(self) -> None:
        ways = (self.token, self.jti, self.sub, self.sid, self.client_id)
        if sum(way is not None for way in ways) != 1 or (self.exp is not None and self.jti is None):
            raise ValueError("give exactly one of: token; jti, and exp with it or not; sub; sid; client_id")


class SameTokenRequest(Request, frozen=True, kw_only=True):
    """The body of the original POST /app/valid/{token}: the same token again."""

    token: str | None = None


class Form(Struct, frozen=True, kw_only=True):
    """The form of an OAuth endpoint. What it does not know it ignores (RFC 6749, section 3.2)."""

    client_id: str | None = None
    client_secret: str | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class TokenRequestForm(Form, frozen=True, kw_only=True):
    """RFC 6749, section 4.4.2."""

    grant_type: str
    scope: str | None = None


class TokenForm(Form, frozen=True, kw_only=True):
    """RFC 7662, section 2.1, and RFC 7009, section 2.1."""

    token: str
    token_type_hint: str | None = None


async def read(request: HTTPRequest, wanted: type[T]) -> T:
    """The body as `wanted`; an empty one as an empty object.

    Raises:
        HTTPException: 400 not JSON, 408 too slow, 413 too long, 415 not declared as JSON.
        RequestInvalid: naming the member at fault.
        ClientDisconnect: the sender is gone.
    """
    raw = await _read_bytes(request)
    # Also keeps pages of other sites out: a browser asks first (CORS) before it sends this type.
    if raw and _media_type(request) != "application/json":
        raise HTTPException(415, "Send JSON, and say so: Content-Type: application/json.")
    refusal: RequestInvalid | HTTPException
    try:
        return msgspec.json.decode(raw or b"{}", type=wanted)
    except msgspec.ValidationError as error:
        refusal = explained(error)
    # msgspec's and Unicode's errors are ValueErrors; too many brackets are a RecursionError.
    except (ValueError, RecursionError):
        refusal = HTTPException(400, "The body is not JSON in UTF-8, or is nested too deep.")
    # Out here, or the decoder's error, which may hold the whole body, would stay as its context.
    raise refusal


async def read_form(request: HTTPRequest, wanted: type[F]) -> F:
    """The form in the body as `wanted`.

    Raises:
        HTTPException: 408 too slow, 413 too long, 415 not declared as a form.
        RequestInvalid: not a form, a parameter is missing or given twice.
        ClientDisconnect: the sender is gone.
    """
    raw = await _read_bytes(request)
    if _media_type(request) != "application/x-www-form-urlencoded":
        raise HTTPException(415, "Send a form: Content-Type: application/x-www-form-urlencoded.")
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


async def _read_bytes(request: HTTPRequest) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise HTTPException(413, f"A body may have {MAX_BODY} bytes.")
    except TimeoutError:
        # RFC 9110, section 15.5.9: what else may come on this connection cannot be told from the body.
        detail = f"The body did not arrive within {BODY_TIMEOUT:.0f} seconds."
        raise HTTPException(408, detail, {"connection": "close"}) from None
    return bytes(body)


def _media_type(request: HTTPRequest) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
