"""Errors as answers. One table maps classes of errors to statuses. The form is that of RFC 9457; the OAuth
endpoints have a form of their own."""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ...errors import (
    AttemptsExceeded,
    CallerError,
    CodeWrong,
    CredentialInvalid,
    RateLimited,
    RequestInvalid,
    ScopeInsufficient,
    SignerError,
    StoreRequired,
    SystemUnavailable,
    TokenError,
)
from .answers import OAuthProblem, Outcome, Problem, Refusal, Undecided

logger = logging.getLogger(__name__)

#: The first class of an error, in its method resolution order, that is in this table decides.
_STATUS: Final[dict[type[Exception], int]] = {
    AttemptsExceeded: 429,
    TokenError: 409,
    RequestInvalid: 422,
    ScopeInsufficient: 403,
    RateLimited: 429,
    CallerError: 401,
    StoreRequired: 501,
    SignerError: 500,
}
#: Codes of errors that belong to HTTP itself.
_CODE: Final = {
    400: "request_malformed",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timeout",
    413: "body_too_large",
    415: "media_type_unsupported",
}
#: Our codes as those of RFC 6749, section 5.2, and RFC 6750, section 3.1.
_OAUTH: Final = {
    "credential_missing": "invalid_client",
    "credential_invalid": "invalid_client",
    "scope_insufficient": "insufficient_scope",
    "rate_limited": "temporarily_unavailable",
    "store_unavailable": "temporarily_unavailable",
    "audit_unavailable": "temporarily_unavailable",
    "clock_unreliable": "temporarily_unavailable",
    "internal_error": "server_error",
}
#: In seconds.
_RETRY_AFTER: Final = {"retry-after": "1"}
_UNAVAILABLE: Final = "The service cannot check or change tokens now: try again."


async def on_signer_error(request: HTTPRequest, error: Exception) -> Response:
    """The answer for one of our own errors, with its code."""
    error = cast(SignerError, error)
    if isinstance(error, SystemUnavailable):
        return unavailable(request, error)
    headers = _challenge(request, error)
    return _refused(request, _status(error), error.code, str(error), headers, **_members(error))


def refusal(error: SignerError) -> Outcome:
    """The same error as one result of many."""
    return Outcome(status_code=_status(error), code=error.code, detail=str(error), **_members(error))


async def on_http_error(request: HTTPRequest, error: Exception) -> Response:
    """The answer for a request that has no route, or a body that was refused."""
    error = cast(HTTPException, error)
    code = _CODE.get(error.status_code, "http_error")
    return _refused(request, error.status_code, code, error.detail, dict(error.headers or {}))


async def on_bug(request: HTTPRequest, error: Exception) -> Response:
    """The answer for any other error, which is our mistake. The traceback goes to the log."""
    return _refused(request, 500, "internal_error", "This is a bug in the service. Its log says more.", {})


async def on_disconnect(request: HTTPRequest, error: Exception) -> Response:
    """The answer that no client will read, because it has left. The request log shows 499, as nginx does."""
    return Response(status_code=499)


def problem(
    status: int, code: str, detail: str, headers: dict[str, str] | None = None, **members: Any
) -> Refusal:
    """An error in the form of RFC 9457; see answers.Problem for the members."""
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, code=code, detail=detail, **members)
    return Refusal(code, body, status, headers, media_type="application/problem+json")


def oauth_problem(
    status: int, error: str, description: str, headers: Mapping[str, str] | None = None, code: str = ""
) -> Refusal:
    """An error in the form of RFC 6749, section 5.2. `code` is our name for it, if that differs."""
    # RFC 6749 restricts the characters of a description.
    description = re.sub(r"[^\x20\x21\x23-\x5b\x5d-\x7e]", "'", description.replace("…", "..."))
    return Refusal(code or error, OAuthProblem(error=error, error_description=description), status, headers)


def _refused(
    request: HTTPRequest, status: int, code: str, detail: str, headers: dict[str, str], **members: Any
) -> Refusal:
    if not _route(request).startswith("/oauth/"):
        return problem(status, code, detail, headers, **members)
    # RFC 6749, section 5.2: everything that is wrong with a request is a 400.
    return oauth_problem(
        400 if status in (415, 422) else status, _OAUTH.get(code, "invalid_request"), detail, headers, code
    )


def _status(error: SignerError) -> int:
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def _members(error: SignerError) -> dict[str, Any]:
    match error:
        case RequestInvalid(field=str(field)) if field:
            return {"field": field}
        case CodeWrong(attempts_left=attempts_left):
            return {"attempts_left": attempts_left}
    return {}


def _route(request: HTTPRequest) -> str:
    # The path itself may begin with a proxy's prefix (root_path).
    route = request.scope.get("route")
    return route.path_format if route else ""


def unavailable(request: HTTPRequest, error: SystemUnavailable) -> Refusal:
    """The answer if nothing can be checked or changed now, in the form that the request's route has."""
    # The reason is for the operator only: it may name paths and servers, which are no caller's business.
    logger.error("%s: %s", error.code, error)
    if _route(request).startswith("/auth"):
        return problem(403, error.code, _UNAVAILABLE)  # see ForwardAuth
    if not _route(request).startswith("/app/valid"):
        return _refused(request, 503, error.code, _UNAVAILABLE, _RETRY_AFTER)
    # In these routes, `status` is the verdict. Without a verdict, it must be false.
    return Refusal(error.code, Undecided(code=error.code, detail=_UNAVAILABLE), 503, _RETRY_AFTER)


def challenge(error: str = "", scheme: str = "Bearer") -> dict[str, str]:
    """The header that says how to authenticate (RFC 6750, section 3; RFC 7617). Give `error` only if the
    caller sent a token or credential. Nothing that the caller sent is in this header."""
    value = f'{scheme} realm="signer"' + (f', error="{error}"' if error else "")
    return {"www-authenticate": value}


def _challenge(request: HTTPRequest, error: SignerError) -> dict[str, str]:
    if isinstance(error, RateLimited):
        return {"retry-after": str(error.retry_after)}
    if not isinstance(error, CallerError):
        return {}
    scheme = request.headers.get("authorization", "").partition(" ")[0].lower()
    if isinstance(error, ScopeInsufficient) and scheme != "bearer":
        return {}  # to authenticate again would change nothing
    if scheme == "basic" or (scheme != "bearer" and _route(request).startswith("/oauth/")):
        return challenge(scheme="Basic")
    reasons = {CredentialInvalid: "invalid_token", ScopeInsufficient: "insufficient_scope"}
    return challenge(reasons.get(type(error), "") if scheme == "bearer" else "")
