"""The recipes that call a token service: with a real service, and a credential for each program."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
from deploy.gateways import COOKIE_GATEWAYS, HERE, Application, Gateway
from recipes import audit_trail, services, single_sign_on
from recipes.services import AccessTokens, TokenService
from support.service import KEY, Reply, Service, client, free_port
from support.serving import call

from signer import Signer, Store, Verifier

#: The files in which the gateways name the purpose they ask for.
DEPLOYED = "nginx.conf", "Caddyfile", "haproxy.cfg", "envoy.yaml", "apache.conf", "traefik-dynamic.yaml"
#: Makes a credential from a name and scopes.
Credential = Callable[[str, str], str]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A production service that also takes cookies."""
    with Service(
        tmp_path_factory.mktemp("service"), {"SECRET_KEY": KEY, "AUTH_COOKIE": single_sign_on.COOKIE}
    ) as running:
        yield running


@pytest.fixture
def url(service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its URL. No proxy from the environment of the tests is used."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return f"http://127.0.0.1:{service.port}"


@pytest.fixture
def credential(service: Service) -> Credential:
    """The credential that the operator makes for each program."""
    return client


def refused(status: int, ask: Callable[[], object]) -> None:
    """The service answers with this status, and the recipe raises an error, which stops a caller that ignores
    it."""
    with pytest.raises(HTTPError) as raised:
        ask()
    raised.value.close()
    assert raised.value.code == status


class TestServices:
    @pytest.fixture
    def shop(self, url: str, credential: Credential) -> TokenService:
        """The calling service."""
        return TokenService(url, "shop", credential("shop", "ledger:write ledger:read"))

    @pytest.fixture
    def ledger(self, url: str, credential: Credential) -> TokenService:
        """The called service."""
        return TokenService(url, "ledger", credential("ledger", "token:introspect token:revoke"))

    @pytest.fixture
    def verifier(self) -> Verifier:
        """The key that the operator gives to a service that validates alone."""
        return Verifier(Signer(KEY).purpose_key("access"))

    def test_the_called_service_learns_who_calls(
        self, shop: TokenService, ledger: TokenService, verifier: Verifier
    ) -> None:
        """And for what the token was issued; whether it asks or validates alone."""
        token = AccessTokens(shop, "ledger:write").current()
        for scope, caller in (("ledger:write", "shop"), ("ledger:read", None), ("ledger", None)):
            assert services.caller_of(ledger, token, scope) == caller
            assert services.caller_alone(verifier, token, scope) == caller

    def test_a_token_is_kept_until_shortly_before_its_end(self, shop: TokenService) -> None:
        """Then there is a new one."""
        tokens = AccessTokens(shop, "ledger:write")
        assert tokens.current() == tokens.current()
        assert 3500 < tokens._until - time.monotonic() < 3560
        first, tokens._until = tokens.current(), time.monotonic()
        assert tokens.current() != first

    def test_revocation_is_known_to_who_asks(
        self, url: str, shop: TokenService, ledger: TokenService, verifier: Verifier
    ) -> None:
        """At once. A service that validates alone does not notice before the token expires, as the recipe
        says."""
        token = AccessTokens(shop, "ledger:write").current()
        shop.post("/oauth/revoke", token=token)
        assert services.caller_of(ledger, token, "ledger:write") is None
        assert services.caller_alone(verifier, token, "ledger:write") == "shop"

    def test_nothing_else_is_an_access_token(
        self, shop: TokenService, ledger: TokenService, verifier: Verifier
    ) -> None:
        """A credential, a link's token, a token for another service or of a user, and rubbish are refused."""
        signer = Signer(KEY)
        told = {"scope": "ledger:write", "client_id": "shop"}
        others = [
            shop.credential,
            signer.issue(purpose="verify-email", sub="shop", **told),  # type: ignore[arg-type]
            signer.issue(sub="8", **told),  # type: ignore[arg-type]
            signer.issue(sub="shop", aud="elsewhere", **told),  # type: ignore[arg-type]
            signer.issue(scope="ledger:write"),
            Signer("x" * 40).issue(sub="shop", **told),  # type: ignore[arg-type]
            "x",
        ]
        for token in others:
            assert services.caller_of(ledger, token, "ledger:write") is None
            assert services.caller_alone(verifier, token, "ledger:write") is None

    def test_who_checks_alone_refuses_what_it_cannot_count(self, verifier: Verifier, store: Store) -> None:
        """A token with a number of uses gives None, and not an error that callers could provoke."""
        request = {"sub": "shop", "client_id": "shop", "scope": "ledger:write"}
        signer = Signer(KEY, store)
        counted, plain = signer.issue(**request, max_uses=9), signer.issue(**request)  # type: ignore[arg-type]
        assert services.caller_alone(verifier, counted, "ledger:write") is None
        assert services.caller_alone(verifier, plain, "ledger:write") == "shop"

    def test_a_client_gets_no_more_than_it_holds(self, shop: TokenService, url: str) -> None:
        """A stranger gets nothing. The error stops the caller."""
        refused(400, AccessTokens(shop, "ledger:write admin").current)
        refused(401, AccessTokens(TokenService(url, "shop", "guessed"), "ledger:write").current)
        refused(401, AccessTokens(TokenService(url, "other", shop.credential), "ledger:write").current)
        refused(403, lambda: services.caller_of(shop, "x", "ledger:write"))

    def test_a_service_that_is_away_is_never_a_yes(self, shop: TokenService) -> None:
        """It raises an error."""
        away = TokenService(f"http://127.0.0.1:{free_port()}", "ledger", shop.credential)
        with pytest.raises(URLError):
            services.caller_of(away, "x", "ledger:write")

    def test_the_credential_shows_in_no_repr(self, shop: TokenService) -> None:
        """Nor does the token."""
        tokens = AccessTokens(shop, "ledger:write")
        token = tokens.current()
        assert shop.credential not in repr(tokens)
        assert token not in repr(tokens)


class TestSingleSignOn:
    @pytest.fixture
    def page(self, credential: Credential) -> str:
        """The credential of the log-in page."""
        return credential("login-page", "token:issue token:revoke read write")

    def through_gateway(self, service: Service, cookie: str) -> Reply:
        """The gateway's answer for a request with this cookie, also where it demands a scope."""
        pair = cookie.partition(";")[0]
        return call(service.port, f"{single_sign_on.AUTH}&scope=read", [("Cookie", f"theme=dark; {pair}")])

    def test_one_sign_in_is_known_to_every_service(self, service: Service, url: str, page: str) -> None:
        """By the user's name, whatever characters it has."""
        for user in ("42", "zoë 100%"):
            cookie = single_sign_on.sign_in(url, page, user, "read")
            assert cookie.startswith("__Host-session=sgt_")
            assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
            assert "Domain" not in cookie  # Browsers would drop it.
            reply = self.through_gateway(service, cookie)
            assert reply.status == 200
            told = reply.headers["X-Token-Subject"]
            assert single_sign_on.user_of({"X-Token-Subject": told}) == user

    def test_signing_out_ends_it_everywhere(self, service: Service, url: str, page: str) -> None:
        """A copy of the cookie is refused. Another browser's is accepted until all are ended."""
        here, there = (single_sign_on.sign_in(url, page, "42", "read") for _ in range(2))
        gone = single_sign_on.sign_out(url, page, here.partition(";")[0].partition("=")[2])
        assert gone.startswith("__Host-session=; Max-Age=0; Path=/;")
        assert self.through_gateway(service, here).status == 401
        assert self.through_gateway(service, there).status == 200
        single_sign_on.sign_out(url, page, "rubbish")
        single_sign_on.sign_out_everywhere(url, page, "42")
        assert self.through_gateway(service, there).status == 401
        assert self.through_gateway(service, single_sign_on.sign_in(url, page, "42", "read")).status == 200

    def test_no_other_token_passes(self, service: Service, url: str, page: str) -> None:
        """Neither no token, a credential, a link's token nor two tokens. One without the scope gets 403."""
        link = Signer(KEY).issue(purpose="reset", sub="7", scope="read")
        assert service.says_valid(link)
        good = single_sign_on.sign_in(url, page, "42", "read").partition(";")[0]
        name, _, token = good.partition("=")
        for value in ("", page, link, f"{good}, {good}"):
            assert self.through_gateway(service, f"{name}={value}").status == 401
        for cookie in ("", f"session={token}", f"__Secure-session={token}"):
            assert self.through_gateway(service, cookie).status == 401
        assert self.through_gateway(service, good).status == 200
        reply = call(service.port, single_sign_on.AUTH, [("Cookie", f"{good}; {good}")])
        assert reply.status == 401
        assert self.through_gateway(service, single_sign_on.sign_in(url, page, "42", "write")).status == 403

    @pytest.mark.parametrize("kind", COOKIE_GATEWAYS, ids=lambda kind: kind.__name__.lower())
    def test_behind_a_gateway_as_its_file_stands(
        self, service: Service, url: str, page: str, kind: type[Gateway], tmp_path: Path
    ) -> None:
        """The gateway passes on the user's name. /admin needs the scope, and after the sign-out nothing is
        accepted."""
        if kind.program() is None:
            pytest.skip(f"needs {' or '.join(kind.programs)}")
        cookie = single_sign_on.sign_in(url, page, "zoë 100%", "read").partition(";")[0]
        with Application() as app, kind(tmp_path, service.port, app.server_address[1]) as gateway:
            seen = gateway.call("GET", "/", ("Cookie", f"theme=dark; {cookie}")).json
            told = {name.title(): value for name, value in seen["headers"]}
            assert single_sign_on.user_of(told) == "zoë 100%"
            assert gateway.call("GET", "/admin", ("Cookie", cookie)).status == 403
            assert gateway.call("GET", "/").status == 401
            single_sign_on.sign_out(url, page, cookie.partition("=")[2])
            assert gateway.call("GET", "/", ("Cookie", cookie)).status == 401

    @pytest.mark.parametrize("file", DEPLOYED)
    def test_each_gateways_file_asks_for_its_purpose(self, file: str) -> None:
        """Also for gateways that are not installed here."""
        text = (HERE / file).read_text()
        asked = re.findall(r"\bpurpose=(\w+)|TOKEN_purpose'\) == '(\w+)'", text)
        assert {one or other for one, other in asked} == {single_sign_on.PURPOSE}

    def test_without_the_gateways_word_nobody_is_anybody(self) -> None:
        """A token without a subject names nobody, either."""
        for headers in ({}, {"X-Token-Subject": ""}, {"X-User": "42"}):
            assert single_sign_on.user_of(headers) is None

    def test_the_log_in_page_can_do_what_its_credential_can(
        self, url: str, page: str, credential: Credential
    ) -> None:
        """It hands out no scope that it does not have; without the right scope, nothing."""
        refused(403, lambda: single_sign_on.sign_in(url, page, "42", "admin"))
        refused(401, lambda: single_sign_on.sign_in(url, "guessed", "42", "read"))
        reader = credential("reader", "token:introspect read")
        refused(403, lambda: single_sign_on.sign_in(url, reader, "42", "read"))
        refused(403, lambda: single_sign_on.sign_out_everywhere(url, reader, "42"))
        refused(403, lambda: single_sign_on.sign_out(url, reader, "x"))


class TestAuditTrail:
    @pytest.fixture
    def trail(self, tmp_path: Path) -> Path:
        """The file of the trail."""
        return tmp_path / "trail.jsonl"

    @pytest.fixture
    def desk(self, credential: Credential) -> str:
        """The credential of the program that is audited."""
        return credential("desk", "token:introspect token:revoke")

    def issued(self, service: Service, credential: str, **request: str) -> str:
        """A token of a user, issued by a client."""
        reply = service.call("POST", "/app/token", request, credential=credential)
        return str(reply.json["token"])

    def test_a_line_says_who_for_whom_and_with_what(
        self, service: Service, url: str, desk: str, credential: Credential, trail: Path
    ) -> None:
        """It leads to the line in the service's log. Neither of them holds the token."""
        token = self.issued(service, credential("web", "token:issue read"), sub="42", scope="read")
        claims, request_id = audit_trail.checked(url, desk, token, "read")
        assert claims is not None
        audit_trail.record(trail, "read the file", claims, request_id, file="7")
        (entry,) = audit_trail.deeds(trail, sub="42")
        assert (entry["client_id"], entry["jti"], entry["details"]) == ("web", claims["jti"], {"file": "7"})
        assert abs(entry["time"] - time.time()) < 60
        # The service writes it after its answer.
        service.wait_for_log(f"request_id={request_id}")
        (line,) = [line for line in service.log.splitlines() if entry["request_id"] in line]
        assert "route=/app/valid " in line
        for text in (trail.read_text(), service.log):
            assert token not in text
            assert token.rpartition(".")[2] not in text
            assert desk not in text

    def test_deeds_are_found_by_user_client_and_token(
        self, service: Service, url: str, desk: str, credential: Credential, trail: Path
    ) -> None:
        """What the trail says of a token suffices to revoke it, and not to use it."""
        web, app = (credential(name, "token:issue read") for name in ("web", "app"))
        for issuer, sub in ((web, "1"), (app, "1"), (web, "2")):
            token = self.issued(service, issuer, sub=sub, scope="read")
            audit_trail.record(trail, "read", *audit_trail.checked(url, desk, token, "read"))
        assert len(audit_trail.deeds(trail, sub="1")) == 2
        assert len(audit_trail.deeds(trail, client_id="web")) == 2
        (deed,) = audit_trail.deeds(trail, client_id="web", sub="2")
        assert audit_trail.checked(url, desk, deed["jti"], "read")[0] is None
        assert audit_trail.checked(url, desk, token, "read")[0] is not None
        audit_trail.end(url, desk, jti=deed["jti"])
        assert audit_trail.checked(url, desk, token, "read")[0] is None

    def test_a_session_that_is_rotated_is_ended_by_its_sid(
        self, service: Service, url: str, desk: str, credential: Credential, trail: Path
    ) -> None:
        """The id of the token that was used revokes only that token."""
        web = credential("web", "token:issue read")
        token = self.issued(service, web, sub="42", scope="read")
        answers = []
        for _ in range(2):
            answers.append(service.call("POST", "/app/rotate", {"token": token}, credential=web).json)
            token = answers[-1]["token"]
        claims, request_id = audit_trail.checked(url, desk, answers[0]["token"], "read")
        audit_trail.record(trail, "read", claims, request_id)
        (deed,) = audit_trail.deeds(trail, sid=answers[1]["sid"])
        audit_trail.end(url, desk, jti=deed["jti"])
        assert audit_trail.checked(url, desk, answers[0]["token"], "read")[0] is None
        assert audit_trail.checked(url, desk, token, "read")[0] is not None
        audit_trail.end(url, desk, sid=deed["sid"])
        assert audit_trail.checked(url, desk, token, "read")[0] is None

    def test_who_was_refused_is_recorded_too(
        self, service: Service, url: str, desk: str, credential: Credential, trail: Path
    ) -> None:
        """Without a name, because the claims of an invalid token may be false."""
        token = self.issued(service, credential("web", "token:issue read"), sub="42", scope="read")
        link = Signer(KEY).issue(purpose="reset", sub="7", scope="read")
        assert service.says_valid(link)
        for text, scope in ((token, "write"), (token[:-1], "read"), (link, "read"), ("x", "read")):
            claims, request_id = audit_trail.checked(url, desk, text, scope)
            assert claims is None
            audit_trail.record(trail, "refused", claims, request_id)
        entries = audit_trail.deeds(trail, what="refused")
        assert len({entry["request_id"] for entry in entries}) == 4
        assert {entry["sub"] for entry in entries} == {None}

    def test_nobody_forges_a_line(self, trail: Path) -> None:
        """A line end in a name becomes two characters of JSON."""
        forged = 'x"}\n{"what": "paid", "sub": "42"}\r\u2028'
        audit_trail.record(trail, "read", {"sub": "1", "data": "secret"}, "r1", file=forged)
        (entry,) = [json.loads(line) for line in trail.read_text().split("\n")[:-1]]
        assert entry["details"] == {"file": forged}
        assert len(audit_trail.deeds(trail, sub="1")) == 1
        assert "secret" not in trail.read_text()

    def test_what_cannot_be_written_down_does_not_happen(self, tmp_path: Path) -> None:
        """The error comes before the action."""
        with pytest.raises(OSError, match="directory"):
            audit_trail.record(tmp_path, "read", None, "r1")
