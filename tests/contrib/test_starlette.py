"""A Starlette application of another author, whose users are tokens, in a real server."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from support.clock import Clock
from support.service import KEY, Reply
from support.serving import bearer, call, serving

from signer import Claims, Signer, Store, Verifier
from signer.contrib.starlette import TokenBackend, TokenUser
from signer.credentials import issue_credential

CHALLENGE = 'Bearer error="invalid_token"'


async def whoami(request: Request) -> JSONResponse:
    user = request.user
    return JSONResponse(
        {"name": user.display_name, "known": user.is_authenticated, "scopes": request.auth.scopes}
    )


@requires("read")
async def page(request: Request) -> JSONResponse:
    return JSONResponse({"identity": request.user.identity, "jti": request.user.claims.jti})


@requires("authenticated", status_code=401)
async def own(request: Request) -> JSONResponse:
    return JSONResponse({})


ROUTES = [Route("/", whoami), Route("/page", page), Route("/own", own)]


def application(validate: Callable[[str], Claims], cookie: str = "") -> Starlette:
    """An application as its author would write it."""
    backend = TokenBackend(validate, cookie)
    guard = Middleware(AuthenticationMiddleware, backend=backend, on_error=backend.on_error)
    return Starlette(routes=ROUTES, middleware=[guard])


@pytest.fixture
def port(signer: Signer) -> Iterator[int]:
    """The port of an application that accepts tokens in the header and in a cookie."""
    with serving(application(signer.validate, cookie="session")) as port:
        yield port


def cookies(*values: str) -> list[tuple[str, str]]:
    """All of them in one header, as browsers send them."""
    return [("Cookie", "; ".join(values))]


def is_refused(reply: Reply) -> bool:
    """With the one answer, which gives no reason."""
    said = (reply.status, reply.raw, reply.headers["www-authenticate"])
    return said == (401, b"The token is not valid.", CHALLENGE)


def test_a_request_without_a_token_is_anonymous(port: int) -> None:
    """It gets what is open to everybody, and nothing else."""
    assert call(port, "/").json == {"name": "", "known": False, "scopes": []}
    assert call(port, "/page").status == 403
    assert call(port, "/own").status == 401
    assert call(port, "/", cookies("theme=dark", "other=1")).json["known"] is False


def test_a_good_token_is_a_user_with_its_scopes(signer: Signer, port: int) -> None:
    """By header and by cookie, whatever else is in it."""
    token = signer.issue(sub="42", scope="write read")
    jti = signer.validate(token).jti
    for headers in (
        bearer(token),
        cookies("a=b", f"session={token}"),
        [("authorization", f"bEARER   {token}")],
    ):
        said = {"name": "42", "known": True, "scopes": ["authenticated", "read", "write"]}
        assert call(port, "/", headers).json == said
        assert call(port, "/page", headers).json == {"identity": "42", "jti": jti}


def test_a_scope_that_the_token_lacks(signer: Signer, port: int) -> None:
    """403, which is Starlette's own answer. Pages that need only a user are open."""
    headers = bearer(signer.issue(sub="42", scope="reader write"))
    assert call(port, "/page", headers).status == 403
    assert call(port, "/own", headers).status == 200


def test_a_token_without_a_subject_is_nobody_else(signer: Signer) -> None:
    """Two such tokens are two identities, and neither has a name."""
    one, two = (TokenUser(signer.validate(signer.issue())) for _ in range(2))
    assert (one.display_name, one.is_authenticated) == ("", True)
    assert one.identity != two.identity
    with pytest.raises(AttributeError):
        one.claims = two.claims  # type: ignore[misc]


class TestRefused:
    @pytest.mark.parametrize(
        "value", ["Bearer", "Bearer ", "Bearer x", "Bearer x y", "Bearer {}x", "Bearer {}, {}"]
    )
    def test_a_header_that_holds_no_good_token(self, signer: Signer, port: int, value: str) -> None:
        """It never counts as anonymous, and the answer does not say what is wrong."""
        token = signer.issue(sub="42", scope="read")
        assert is_refused(call(port, "/", [("Authorization", value.format(token, token))]))

    @pytest.mark.parametrize("value", ["", "Basic {}", "{}", "Token {}", "\xff"])
    def test_a_header_of_another_scheme(self, signer: Signer, port: int, value: str) -> None:
        """It does not count as anonymous either. The challenge names no error, because there was no token
        (RFC 6750, section 3.1)."""
        token = signer.issue(sub="42", scope="read")
        reply = call(port, "/", [("Authorization", value.format(token))])
        assert (reply.status, reply.raw) == (401, b"The token is not valid.")
        assert reply.headers["www-authenticate"] == "Bearer"

    def test_a_token_that_was_good(self, signer: Signer, clock: Clock, port: int) -> None:
        """Revoked, consumed, traded or expired: refused at the very next request."""
        revoked, consumed, traded, expired = (signer.issue(sub="42", scope="read") for _ in range(4))
        assert call(port, "/page", bearer(revoked)).status == 200
        signer.revoke(revoked)
        signer.consume(consumed)
        assert is_refused(call(port, "/page", bearer(revoked)))
        assert is_refused(call(port, "/page", bearer(consumed)))
        signer.rotate(traded)
        clock.now += 31
        assert is_refused(call(port, "/page", bearer(traded)))
        clock.now += 3570
        assert is_refused(call(port, "/page", bearer(expired)))

    @pytest.mark.parametrize(
        "request_", [{"purpose": "reset"}, {"aud": "other"}, {"bind": "state"}, {"max_uses": 5}]
    )
    def test_a_token_for_something_else(self, signer: Signer, port: int, request_: dict[str, str]) -> None:
        """Of another purpose or audience, bound to a state that was not given, or with counted uses."""
        assert is_refused(call(port, "/", bearer(signer.issue(sub="42", **request_))))  # type: ignore[arg-type]

    def test_two_tokens(self, signer: Signer, port: int) -> None:
        """In two headers or two cookies, even the same one twice, because the application might read the
        other."""
        token, other = signer.issue(sub="42"), signer.issue(sub="43")
        for second in (token, other, "x", ""):
            assert is_refused(call(port, "/", bearer(token, second)))
            pair = f"session={token}", f"session={second}"
            assert is_refused(call(port, "/", cookies(*pair)))
            assert is_refused(call(port, "/", [*cookies(pair[1]), *cookies(pair[0])]))

    def test_a_bad_header_is_not_made_good_by_a_cookie(self, signer: Signer, port: int) -> None:
        """A request with a header counts by its header."""
        token = signer.issue(sub="42")
        assert is_refused(call(port, "/", [*bearer("x"), *cookies(f"session={token}")]))
        assert call(port, "/", [*bearer(token), *cookies("session=x")]).status == 200

    def test_a_credential_or_challenge_even_where_every_purpose_is_let_in(self, signer: Signer) -> None:
        """`introspect` accepts a client's credential, and the backend does not. It accepts other tokens."""
        challenge = signer.issue_code(sub="42")
        with serving(application(signer.introspect)) as port:
            assert call(port, "/page", bearer(signer.issue(purpose="reset", scope="read"))).status == 200
            assert is_refused(call(port, "/", bearer(issue_credential(signer, "app", "read", 60))))
            assert is_refused(call(port, "/", bearer(challenge.token)))

    @pytest.mark.parametrize("purpose", ["signer:client", "signer:code:access"])
    def test_one_that_was_asked_for_by_mistake(self, signer: Signer, purpose: str) -> None:
        """Not even if the application names such a purpose."""
        with serving(application(partial(signer.validate, purpose=purpose))) as port:
            assert is_refused(call(port, "/", bearer(signer.issue(purpose=purpose, sub="42"))))


class TestCookie:
    def test_it_is_read_only_where_it_is_named(self, signer: Signer) -> None:
        """Without a name no cookie counts, not even one without a name."""
        token = signer.issue(sub="42")
        with serving(application(signer.validate)) as port:
            for pair in (f"session={token}", f"={token}", token):
                assert call(port, "/", cookies(pair)).json["known"] is False

    def test_a_bad_one_is_taken_away(self, signer: Signer, port: int) -> None:
        """Otherwise the browser would be refused at the login page forever. A valid cookie stays, and so does
        one that was not read."""
        token = signer.issue(sub="42")
        signer.revoke(token)
        refusal = call(port, "/", cookies(f"session={token}"))
        assert is_refused(refusal)
        assert refusal.headers["set-cookie"].startswith('session=""; ')
        assert "Max-Age=0; Path=/" in refusal.headers["set-cookie"]
        assert "set-cookie" not in call(port, "/", cookies(f"session={signer.issue()}")).headers
        assert "set-cookie" not in call(port, "/", [*bearer("x"), *cookies(f"session={token}")]).headers


class TestList:
    def test_a_list_that_is_down(
        self, signer: Signer, store: Store, port: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No token is accepted, no cookie is deleted, and the operator learns why; a request without a token
        is anonymous."""
        token = signer.issue(sub="42", scope="read")
        store.close()
        for headers in (bearer(token), cookies(f"session={token}")):
            reply = call(port, "/page", headers)
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert "set-cookie" not in reply.headers
            assert b"list" not in reply.raw
        assert call(port, "/").status == 200
        logged = [
            record.getMessage() for record in caplog.records if record.name == "signer.contrib.starlette"
        ]
        assert len(logged) == 2
        assert "list" in logged[0]
        assert token not in "".join(logged)

    def test_the_default_handler_refuses_too(self, signer: Signer, store: Store) -> None:
        """An application without on_error gives Starlette's 400 for both, and accepts neither."""
        guard = Middleware(AuthenticationMiddleware, backend=TokenBackend(signer.validate))
        token = signer.issue(sub="42")
        with serving(Starlette(routes=ROUTES, middleware=[guard])) as port:
            assert call(port, "/", bearer("x")).status == 400
            store.close()
            assert call(port, "/", bearer(token)).status == 400

    def test_a_clock_that_is_wrong(self, signer: Signer, clock: Clock, port: int) -> None:
        """The age of a token is then unknown."""
        token = signer.issue(sub="42")
        clock.now = 0
        assert call(port, "/", bearer(token)).status == 503


class TestValidate:
    def test_a_verifier_will_do(self, signer: Signer, clock: Clock) -> None:
        """With the key of one purpose; a token whose uses it cannot count is refused, and that is no error of
        ours."""
        verifier = Verifier(signer.purpose_key("access"), clock=clock)
        with serving(application(verifier.validate)) as port:
            assert call(port, "/page", bearer(signer.issue(scope="read"))).status == 200
            assert is_refused(call(port, "/", bearer(signer.issue(purpose="reset"))))
            assert is_refused(call(port, "/", bearer(signer.issue(max_uses=5))))

    def test_purpose_and_audience_are_the_applications_to_choose(self, signer: Signer) -> None:
        """By functools.partial."""
        validate = partial(signer.validate, purpose="session", aud="shop")
        with serving(application(validate)) as port:
            assert call(port, "/own", bearer(signer.issue(purpose="session", aud="shop"))).status == 200
            assert is_refused(call(port, "/own", bearer(signer.issue(purpose="session"))))
            assert is_refused(call(port, "/own", bearer(signer.issue(aud="shop"))))

    def test_a_signer_without_a_list(self, clock: Clock) -> None:
        """It checks signature and age alone."""
        signer = Signer(KEY, clock=clock)
        with serving(application(signer.validate)) as port:
            assert call(port, "/own", bearer(signer.issue())).status == 200
            assert is_refused(call(port, "/own", bearer(Signer("x" * 40, clock=clock).issue())))
