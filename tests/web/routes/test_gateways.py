"""The questions of gateways; tests/deploy has the gateways themselves."""

import time
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from msgspec.structs import replace
from support.service import KEY, Service, cli

from signer import Signer
from signer.policy import TRUST

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE")
IDENTITY = ("X-Token-Subject", "X-Token-Scope", "X-Token-Id", "X-Token-Client")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A production service that also accepts the token in the cookie `session`; no credential is sent."""
    with Service(tmp_path_factory.mktemp("auth"), {"SECRET_KEY": KEY, "AUTH_COOKIE": "session"}) as running:
        yield running


def ask(gateway: Service, token: str | None, query: str = "", path: str = "/auth") -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return gateway.call("GET", path + query, headers=headers).status


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/auth", "/auth/", "/auth/any/path", "/auth//%2e%2e/%00?x=1"])
def test_every_method_and_path_is_answered(gateway: Service, method: str, path: str) -> None:
    """200 with a token, 401 without, because a gateway forwards what its client has sent."""
    token = Signer(KEY).issue()
    assert gateway.call(method, path, headers={"Authorization": f"Bearer {token}"}).status == 200
    reply = gateway.call(method, path)
    assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, 'Bearer realm="signer"')


def test_the_headers_say_who_it_is(gateway: Service) -> None:
    """Always all four: if one were missing, the client's own could be taken for it."""
    token = Signer(KEY).issue(sub="42", scope="read write", client_id="app")
    headers = gateway.call("GET", "/auth", headers={"Authorization": f"Bearer {token}"}).headers
    jti = Signer(KEY).inspect(token).unverified_claims.jti
    assert [headers[name] for name in IDENTITY] == ["42", "read write", jti, "app"]
    assert headers["Cache-Control"] == "no-store"
    bare = gateway.call("GET", "/auth", headers={"Authorization": f"Bearer {Signer(KEY).issue()}"}).headers
    assert [bare[name] for name in IDENTITY if name != "X-Token-Id"] == ["", "", ""]


@pytest.mark.parametrize("sub", ["käthe", " a", "a ", "50%", "%35%30", "a,b", "日本 \U0001f600"])
def test_a_subject_of_any_characters_arrives_whole(gateway: Service, sub: str) -> None:
    """Percent-encoded, so that no two look alike and no space at an end is lost."""
    token = Signer(KEY).issue(sub=sub)
    sent = gateway.call("GET", "/auth", headers={"Authorization": f"Bearer {token}"}).headers[IDENTITY[0]]
    assert sent.isascii()
    assert " " not in sent
    assert unquote(sent) == sub


def test_demands_add_up(gateway: Service) -> None:
    """Whatever a client appends to the URL, it cannot remove a demand."""
    token = Signer(KEY).issue(purpose="session", scope="read write", aud="web")
    for query in (
        "",
        "?scope=read",
        "?scope=read&scope=write",
        "?scope=read+write&purpose=session&aud=web",
        "?x=y",
    ):
        assert ask(gateway, token, query) == 200, query
    for query in (
        "?scope=admin",
        "?scope=read&scope=admin",
        "?scope=admin&of=/x?scope=read",
        "?scope=read%20admin",
    ):
        assert ask(gateway, token, query) == 403, query
    for query in (
        "?purpose=access",
        "?purpose=session&purpose=access",
        "?purpose=",
        "?aud=web&aud=other",
        "?aud=",
    ):
        assert ask(gateway, token, query) == 401, query


def test_a_short_scope_is_403_with_its_challenge(gateway: Service) -> None:
    """RFC 6750, section 3.1. Nothing of the query is in the challenge."""
    token = Signer(KEY).issue(scope="read")
    reply = gateway.call("GET", '/auth?scope=a"b', headers={"Authorization": f"Bearer {token}"})
    assert reply.status == 403
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="signer", error="insufficient_scope"'


def test_why_a_token_is_refused_is_not_told(gateway: Service) -> None:
    """Anybody may see the answer, so every reason looks the same."""
    signer = Signer(KEY)
    credential = cli(gateway.directory, "client", "x", "--scope", "read", "--ttl", "1d", SECRET_KEY=KEY)
    refused = [
        "x", signer.issue() + "A", Signer("k" * 40).issue(), signer.issue(bind="state"),
        Signer(KEY, clock=lambda: 1_600_000_000).issue(), credential.stdout.strip(),
    ]  # fmt: skip
    replies = [
        gateway.call("GET", "/auth", headers={"Authorization": f"Bearer {token}"}) for token in refused
    ]
    assert {reply.status for reply in replies} == {401}
    assert {reply.headers["WWW-Authenticate"] for reply in replies} == {
        'Bearer realm="signer", error="invalid_token"'
    }
    assert len({reply.raw for reply in replies}) == 1


@pytest.mark.parametrize("value", ["Basic eDp5", "Digest username=x", "Negotiate x", "x", ""])
def test_another_scheme_shows_no_token(gateway: Service, value: str) -> None:
    """The challenge then names no error (RFC 6750, section 3.1), because a client would discard a valid
    token."""
    reply = gateway.call("GET", "/auth", headers={"Authorization": value})
    assert (reply.status, reply.json["code"]) == (401, "token_missing")
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="signer"'


def test_what_is_to_be_used_up_is_no_session(production: Service) -> None:
    """/auth does not count uses, so a token with max_uses would be valid without limit. A challenge proves
    nothing yet."""
    counted = production.issue(max_uses=1)
    challenge = production.call("POST", "/app/code", {"sub": "42"}).json["token"]
    for token in (counted, challenge):
        assert ask(production, token) == 401
        assert ask(production, token, "?purpose=signer:code:access") == 401


def test_revoked_is_refused_at_once(production: Service) -> None:
    """The same holds for a subject that has logged out everywhere."""
    token, other = production.issue(sub="auth-1"), production.issue(sub="auth-1")
    production.call("POST", "/app/revoke", {"token": token})
    assert (ask(production, token), ask(production, other)) == (401, 200)
    production.call("POST", "/app/revoke", {"sub": "auth-1"})
    assert ask(production, other) == 401


class TestCookie:
    def test_it_stands_in_for_the_header(self, gateway: Service) -> None:
        """Among other cookies, in one header or several."""
        token = Signer(KEY).issue()
        reply = gateway.call("GET", "/auth", headers={"Cookie": f"a=b; session={token}; c=d"})
        assert reply.status == 200
        raw = gateway.send_raw(
            f"GET /auth HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nCookie: session={token}\r\n\r\n".encode()
        )
        assert raw.startswith(b"HTTP/1.1 200")

    def test_the_header_goes_first(self, gateway: Service) -> None:
        """Whatever it contains: the cookie is only for requests without the header."""
        cookie = {"Cookie": f"session={Signer(KEY).issue()}"}
        for header in ("Bearer x", "Basic eDp5", "Bearer", "x"):
            assert gateway.call("GET", "/auth", headers={"Authorization": header} | cookie).status == 401

    def test_two_of_them_are_refused(self, gateway: Service) -> None:
        """The application behind the gateway might read the other one, which a neighbouring host may have
        set."""
        good, bad = Signer(KEY).issue(), Signer(KEY).issue()
        assert (
            gateway.call("GET", "/auth", headers={"Cookie": f"session={good}; session={bad}"}).status == 401
        )
        raw = f"GET /auth HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {good}\r\nAuthorization: Bearer {bad}\r\n\r\n"
        assert gateway.send_raw(raw.encode()).startswith(b"HTTP/1.1 401")

    def test_it_is_off_unless_it_is_named(self, production: Service) -> None:
        """Without a name no cookie counts, not even one without a name."""
        token = production.issue()
        for cookie in (f"session={token}", f"={token}", token):
            assert (
                production.call("GET", "/auth", headers={"Cookie": cookie, "Authorization": ""}).status == 401
            )


def test_what_a_leaked_purpose_key_can_say_makes_no_header(gateway: Service) -> None:
    """Line ends, and characters that no header can have, arrive percent-encoded."""
    signer = Signer(KEY)
    claims = signer.validate(signer.issue(sub="42"))
    odd = replace(claims, iat=0, kid="", jti="\u20ac", scope="read\r\nX-Evil: 1", client_id="\u00e9")
    token = signer._core.codec.encode(odd, claims.iat)
    reply = gateway.call("GET", "/auth", headers={"Authorization": f"Bearer {token}"})
    assert reply.status == 200
    assert "X-Evil" not in reply.headers
    assert [reply.headers[name] for name in IDENTITY[1:]] == ["read%0D%0AX-Evil: 1", "%E2%82%AC", "%C3%A9"]


def test_without_a_list_nobody_passes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """403, because nginx would turn a 503 into a 500. The reason is in the log."""
    directory = tmp_path_factory.mktemp("gone")
    with Service(directory, {"SECRET_KEY": KEY}) as service:
        token = Signer(KEY).issue()
        assert ask(service, token) == 200
        (directory / "tokens.db").unlink()
        time.sleep(2 * TRUST)
        reply = service.call("GET", "/auth", headers={"Authorization": f"Bearer {token}"})
        assert (reply.status, reply.json["code"]) == (403, "store_unavailable")
        assert not [name for name in IDENTITY if name in reply.headers]
        assert "store_unavailable" in service.log
