"""Django: a decorator that gives a view the claims of the request's token as `request.claims`.

`SIGNER` in the settings is the Signer. Use these views for programs, which send `Authorization: Bearer`. They
use no cookie, so that no CSRF protection is needed; Django's own sessions are not affected.

It avoids telling a stranger why a token is refused, and a token for a number of uses that passes as a
session.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse, JsonResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]
from django.views.decorators.csrf import csrf_exempt  # type: ignore[import-untyped]
from django.views.decorators.http import require_POST  # type: ignore[import-untyped]

from signer import SystemUnavailable, TokenError
from signer.errors import TokenScopeInsufficient, TokenUsed

View = Callable[..., HttpResponse]


def requires(scope: str = "") -> Callable[[View], View]:
    """Call the view only with a valid token that has all these scopes."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            try:
                claims = settings.SIGNER.validate(
                    token.strip() if scheme.lower() == "bearer" else "", scope=scope
                )
                if claims.max_uses is not None:
                    raise TokenUsed
            except TokenScopeInsufficient:
                return _refusal(403, "insufficient_scope")
            except TokenError:
                # Callers that sent no token get no error code (RFC 6750, section 3.1).
                return _refusal(401, "invalid_token" if scheme.lower() == "bearer" else "")
            except SystemUnavailable:
                return JsonResponse(
                    {"error": "temporarily_unavailable"}, status=503, headers={"Retry-After": "1"}
                )
            request.claims = claims
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def _refusal(status: int, error: str) -> HttpResponse:
    headers = {"WWW-Authenticate": f'Bearer error="{error}"' if error else "Bearer"}
    return JsonResponse({"error": error}, status=status, headers=headers)


@requires()
def me(request: HttpRequest) -> HttpResponse:
    """GET /me"""
    return JsonResponse({"sub": request.claims.sub})


@csrf_exempt  # type: ignore[untyped-decorator]
@require_POST  # type: ignore[untyped-decorator]
@requires("write")
def add_note(request: HttpRequest) -> HttpResponse:
    """POST /notes"""
    return JsonResponse({"added_by": request.claims.sub})


urlpatterns = [path("me", me), path("notes", add_note)]
