"""Flask: a decorator that gives a view the claims of the request's token as `g.claims`.

The view names the scopes that it needs. Errors go through Flask's error handlers, so that one place answers
401, 403 or 503. Two Authorization headers arrive as one text, which is no token.

It avoids telling a stranger why a token is refused, and a token for a number of uses that passes as a
session.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Flask, current_app, g, request

from signer import Signer, SystemUnavailable, TokenError
from signer.errors import TokenScopeInsufficient, TokenUsed

Reply = tuple[dict[str, str], int, dict[str, str]]
View = Callable[..., Any]


def requires(scope: str = "") -> Callable[[View], View]:
    """Call the view only with a valid token that has all these scopes."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            token = token.strip() if scheme.lower() == "bearer" else ""
            g.claims = current_app.extensions["signer"].validate(token, scope=scope)
            if g.claims.max_uses is not None:
                raise TokenUsed
            return view(*args, **kwargs)

        return guarded

    return decorate


def protect(app: Flask, signer: Signer) -> None:
    """Make `requires` work in this application."""
    app.extensions["signer"] = signer
    app.register_error_handler(TokenError, _refused)
    app.register_error_handler(TokenScopeInsufficient, _forbidden)
    app.register_error_handler(SystemUnavailable, _unavailable)


def _refused(error: Exception) -> Reply:
    # Callers that sent no token get no error code (RFC 6750, section 3.1).
    is_shown = request.headers.get("Authorization", "").lower().startswith("bearer")
    reason = ' error="invalid_token"' if is_shown else ""
    return {"error": "invalid_token"}, 401, {"WWW-Authenticate": f"Bearer{reason}"}


def _forbidden(error: Exception) -> Reply:
    return {"error": "insufficient_scope"}, 403, {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}


def _unavailable(error: Exception) -> Reply:
    return {"error": "temporarily_unavailable"}, 503, {"Retry-After": "1"}


def create_app(signer: Signer) -> Flask:
    """An application with two routes."""
    app = Flask("notes")
    protect(app, signer)

    @app.get("/me")
    @requires()
    def me() -> dict[str, str | None]:
        return {"sub": g.claims.sub}

    @app.post("/notes")
    @requires("write")
    def add_note() -> dict[str, str | None]:
        return {"added_by": g.claims.sub}

    return app
