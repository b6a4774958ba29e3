"""The recipes that call a token service: a real one, with a credential for each program."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
from recipes import audit_trail, services, single_sign_on
from recipes.services import AccessTokens, TokenService
from service import KEY, Reply, Service, cli, free_port
from serving import call

from signer import Signer, Store, Verifier

#: From a name and scopes.
Credential = Callable[[str, str], str]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A production service that also takes cookies."""
    with Service(
        tmp_path_factory.mktemp("service"), {"SECRET_KEY": KEY, "AUTH_COOKIE": "session"}
    ) as running:
        yield running


@pytest.fixture
def url(service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where it is; no proxy of whoever runs the tests comes in between."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return f"http://127.0.0.1:{service.port}"


@pytest.fixture
def credential(service: Service) -> Credential:
    """What the operator makes for each program."""

    def made(name: str, scope: str) -> str:
        arguments = "client", name, "--scope", scope, "--ttl", "1d"
        return cli(service.directory, *arguments, SECRET_KEY=KEY).stdout.strip()

    return made


def refused(status: int, ask: Callable[[], object]) -> None:
    """The service answers with this status, and the recipe with an error that stops whoever ignores it."""
    with pytest.raises(HTTPError) as raised:
        ask()
    raised.value.close()
    assert raised.value.code == status


class TestServices:
    @pytest.fixture
    def shop(self, url: str, credential: Credential) -> TokenService:
        """The service that calls."""
        return TokenService(url, "shop", credential("shop", "ledger:write ledger:read"))

    @pytest.fixture
    def ledger(self, url: str, credential: Credential) -> TokenService:
        """The service that is called."""
        return TokenService(url, "ledger", credential("ledger", "token:introspect token:revoke"))

    @pytest.fixture
    def verifier(self) -> Verifier:
        """What the operator gives a service that is to check alone."""
        return Verifier(Signer(KEY).purpose_key("access"))

    def test_the_called_service_learns_who_calls(
        self, shop: TokenService, ledger: TokenService, verifier: Verifier
    ) -> None:
        """For what the token was asked for; by asking, and alone."""
        token = AccessTokens(shop, "ledger:write").current()
        for scope, caller in (("ledger:write", "shop"), ("ledger:read", None), ("ledger", None)):
            assert services.caller_of(ledger, token, scope) == caller
            assert services.caller_alone(verifier, token, scope) == caller

    def test_a_token_is_kept_until_shortly_before_its_end(self, shop: TokenService) -> None:
        """And then there is a new one."""
        tokens = AccessTokens(shop, "ledger:write")
        assert tokens.current() == tokens.current()
        assert 3500 < tokens._until - time.monotonic() < 3560
        first, tokens._until = tokens.current(), time.monotonic()
        assert tokens.current() != first

    def test_revocation_is_known_to_who_asks(
        self, url: str, shop: TokenService, ledger: TokenService, verifier: Verifier
    ) -> None:
        """At once; who checks alone learns of it when the token ends, as the recipe says."""
        token = AccessTokens(shop, "ledger:write").current()
        shop.post("/oauth/revoke", token=token)
        assert services.caller_of(ledger, token, "ledger:write") is None
        assert services.caller_alone(verifier, token, "ledger:write") == "shop"

    def test_nothing_else_is_an_access_token(
        self, shop: TokenService, ledger: TokenService, verifier: Verifier
    ) -> None:
        """Not the credential, not a mailed link's token, not one for elsewhere, not a user's, not rubbish."""
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
        """A token that is to be used up is None, and no error that a caller could provoke."""
        request = {"sub": "shop", "client_id": "shop", "scope": "ledger:write"}
        signer = Signer(KEY, store)
        counted, plain = signer.issue(**request, max_uses=9), signer.issue(**request)  # type: ignore[arg-type]
        assert services.caller_alone(verifier, counted, "ledger:write") is None
        assert services.caller_alone(verifier, plain, "ledger:write") == "shop"

    def test_a_client_gets_no_more_than_it_holds(self, shop: TokenService, url: str) -> None:
        """Nor does a stranger get anything; the error stops the caller."""
        refused(400, AccessTokens(shop, "ledger:write admin").current)
        refused(401, AccessTokens(TokenService(url, "shop", "guessed"), "ledger:write").current)
        refused(401, AccessTokens(TokenService(url, "other", shop.credential), "ledger:write").current)
        refused(403, lambda: services.caller_of(shop, "x", "ledger:write"))

    def test_a_service_that_is_away_is_never_a_yes(self, shop: TokenService) -> None:
        """It is an error."""
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
        """The log-in page's credential."""
        return credential("login-page", "token:issue token:revoke read write")

    def through_gateway(self, service: Service, cookie: str) -> Reply:
        """What the gateway is told about a request with this cookie."""
        pair = cookie.partition(";")[0]
        return call(service.port, single_sign_on.AUTH, [("Cookie", f"theme=dark; {pair}")])

    def test_one_sign_in_is_known_to_every_service(self, service: Service, url: str, page: str) -> None:
        """By name, whatever characters that has."""
        for user in ("42", "zoë 100%"):
            cookie = single_sign_on.sign_in(url, page, user, "read")
            assert cookie.endswith("Domain=example.org; Path=/; Secure; HttpOnly; SameSite=Lax")
            reply = self.through_gateway(service, cookie)
            assert reply.status == 200
            told = reply.headers["X-Token-Subject"]
            assert single_sign_on.user_of({"X-Token-Subject": told}) == user

    def test_signing_out_ends_it_everywhere(self, service: Service, url: str, page: str) -> None:
        """A copy of the cookie is dead; another browser's is not, until all are ended."""
        here, there = (single_sign_on.sign_in(url, page, "42", "read") for _ in range(2))
        gone = single_sign_on.sign_out(url, page, here.partition(";")[0].partition("=")[2])
        assert gone.startswith("session=; Max-Age=0; Domain=example.org; Path=/;")
        assert self.through_gateway(service, here).status == 401
        assert self.through_gateway(service, there).status == 200
        single_sign_on.sign_out(url, page, "rubbish")
        single_sign_on.sign_out_everywhere(url, page, "42")
        assert self.through_gateway(service, there).status == 401
        assert self.through_gateway(service, single_sign_on.sign_in(url, page, "42", "read")).status == 200

    def test_no_other_token_passes(self, service: Service, url: str, page: str) -> None:
        """Nor none: a credential, a mailed link's token, two at once; one without the scope gets 403."""
        link = Signer(KEY).issue(purpose="reset", sub="7", scope="read")
        assert service.says_valid(link)
        good = single_sign_on.sign_in(url, page, "42", "read").partition(";")[0]
        for cookie in ("", "session=", f"session={page}", f"session={link}", f"{good}, {good}"):
            assert self.through_gateway(service, cookie).status == 401
        reply = call(service.port, single_sign_on.AUTH, [("Cookie", f"{good}; {good}")])
        assert reply.status == 401
        assert self.through_gateway(service, single_sign_on.sign_in(url, page, "42", "write")).status == 403

    def test_without_the_gateways_word_nobody_is_anybody(self) -> None:
        """And a token without a subject is nobody either."""
        for headers in ({}, {"X-Token-Subject": ""}, {"X-User": "42"}):
            assert single_sign_on.user_of(headers) is None

    def test_the_log_in_page_can_do_what_its_credential_can(
        self, url: str, page: str, credential: Credential
    ) -> None:
        """It hands out no scope that it does not hold; without the right scope, nothing."""
        refused(403, lambda: single_sign_on.sign_in(url, page, "42", "admin"))
        refused(401, lambda: single_sign_on.sign_in(url, "guessed", "42", "read"))
        reader = credential("reader", "token:introspect read")
        refused(403, lambda: single_sign_on.sign_in(url, reader, "42", "read"))
        refused(403, lambda: single_sign_on.sign_out_everywhere(url, reader, "42"))
        refused(403, lambda: single_sign_on.sign_out(url, reader, "x"))


class TestAuditTrail:
    @pytest.fixture
    def trail(self, tmp_path: Path) -> Path:
        """Where it is written."""
        return tmp_path / "trail.jsonl"

    @pytest.fixture
    def desk(self, credential: Credential) -> str:
        """The credential of the program that is audited."""
        return credential("desk", "token:introspect token:revoke")

    def issued(self, service: Service, credential: str, **request: str) -> str:
        """A user's token, by a client."""
        reply = service.call("POST", "/app/token", request, credential=credential)
        return str(reply.json["token"])

    def test_a_line_says_who_for_whom_and_with_what(
        self, service: Service, url: str, desk: str, credential: Credential, trail: Path
    ) -> None:
        """And leads to the line in the service's log; the tokens stand in neither."""
        token = self.issued(service, credential("web", "token:issue read"), sub="42", scope="read")
        claims, request_id = audit_trail.checked(url, desk, token, "read")
        assert claims is not None
        audit_trail.record(trail, "read the file", claims, request_id, file="7")
        (entry,) = audit_trail.deeds(trail, sub="42")
        assert (entry["client_id"], entry["jti"], entry["details"]) == ("web", claims["jti"], {"file": "7"})
        assert abs(entry["time"] - time.time()) < 60
        # The service writes it when it has answered.
        deadline = time.monotonic() + 10
        while f"request_id={request_id}" not in service.log and time.monotonic() < deadline:
            time.sleep(0.01)
        (line,) = [line for line in service.log.splitlines() if entry["request_id"] in line]
        assert "route=/app/valid " in line
        for text in (trail.read_text(), service.log):
            assert token not in text
            assert token.rpartition(".")[2] not in text
            assert desk not in text

    def test_deeds_are_found_by_user_client_and_token(
        self, service: Service, url: str, desk: str, credential: Credential, trail: Path
    ) -> None:
        """And what the trail knows of a token is enough to end it, and not to use it."""
        web, app = (credential(name, "token:issue read") for name in ("web", "app"))
        for issuer, sub in ((web, "1"), (app, "1"), (web, "2")):
            token = self.issued(service, issuer, sub=sub, scope="read")
            audit_trail.record(trail, "read", *audit_trail.checked(url, desk, token, "read"))
        assert len(audit_trail.deeds(trail, sub="1")) == 2
        assert len(audit_trail.deeds(trail, client_id="web")) == 2
        (deed,) = audit_trail.deeds(trail, client_id="web", sub="2")
        assert audit_trail.checked(url, desk, deed["jti"], "read")[0] is None
        assert audit_trail.checked(url, desk, token, "read")[0] is not None
        audit_trail.end(url, desk, deed["jti"])
        assert audit_trail.checked(url, desk, token, "read")[0] is None

    def test_who_was_refused_is_recorded_too(
        self, service: Service, url: str, desk: str, credential: Credential, trail: Path
    ) -> None:
        """Without a name, since nothing that a bad token says is true."""
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
        """A line end in a name is two characters of JSON."""
        forged = 'x"}\n{"what": "paid", "sub": "42"}\r\u2028'
        audit_trail.record(trail, "read", {"sub": "1", "data": "secret"}, "r1", file=forged)
        (entry,) = [json.loads(line) for line in trail.read_text().split("\n")[:-1]]
        assert entry["details"] == {"file": forged}
        assert len(audit_trail.deeds(trail, sub="1")) == 1
        assert "secret" not in trail.read_text()

    def test_what_cannot_be_written_down_does_not_happen(self, tmp_path: Path) -> None:
        """The error comes before the deed."""
        with pytest.raises(OSError, match="directory"):
            audit_trail.record(tmp_path, "read", None, "r1")
