"""Request bodies: what they may hold, and reading them with limits."""

import asyncio
from typing import Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest

from ..claims import DEFAULT_PURPOSE, Time
from ..errors import RequestInvalid
from ..requests import Audience, Binding, Jti, Name, Purpose, Request, Scope, Subject, explained

#: Bytes. A token holds 4096 characters at most, and JSON may write a character in six.
MAX_BODY: Final = 64 * 1024
#: Seconds for a whole body; a sender that dawdles holds a connection, and a shut-down, up.
BODY_TIMEOUT: Final = 10.0

T = TypeVar("T", bound=Request)


class ValidRequest(Request, frozen=True, kw_only=True):
    """Is this token good, and for this? Without `purpose`, for whatever it was issued for."""

    token: str
    purpose: Purpose | None = None
    scope: Scope | None = None
    aud: Audience | None = None
    bind: Binding | None = None


class ConsumeRequest(Request, frozen=True, kw_only=True):
    """Use this token once, for this purpose."""

    token: str
    purpose: Purpose = DEFAULT_PURPOSE
    scope: Scope | None = None
    aud: Audience | None = None
    bind: Binding | None = None


class RevokeRequest(Request, frozen=True, kw_only=True):
    """Exactly one of: `token`; `jti` with `exp`; `sub`; `sid`; `client_id`."""

    token: str | None = None
    jti: Jti | None = None
    exp: Time | None = None
    sub: Subject | None = None
    sid: Name | None = None
    client_id: Name | None = None

    def __post_init__(self) -> None:
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not None]
        if given not in (["token"], ["jti", "exp"], ["sub"], ["sid"], ["client_id"]):
            raise ValueError("give exactly one of: token; jti and exp; sub; sid; client_id")


class TokenRequest(Request, frozen=True, kw_only=True):
    """The body of the original POST /app/valid/{token}: the same token again."""

    token: str | None = None


async def read(request: HTTPRequest, wanted: type[T]) -> T:
    """The body as `wanted`; an empty one as an empty object.

    Raises:
        HTTPException: 400 not JSON, 408 too slow, 413 too long, 415 not declared as JSON.
        RequestInvalid: naming the member at fault.
        ClientDisconnect: the sender is gone.
    """
    raw = await _read_bytes(request)
    if raw:
        _check_media_type(request)
    try:
        return msgspec.json.decode(raw or b"{}", type=wanted)
    except msgspec.ValidationError as error:
        raise explained(error) from None
    # msgspec's and Unicode's errors are ValueErrors; too many brackets are a RecursionError.
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body is not JSON in UTF-8, or is nested too deep.") from None


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


def _check_media_type(request: HTTPRequest) -> None:
    # Also keeps pages of other sites out: a browser asks first (CORS) before it sends this type.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send JSON, and say so: Content-Type: application/json.")


def check_public(purpose: str) -> None:
    """The service's own purposes are neither issued nor consumed over HTTP: a client that may issue
    tokens could otherwise issue itself a credential for everything.

    Raises:
        RequestInvalid: naming `purpose`.
    """
    if purpose.startswith("signer:"):
        raise RequestInvalid("purpose: the prefix signer: is the service's own", "purpose")
