"""The recipes for web frameworks, each in a real server: all must accept and refuse the same requests."""

from collections.abc import Iterator
from functools import partial
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import django  # type: ignore[import-untyped]
import pytest
from django.conf import settings  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from recipes import fastapi_app, flask_app
from recipes.wsgi_middleware import TokenGuard
from support.clock import Clock
from support.service import Reply
from support.serving import bearer, call, serving, serving_wsgi

from signer import Signer, Store
from signer.credentials import issue_credential


def django_app(signer: Signer) -> WSGIApplication:
    """The views of the recipe as Django serves them, with its CSRF protection."""
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["127.0.0.1"],
            MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
            ROOT_URLCONF="recipes.django_app",
            LOGGING_CONFIG=None,
        )
        django.setup()
    settings.SIGNER = signer
    application: WSGIApplication = get_wsgi_application()
    return application


@pytest.fixture(params=["fastapi", "flask", "django"])
def port(request: pytest.FixtureRequest, signer: Signer) -> Iterator[int]:
    """The port of an application of one recipe."""
    match request.param:
        case "fastapi":
            running = serving(fastapi_app.create_app(signer))
        case "flask":
            running = serving_wsgi(flask_app.create_app(signer))
        case _:
            running = serving_wsgi(django_app(signer))
    with running as port:
        yield port


def is_refused(reply: Reply) -> bool:
    """As RFC 6750, section 3, demands, and without a reason."""
    challenge = reply.headers["www-authenticate"]
    return (
        reply.status == 401
        and challenge.startswith("Bearer")
        and b"token_" not in reply.raw.replace(b"invalid_token", b"")
    )


class TestGuardedViews:
    def test_a_good_token_gets_in(self, signer: Signer, port: int) -> None:
        """The view knows whose request it is."""
        token = signer.issue(sub="42", scope="read write")
        assert call(port, "/me", bearer(token)).json == {"sub": "42"}
        assert call(port, "/me", [("authorization", f"bearer {token}")]).json == {"sub": "42"}
        assert call(port, "/notes", bearer(token), "POST").json == {"added_by": "42"}

    def test_without_a_token_nobody_does(self, port: int) -> None:
        """The token is missing, or not in the right place."""
        for headers in ([], [("Cookie", "session=x")], [("X-Authorization", "Bearer x")]):
            assert is_refused(call(port, "/me", headers))
            assert is_refused(call(port, "/notes", headers, "POST"))

    def test_no_error_is_named_where_no_token_was_shown(self, port: int) -> None:
        """RFC 6750, section 3.1."""
        for headers in ([], [("Authorization", "Basic eDp5")]):
            assert call(port, "/me", headers).headers["www-authenticate"] == "Bearer"
        assert "invalid_token" in call(port, "/me", bearer("x")).headers["www-authenticate"]

    @pytest.mark.parametrize(
        "value", ["", "Bearer", "Bearer x", "Basic {}", "{}", "Bearer {}x", "Bearer {}, Bearer {}", "\xff"]
    )
    def test_nor_with_a_header_that_holds_none(self, signer: Signer, port: int, value: str) -> None:
        """Whatever else the header holds."""
        token = signer.issue(sub="42")
        assert is_refused(call(port, "/me", [("Authorization", value.format(token, token))]))

    def test_nor_with_two_tokens(self, signer: Signer, port: int) -> None:
        """Not even with the same token twice; the order does not matter."""
        token, other = signer.issue(sub="42"), signer.issue(sub="43")
        for pair in ((token, token), (token, other), (token, "x"), ("x", token)):
            assert is_refused(call(port, "/me", bearer(*pair)))

    def test_a_scope_that_is_lacking(self, signer: Signer, port: int) -> None:
        """403, and not 401: a new log-in would not help."""
        for scope in (None, "read", "writer"):
            reply = call(port, "/notes", bearer(signer.issue(sub="42", scope=scope)), "POST")
            assert reply.status == 403
            assert "insufficient_scope" in reply.headers["www-authenticate"]

    def test_revocation_counts_from_the_next_request(self, signer: Signer, clock: Clock, port: int) -> None:
        """The end of a token's life does, too."""
        revoked, expired = signer.issue(sub="42"), signer.issue(sub="43")
        assert call(port, "/me", bearer(revoked)).status == 200
        signer.revoke_subject("42")
        assert is_refused(call(port, "/me", bearer(revoked)))
        clock.now += 3600
        assert is_refused(call(port, "/me", bearer(expired)))

    @pytest.mark.parametrize("request_", [{"purpose": "reset"}, {"aud": "x"}, {"bind": "x"}, {"max_uses": 9}])
    def test_a_token_for_something_else(self, signer: Signer, port: int, request_: dict[str, str]) -> None:
        """None of these is a session."""
        token = signer.issue(sub="42", scope="write", **request_)  # type: ignore[arg-type]
        assert is_refused(call(port, "/me", bearer(token)))
        assert is_refused(call(port, "/notes", bearer(token), "POST"))

    def test_a_credential_or_a_challenge(self, signer: Signer, port: int) -> None:
        """The service's own tokens are no sessions."""
        assert is_refused(call(port, "/me", bearer(issue_credential(signer, "app", "write", 60))))
        assert is_refused(call(port, "/me", bearer(signer.issue_code(sub="42").token)))

    def test_a_list_that_is_down(self, signer: Signer, store: Store, port: int) -> None:
        """503 without a reason; it never means "not revoked"."""
        token = signer.issue(sub="42", scope="write")
        store.close()
        for reply in (call(port, "/me", bearer(token)), call(port, "/notes", bearer(token), "POST")):
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert b"list" not in reply.raw


def test_fastapi_documents_the_tokens(signer: Signer) -> None:
    """As a security scheme of the routes that need one."""
    document = fastapi_app.create_app(signer).openapi()
    assert document["components"]["securitySchemes"]["HTTPBearer"] == {"type": "http", "scheme": "bearer"}
    assert document["paths"]["/me"]["get"]["security"] == [{"HTTPBearer": []}]


class TestWSGIMiddleware:
    @pytest.fixture
    def guarded(self, signer: Signer) -> Iterator[int]:
        """An application behind the guard, which answers with what the guard gave it."""

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [environ["signer.claims"].sub.encode()]

        validate = partial(signer.validate, purpose="report", scope="read")
        with serving_wsgi(TokenGuard(app, validate)) as port:
            yield port

    def test_the_application_learns_the_claims(self, signer: Signer, guarded: int) -> None:
        """They are the token's, whatever headers the caller sends."""
        headers = [*bearer(signer.issue(purpose="report", sub="42", scope="read")), ("Signer.Claims", "43")]
        assert call(guarded, "/any/path", headers, "PUT").raw == b"42"

    @pytest.mark.parametrize(
        "request_",
        [{"purpose": "access", "scope": "read"}, {"scope": "write"}, {}, {"scope": "read", "max_uses": 9}],
    )
    def test_whoever_lacks_something_does_not_reach_it(
        self, signer: Signer, guarded: int, request_: dict[str, str]
    ) -> None:
        """A token with another purpose, without the scope, or with a number of uses."""
        token = signer.issue(**{"purpose": "report", "sub": "42", **request_})  # type: ignore[arg-type]
        assert is_refused(call(guarded, "/", bearer(token)))

    def test_no_token_two_tokens_a_list_that_is_down(
        self, signer: Signer, store: Store, guarded: int
    ) -> None:
        """401, 401, 503."""
        token = signer.issue(purpose="report", sub="42", scope="read")
        assert is_refused(call(guarded, "/"))
        assert is_refused(call(guarded, "/", bearer(token, token)))
        store.close()
        assert call(guarded, "/", bearer(token)).status == 503
