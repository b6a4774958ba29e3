"""WSGI: a middleware around any application that accepts only requests with a valid token.

The application finds the claims as `environ["signer.claims"]`. No header of a caller can be mistaken for
them, because the names of headers begin with HTTP_. For another purpose or scopes pass a functools.partial of
`validate`.

It avoids guarding views one by one, and forgetting one.
"""

from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from signer import Claims, SystemUnavailable, TokenError
from signer.errors import TokenUsed


class TokenGuard:
    """Calls `app` for requests with a token that `validate` accepts."""

    def __init__(self, app: WSGIApplication, validate: Callable[[str], Claims]) -> None:
        self._app = app
        self._validate = validate

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The application's answer, or 401, or 503 where the token cannot be checked now."""
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        try:
            claims = self._validate(token.strip() if scheme.lower() == "bearer" else "")
            if claims.max_uses is not None:
                raise TokenUsed
        except TokenError:
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Length", "0")])
            return []
        except SystemUnavailable:
            start_response("503 Service Unavailable", [("Retry-After", "1"), ("Content-Length", "0")])
            return []
        return self._app({**environ, "signer.claims": claims}, start_response)
