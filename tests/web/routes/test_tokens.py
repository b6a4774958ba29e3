"""The calls of the JSON API."""

import re
import time
from pathlib import Path

import pytest
from support.clock import eventually
from support.service import KEY, ROOT, Service, cli

from signer import Signer
from signer.policy import TRUST

SETTINGS = {"SECRET_KEY": KEY}


class TestOriginalContract:
    """The three routes of the original service, unchanged in development mode, with exactly their members."""

    def test_post_token_without_body(self, development: Service) -> None:
        """200, and a token that lives 60 minutes."""
        reply = development.call("POST", "/app/token", headers={"Content-Type": "application/json"})
        assert reply.status == 200
        assert reply.json["status_code"] == 200
        assert abs(reply.json["exp"] - time.time() - 3600) < 60
        assert Signer(KEY).inspect(reply.json["token"]).unverified_claims.jti == reply.json["jti"]

    def test_get_valid_is_true_or_false(self, development: Service) -> None:
        """Exactly these members, whatever the text."""
        token = development.issue()
        reply = development.call("GET", f"/app/valid/{token}")
        assert (reply.status, reply.json) == (200, {"status_code": 200, "status": True})
        for text in (
            "x",
            "",
            "/",
            f"{token}/",
            f"{token}.",
            "a/b/c",
            "%00",
            "%C3%A9",
            "x" * 9000,
            "..%2F",
            f"{token}%0A",
        ):
            reply = development.call("GET", f"/app/valid/{text}")
            assert (reply.status, reply.json) == (200, {"status_code": 200, "status": False}), text

    def test_post_valid_is_the_same(self, development: Service) -> None:
        """With or without the token in the body."""
        token = development.issue()
        for body in (None, {}, {"token": token}):
            reply = development.call("POST", f"/app/valid/{token}", body)
            assert (reply.status, reply.json) == (200, {"status_code": 200, "status": True})
        reply = development.call("POST", f"/app/valid/{token}", {"token": "another"})
        assert (reply.status, reply.json) == (200, {"status_code": 200, "status": False})

    def test_delete_clears_what_expired_and_nothing_else(self, development: Service) -> None:
        """A revoked token that has not expired stays revoked."""
        token = development.issue()
        development.call("POST", "/app/revoke", {"token": token})
        reply = development.call("DELETE", "/app/clear/all/tokens")
        assert (reply.status, reply.json) == (200, {"status_code": 200, "status": True, "purged": 0})
        assert not development.says_valid(token)

    def test_ttl_is_a_setting(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """TOKEN_TTL_MINUTES."""
        with Service(tmp_path_factory.mktemp("ttl"), {"TOKEN_TTL_MINUTES": "5"}) as service:
            reply = service.call("POST", "/app/token")
            assert abs(reply.json["exp"] - time.time() - 300) < 60


class TestIssue:
    def test_a_whole_number_is_one_however_it_is_written(self, production: Service) -> None:
        """JSON has one kind of number, and some encoders write 900.0; `data` stays unchanged."""
        reply = production.call("POST", "/app/token", b'{"ttl": 9e2, "max_uses": 2.0, "data": 5.0}')
        claims = production.call("POST", "/app/valid", {"token": reply.json["token"]}).json["claims"]
        assert (claims["exp"] - claims["iat"], claims["max_uses"], str(claims["data"])) == (900, 2, "5.0")

    def test_every_member_arrives_in_the_token(self, production: Service) -> None:
        """The token also names the client that asked for it."""
        request = {
            "sub": "42", "purpose": "reset", "ttl": 900, "scope": "read", "aud": "web", "data": {"a": [1, None]},
            "max_uses": 2, "sid": "s1",
        }  # fmt: skip
        reply = production.call("POST", "/app/valid", {"token": production.issue(**request)})
        claims = reply.json["claims"]
        assert claims["exp"] - claims["iat"] == request.pop("ttl")
        assert {name: claims[name] for name in request} == request
        assert claims["client_id"] == "tests"

    def test_the_services_own_purposes_are_not_handed_out(
        self, production: Service, development: Service
    ) -> None:
        """Otherwise a client that can issue tokens could issue itself a credential for everything."""
        for service in (production, development):
            reply = service.call(
                "POST", "/app/token", {"purpose": "signer:client", "sub": "tests", "scope": "token:purge"}
            )
            assert (reply.status, reply.json["code"], reply.json["field"]) == (
                422,
                "request_invalid",
                "purpose",
            )

    def test_a_client_hands_out_no_scope_it_does_not_hold(self, production: Service) -> None:
        """`read` is in the credential, `admin` is not."""
        production.issue(scope="read write")
        reply = production.call("POST", "/app/token", {"scope": "read admin"})
        assert (reply.status, reply.json["code"]) == (403, "scope_insufficient")
        assert "admin" in reply.json["detail"]


class TestValid:
    def test_the_reason_has_a_code(self, production: Service) -> None:
        """The codes are stable, and the same as in Python."""
        token, bound = production.issue(purpose="reset", scope="read"), production.issue(bind="x")
        for request, code in (
            ({"token": token, "purpose": "access"}, "token_purpose_wrong"),
            ({"token": token, "scope": "write"}, "token_scope_insufficient"),
            ({"token": token, "aud": "web"}, "token_audience_wrong"),
            ({"token": token, "bind": "x"}, "token_binding_wrong"),
            ({"token": bound}, "token_binding_wrong"),
            ({"token": "x" * 9000}, "token_malformed"),
            ({"token": token[:-1] + ("A" if token[-1] != "A" else "B")}, "token_signature_invalid"),
        ):
            reply = production.call("POST", "/app/valid", request)
            assert (reply.status, reply.json["status"], reply.json["code"]) == (200, False, code), request
            assert "claims" not in reply.json

    def test_an_expired_token_says_so(self, production: Service) -> None:
        """After its ttl of one second."""
        token = production.issue(ttl=1)
        eventually(lambda: not production.says_valid(token))
        reply = production.call("POST", "/app/valid", {"token": token})
        assert (reply.json["status"], reply.json["code"]) == (False, "token_expired")

    def test_purpose_scope_audience_and_binding_are_checked(self, production: Service) -> None:
        """If all demands are met, the answer has the claims."""
        token = production.issue(purpose="reset", scope="read write", aud="web", bind="hash", sub="42")
        request = {"token": token, "purpose": "reset", "scope": "read", "aud": "web", "bind": "hash"}
        reply = production.call("POST", "/app/valid", request)
        assert (reply.json["status"], reply.json["claims"]["sub"]) == (True, "42")


class TestConsume:
    def test_uses_are_counted_down(self, production: Service) -> None:
        """Then 409, with the code of the reason."""
        token = production.issue(purpose="confirm", max_uses=2)
        request = {"token": token, "purpose": "confirm"}
        assert [production.call("POST", "/app/consume", request).json["uses_left"] for _ in range(2)] == [
            1,
            0,
        ]
        reply = production.call("POST", "/app/consume", request)
        assert (reply.status, reply.json["code"]) == (409, "token_used")
        assert not production.says_valid(token)

    def test_looking_has_no_effect(self, production: Service) -> None:
        """Mail scanners open links, so GET never consumes a token."""
        token = production.issue(max_uses=1)
        for _ in range(3):
            assert production.says_valid(token)
        assert production.call("POST", "/app/consume", {"token": token}).status == 200

    def test_another_purpose_is_refused_and_uses_nothing(self, production: Service) -> None:
        """Without `purpose`, the default one applies, as in POST /app/token."""
        token = production.issue(purpose="confirm")
        reply = production.call("POST", "/app/consume", {"token": token})
        assert (reply.status, reply.json["code"]) == (409, "token_purpose_wrong")
        assert production.call("POST", "/app/consume", {"token": token, "purpose": "confirm"}).status == 200

    def test_a_credential_is_not_consumed(self, production: Service) -> None:
        """Otherwise a caller that can validate could end a client."""
        request = {"token": production.credential, "purpose": "signer:client"}
        assert production.call("POST", "/app/consume", request).status == 422
        production.issue()


class TestRevoke:
    def test_by_token(self, production: Service) -> None:
        """To repeat it is no error."""
        token = production.issue()
        for _ in range(2):
            reply = production.call("POST", "/app/revoke", {"token": token})
            assert (reply.status, reply.json) == (200, {"status_code": 200, "status": True})
        assert not production.says_valid(token)

    @pytest.mark.parametrize("exp", [None, 0, -3000])
    def test_by_id(self, production: Service, exp: int | None) -> None:
        """`exp` may be sent, and may be wrong: the revocation holds nevertheless."""
        issued = production.call("POST", "/app/token").json
        body = {"jti": issued["jti"]} | ({} if exp is None else {"exp": issued["exp"] + exp})
        assert production.call("POST", "/app/revoke", body).status == 200
        assert not production.says_valid(issued["token"])

    @pytest.mark.parametrize("claim", ["sub", "sid"])
    def test_by_name(self, production: Service, claim: str) -> None:
        """Every token of a subject or a session; a new one is valid at once."""
        tokens = [production.issue(**{claim: "alice"}) for _ in range(3)]
        assert production.call("POST", "/app/revoke", {claim: "alice"}).status == 200
        assert not any(production.says_valid(token) for token in tokens)
        assert production.says_valid(production.issue(**{claim: "alice"}))

    def test_by_client(self, production: Service) -> None:
        """Its credentials, and all tokens issued to it, as after the leak of a credential."""
        made = cli(
            production.directory, "client", "leaky", "--scope", "token:issue", "--ttl", "1h", **SETTINGS
        )
        leaked = made.stdout.strip()
        token = production.call("POST", "/app/token", credential=leaked).json["token"]
        assert production.call("POST", "/app/revoke", {"client_id": "leaky"}).status == 200
        assert not production.says_valid(token)
        assert production.call("POST", "/app/token", credential=leaked).status == 401
        again = cli(
            production.directory, "client", "leaky", "--scope", "token:issue", "--ttl", "1h", **SETTINGS
        )
        assert production.call("POST", "/app/token", credential=again.stdout.strip()).status == 200

    def test_a_forged_token_is_refused(self, production: Service) -> None:
        """It gets no row."""
        token = production.issue()
        reply = production.call(
            "POST", "/app/revoke", {"token": token[:-1] + ("E" if token[-1] == "A" else "A")}
        )
        assert (reply.status, reply.json["code"]) == (409, "token_signature_invalid")

    @pytest.mark.parametrize(
        "body", [{}, {"sub": "a", "sid": "b"}, {"jti": "x" * 22, "sub": "a"}, {"exp": 1}]
    )
    def test_what_to_revoke_is_said_once(self, production: Service, body: dict[str, object]) -> None:
        """Exactly one of the ways."""
        reply = production.call("POST", "/app/revoke", body)
        assert (reply.status, reply.json["code"]) == (422, "request_invalid")
        assert "exactly one of" in reply.json["detail"]


class TestHealth:
    def test_health_and_readiness(self, production: Service) -> None:
        """Open to probes, without a credential."""
        for path in ("/healthz", "/readyz"):
            assert production.call("GET", path, headers={"Authorization": ""}).json == {"status": "ok"}

    @pytest.mark.parametrize("is_lost", [False, True])
    def test_one_check_serves_a_second(self, tmp_path: Path, is_lost: bool) -> None:
        """The check writes to the list, and anybody can ask: so it runs once, however many ask and whatever
        it finds."""
        with Service(tmp_path, {"SECRET_KEY": KEY, "ANONYMOUS_SCOPES": "metrics:read"}) as service:
            if is_lost:
                (tmp_path / "tokens.db").unlink()
                eventually(lambda: service.call("GET", "/readyz").status == 503)
            before = checks(service)
            began = time.monotonic()
            statuses = {service.call("GET", "/readyz").status for _ in range(200)}
            seconds = time.monotonic() - began
            assert statuses == {503 if is_lost else 200}
            assert checks(service) - before <= 1 + seconds


def checks(service: Service) -> int:
    """How many times the list was checked."""
    text = service.call("GET", "/metrics").raw.decode()
    found = re.search(r'^signer_store_duration_seconds_count\{operation="ping"\} (.*)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


class TestStoreDown:
    def test_everything_that_needs_the_list_is_503(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """With Retry-After, and without a word about paths or engines; /app/valid says false. Once the list
        is restored, all calls work."""
        directory = tmp_path_factory.mktemp("down")
        with Service(directory) as service:
            token = service.issue()
            path = directory / "tokens.db"
            path.rename(directory / "away.db")
            time.sleep(2 * TRUST)
            for method, route, body in (
                ("GET", "/readyz", None),
                ("POST", "/app/token", {"sub": "alice"}),
                ("POST", "/app/consume", {"token": token}),
                ("POST", "/app/revoke", {"token": token}),
                ("DELETE", "/app/clear/all/tokens", None),
            ):
                reply = service.call(method, route, body)
                assert (reply.status, reply.headers["Retry-After"]) == (503, "1"), route
                assert reply.headers["Content-Type"] == "application/problem+json"
                assert reply.json["code"] == "store_unavailable"
                assert not re.search("sqlite|tokens.db|/", reply.json["detail"])
            for method, route, body in (
                ("GET", f"/app/valid/{token}", None),
                ("POST", f"/app/valid/{token}", None),
                ("POST", "/app/valid", {"token": token}),
            ):
                reply = service.call(method, route, body)
                assert (reply.status, reply.headers["Retry-After"]) == (503, "1"), route
                assert (reply.json["status"], reply.json["status_code"]) == (False, 503)
            assert service.call("GET", "/healthz").status == 200
            (directory / "away.db").rename(path)
            assert service.says_valid(token)
            eventually(lambda: service.call("GET", "/readyz").status == 200)

    def test_behind_a_prefix_the_verdict_is_still_no(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Also under uvicorn's --root-path, where a body with `status: 503` would look like a yes."""
        directory = tmp_path_factory.mktemp("prefix")
        command = (
            "-m",
            "uvicorn",
            "app:app",
            "--app-dir",
            str(ROOT),
            "--port",
            "{port}",
            "--root-path",
            "/tokens",
        )
        with Service(directory, command=command) as service:
            token = service.issue()
            assert service.says_valid(token)
            (directory / "tokens.db").unlink()
            time.sleep(2 * TRUST)
            reply = service.call("GET", f"/app/valid/{token}")
            assert (reply.status, reply.json["status"]) == (503, False)

    def test_a_credential_that_cannot_be_checked_is_503_too(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Not 401, and `status: false` in the answer of a validation."""
        directory = tmp_path_factory.mktemp("down")
        made = cli(directory, "client", "tests", "--scope", "token:introspect", "--ttl", "1h", **SETTINGS)
        with Service(directory, SETTINGS, credential=made.stdout.strip()) as service:
            (directory / "tokens.db").unlink()
            reply = service.call("POST", "/app/valid", {"token": "x"})
            assert (reply.status, reply.json["status"]) == (503, False)
