"""Errors as answers: one table from error classes to statuses, one form (RFC 9457)."""

import logging
from http import HTTPStatus
from typing import Any, Final, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ..errors import (
    CallerError,
    CredentialInvalid,
    RequestInvalid,
    ScopeInsufficient,
    SignerError,
    SystemUnavailable,
    TokenError,
    TokenUsed,
)
from .answers import Answer

logger = logging.getLogger(__name__)

#: The first class in an error's ancestry that stands here decides.
_STATUS: Final[dict[type[Exception], int]] = {
    TokenUsed: 409,
    TokenError: 422,
    RequestInvalid: 422,
    ScopeInsufficient: 403,
    CallerError: 401,
    SignerError: 500,
}
#: Codes of what HTTP itself refuses.
_CODE: Final = {
    400: "body_malformed",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
    415: "media_type_unsupported",
}
#: In seconds.
_RETRY_AFTER: Final = {"retry-after": "1"}
_UNAVAILABLE: Final = "The service cannot check or change tokens now: try again."


async def on_signer_error(request: HTTPRequest, error: Exception) -> Response:
    """One of our own errors, under its own code."""
    error = cast(SignerError, error)
    if isinstance(error, SystemUnavailable):
        return _unavailable(request, error)
    status = next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)
    members = {"field": error.field} if isinstance(error, RequestInvalid) and error.field else {}
    return problem(status, error.code, str(error), _challenge(request, error), **members)


async def on_http_error(request: HTTPRequest, error: Exception) -> Response:
    """What routing or reading the body refused."""
    error = cast(HTTPException, error)
    code = _CODE.get(error.status_code, "http_error")
    return problem(error.status_code, code, error.detail, dict(error.headers or {}))


async def on_bug(request: HTTPRequest, error: Exception) -> Response:
    """Anything else is our mistake; the traceback goes to the log."""
    return problem(500, "internal_error", "This is a bug in the service; its log says more.")


async def on_disconnect(request: HTTPRequest, error: Exception) -> Response:
    """Nobody is left to read this; 499 is nginx's word for it, for the request log."""
    return Response(status_code=499)


def problem(
    status: int, code: str, detail: str, headers: dict[str, str] | None = None, **members: Any
) -> Answer:
    """A problem document of RFC 9457 with our `code`, and `field` where one member is at fault."""
    body = {"title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail}
    return Answer(body | members, status, headers, media_type="application/problem+json")


def _unavailable(request: HTTPRequest, error: SystemUnavailable) -> Answer:
    # What ails the machine is for its operator; paths and engines are no caller's business.
    logger.error("%s: %s", error.code, error)
    # By the route and not the path, before which a proxy's prefix (root_path) may stand.
    if not request.scope["route"].path_format.startswith("/app/valid"):
        return problem(503, error.code, _UNAVAILABLE, _RETRY_AFTER)
    # These routes' `status` is the verdict, and where there is none it is no.
    body = {"status_code": 503, "status": False, "code": error.code, "detail": _UNAVAILABLE}
    return Answer(body, 503, _RETRY_AFTER)


def _challenge(request: HTTPRequest, error: SignerError) -> dict[str, str]:
    # RFC 6750, section 3: in the scheme the caller used; a reason only where there was a credential.
    if not isinstance(error, CallerError):
        return {}
    if request.headers.get("authorization", "").lower().startswith("basic"):
        return {"www-authenticate": 'Basic realm="signer", charset="UTF-8"'}
    reasons = {
        CredentialInvalid: ', error="invalid_token"',
        ScopeInsufficient: ', error="insufficient_scope"',
    }
    return {"www-authenticate": 'Bearer realm="signer"' + reasons.get(type(error), "")}
