"""Many tokens at once, rotation and codes over HTTP."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.clock import eventually
from support.service import KEY, Service, cli

from signer import Signer, open_store
from signer.settings import Settings
from signer.web import create_app

SCOPES = "token:issue token:introspect token:revoke read"


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A production service with two workers, and a grace window long enough for each test."""
    directory = tmp_path_factory.mktemp("workers")
    made = cli(directory, "client", "tests", "--scope", SCOPES, "--ttl", "1d", SECRET_KEY=KEY)
    settings = {"SECRET_KEY": KEY, "WEB_CONCURRENCY": "2", "TOKEN_GRACE_SECONDS": "300"}
    with Service(directory, settings, credential=made.stdout.strip()) as running:
        yield running


class TestIssueMany:
    def test_each_is_answered_in_its_place(self, production: Service) -> None:
        """An error is reported in its place, and the other tokens are issued."""
        requests = [
            {"sub": "a"},
            {"ttl": True},
            {"scope": "admin"},
            {"purpose": "signer:client"},
            5,
            {"sub": "b"},
        ]
        reply = production.call("POST", "/app/tokens", {"tokens": requests})
        assert (reply.status, reply.json["status_code"]) == (200, 200)
        results = reply.json["tokens"]
        assert [result["status_code"] for result in results] == [200, 422, 403, 422, 422, 200]
        assert [result.get("code") for result in results][1:5] == [
            "request_invalid", "scope_insufficient", "request_invalid", "request_invalid",
        ]  # fmt: skip
        assert results[1]["field"] == "ttl"
        for result, sub in ((results[0], "a"), (results[5], "b")):
            claims = production.call("POST", "/app/valid", {"token": result["token"]}).json["claims"]
            assert (claims["sub"], claims["jti"], claims["client_id"]) == (sub, result["jti"], "tests")

    def test_a_hundred_and_no_more(self, production: Service) -> None:
        """And not none."""
        reply = production.call("POST", "/app/tokens", {"tokens": [{}] * 100})
        assert len({result["jti"] for result in reply.json["tokens"]}) == 100
        refused: list[object] = [[], [{}] * 101, None, {}]
        for tokens in refused:
            reply = production.call("POST", "/app/tokens", {"tokens": tokens})
            assert (reply.status, reply.json["field"]) == (422, "tokens")

    def test_a_hundred_of_the_longest_fit(self, production: Service) -> None:
        """The limits on the body and on the number agree."""
        request = {"data": "x" * 2800}
        reply = production.call("POST", "/app/tokens", {"tokens": [request] * 100})
        tokens = [result["token"] for result in reply.json["tokens"]]
        assert min(map(len, tokens)) > 3900
        reply = production.call("POST", "/app/valid", {"tokens": tokens})
        assert reply.json["status"] is True

    def test_a_thousand_tokens_of_a_subject_die_by_one_row(self, production: Service) -> None:
        """A login in the same second is valid."""
        batches = [
            production.call("POST", "/app/tokens", {"tokens": [{"sub": "many"}] * 100}).json["tokens"]
            for _ in range(10)
        ]
        before = rows(production)
        assert production.call("POST", "/app/revoke", {"sub": "many"}).status == 200
        login = production.issue(sub="many")
        assert rows(production) == before + 1
        for batch in batches:
            tokens = [result["token"] for result in batch]
            results = production.call("POST", "/app/valid", {"tokens": tokens}).json["results"]
            assert {result["code"] for result in results} == {"token_revoked"}
        assert production.says_valid(login)


def rows(service: Service) -> int:
    store = open_store(f"sqlite:///{service.directory}/tokens.db?mode=rw")
    try:
        return store.count()
    finally:
        store.close()


class TestValidateMany:
    def test_each_has_its_verdict_in_its_place(self, production: Service) -> None:
        """The same demands apply to all; `status` is true if every token is valid."""
        good, other = production.issue(scope="read"), production.issue()
        reply = production.call("POST", "/app/valid", {"tokens": [good, "x", other, good], "scope": "read"})
        assert (reply.status, reply.json["status"]) == (200, False)
        assert [result["status"] for result in reply.json["results"]] == [True, False, False, True]
        assert reply.json["results"][0]["claims"]["scope"] == "read"
        assert [result.get("code") for result in reply.json["results"]] == [
            None, "token_malformed", "token_scope_insufficient", None,
        ]  # fmt: skip
        assert production.call("POST", "/app/valid", {"tokens": [good, other]}).json["status"] is True

    @pytest.mark.parametrize(
        "body", [{}, {"token": "x", "tokens": ["x"]}, {"tokens": []}, {"tokens": ["x"] * 1001}]
    )
    def test_one_or_many_and_not_both(self, production: Service, body: dict[str, object]) -> None:
        """422."""
        assert production.call("POST", "/app/valid", body).status == 422


class TestRotate:
    def test_two_hundred_at_once_log_nobody_out(self, two_workers: Service) -> None:
        """In two processes, all get the same successor; a replay after the grace window ends the session."""
        token = two_workers.issue(sub="42", scope="read")
        with ThreadPoolExecutor(20) as pool:
            replies = list(
                pool.map(lambda _: two_workers.call("POST", "/app/rotate", {"token": token}), range(200))
            )
        assert Counter(reply.status for reply in replies) == {200: 200}
        (successor,) = {reply.json["token"] for reply in replies}
        assert two_workers.says_valid(successor)
        settings = {"SECRET_KEY": KEY, "TOKEN_GRACE_SECONDS": "0"}
        with Service(two_workers.directory, settings, credential=two_workers.credential) as later:
            eventually(lambda: not later.says_valid(token))
            assert later.says_valid(successor)
            reply = later.call("POST", "/app/rotate", {"token": token})
            assert (reply.status, reply.json["code"]) == (409, "token_rotated")
        assert not two_workers.says_valid(successor)

    def test_a_client_rotates_its_own_with_scopes_it_holds(self, two_workers: Service) -> None:
        """Otherwise it could prolong scopes that it cannot hand out."""
        made = cli(
            two_workers.directory, "client", "x", "--scope", "token:issue", "--ttl", "1d", SECRET_KEY=KEY
        )
        token = two_workers.issue(scope="read")
        reply = two_workers.call("POST", "/app/rotate", {"token": token}, credential=made.stdout.strip())
        assert (reply.status, reply.json["code"]) == (403, "scope_insufficient")
        token = two_workers.issue()
        reply = two_workers.call("POST", "/app/rotate", {"token": token}, credential=made.stdout.strip())
        assert (reply.status, reply.json["code"]) == (403, "scope_insufficient")

    def test_nobody_in_particular_rotates_nobodys_tokens(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """If ANONYMOUS_SCOPES allows strangers to issue, they still cannot rotate the tokens of clients."""
        settings = {"SECRET_KEY": KEY, "ANONYMOUS_SCOPES": "token:issue"}
        with Service(tmp_path_factory.mktemp("anonymous"), settings) as service:
            for token in (service.issue(), Signer(KEY).issue(client_id="app")):
                assert service.call("POST", "/app/rotate", {"token": token}).status == 401

    def test_it_takes_what_validating_takes_and_the_end_of_the_session(self, two_workers: Service) -> None:
        """`bind`, `aud` and `purpose` as in the token; `session_ttl` counts from the first token."""
        demands = {"purpose": "session", "aud": "web", "bind": "state"}
        token = two_workers.issue(**demands, ttl=900)
        first = two_workers.call("POST", "/app/valid", {"token": token, **demands}).json["claims"]
        for missing in demands:
            body = {"token": token} | {name: value for name, value in demands.items() if name != missing}
            assert two_workers.call("POST", "/app/rotate", body).status == 409
        reply = two_workers.call("POST", "/app/rotate", {"token": token, **demands, "session_ttl": 600})
        assert reply.json["exp"] == first["iat"] + 600
        claims = two_workers.call("POST", "/app/valid", {"token": reply.json["token"], **demands}).json[
            "claims"
        ]
        assert claims["auth_time"] == first["iat"]

    def test_the_answer_names_the_session(self, two_workers: Service) -> None:
        """By that name it can be revoked, whatever has become of the token."""
        answer = two_workers.call("POST", "/app/rotate", {"token": two_workers.issue()}).json
        assert set(answer) == {"status_code", "token", "jti", "exp", "sid"}
        two_workers.call("POST", "/app/revoke", {"sid": answer["sid"]})
        assert not two_workers.says_valid(answer["token"])

    def test_a_credential_is_not_rotated(self, two_workers: Service) -> None:
        """A thief could otherwise keep a stolen one alive."""
        assert two_workers.credential is not None
        body = {"token": two_workers.credential, "purpose": "signer:client"}
        assert two_workers.call("POST", "/app/rotate", body).status == 422

    def test_what_is_refused_is_409(self, two_workers: Service) -> None:
        """With the code of the reason."""
        for token, code in (("x", "token_malformed"), (two_workers.issue(max_uses=1), "token_not_rotatable")):
            reply = two_workers.call("POST", "/app/rotate", {"token": token})
            assert (reply.status, reply.json["code"]) == (409, code)


class TestCodes:
    def test_a_code_verifies_once(self, two_workers: Service) -> None:
        """And the answer says whose it was."""
        issued = two_workers.call("POST", "/app/code", {"sub": "c1", "purpose": "login"}).json
        assert set(issued) == {"status_code", "token", "jti", "exp", "code"}
        body = {"token": issued["token"], "code": issued["code"], "purpose": "login"}
        reply = two_workers.call("POST", "/app/code/verify", body)
        assert (reply.status, reply.json["status"], reply.json["claims"]["sub"]) == (200, True, "c1")
        reply = two_workers.call("POST", "/app/code/verify", body)
        assert (reply.status, reply.json["code"]) == (409, "token_used")

    def test_five_guesses_hold_under_fifty_at_once(self, two_workers: Service) -> None:
        """In two processes. Afterwards, even the right code is refused."""
        issued = two_workers.call("POST", "/app/code", {"sub": "c2"}).json
        wrong = f"{(int(issued['code']) + 1) % 1_000_000:06d}"

        def guess(code: str) -> tuple[int, str]:
            reply = two_workers.call("POST", "/app/code/verify", {"token": issued["token"], "code": code})
            return reply.status, reply.json["code"]

        with ThreadPoolExecutor(50) as pool:
            answers = Counter(pool.map(guess, [wrong] * 50))
        assert answers == {(409, "code_wrong"): 5, (429, "attempts_exceeded"): 45}
        assert guess(issued["code"]) == (429, "attempts_exceeded")

    def test_a_subject_has_twenty_guesses_over_all_its_challenges(self, two_workers: Service) -> None:
        """The right code of the fifth challenge is refused, in both processes."""
        for _ in range(4):
            issued = two_workers.call("POST", "/app/code", {"sub": "c6"}).json
            wrong = f"{(int(issued['code']) + 1) % 1_000_000:06d}"
            body = {"token": issued["token"], "code": wrong}
            assert {two_workers.call("POST", "/app/code/verify", body).status for _ in range(5)} == {409}
        issued = two_workers.call("POST", "/app/code", {"sub": "c6"}).json
        body = {"token": issued["token"], "code": issued["code"]}
        reply = two_workers.call("POST", "/app/code/verify", body)
        assert (reply.status, reply.json["code"]) == (429, "attempts_exceeded")

    def test_a_wrong_code_says_how_many_guesses_are_left(self, two_workers: Service) -> None:
        """And nothing else about the challenge."""
        issued = two_workers.call("POST", "/app/code", {"sub": "c3"}).json
        wrong = f"{(int(issued['code']) + 1) % 1_000_000:06d}"
        reply = two_workers.call("POST", "/app/code/verify", {"token": issued["token"], "code": wrong})
        assert (reply.json["attempts_left"], reply.json["code"]) == (4, "code_wrong")
        assert issued["code"] not in reply.raw.decode()

    def test_no_code_in_the_log(self, two_workers: Service) -> None:
        """Nor the challenge."""
        issued = two_workers.call("POST", "/app/code", {"sub": "c4"}).json
        two_workers.call("POST", "/app/code/verify", {"token": issued["token"], "code": issued["code"]})
        assert f"{issued['code']} " not in two_workers.log.replace("\n", " ")
        assert issued["token"] not in two_workers.log

    def test_a_challenge_is_valid_for_nobody(self, two_workers: Service) -> None:
        """Not by path, by body or by introspection."""
        token = two_workers.call("POST", "/app/code", {"sub": "c5"}).json["token"]
        assert not two_workers.says_valid(token)
        assert two_workers.call("POST", "/app/valid", {"token": token}).json["status"] is False
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        reply = two_workers.call("POST", "/oauth/introspect", f"token={token}".encode(), form)
        assert json.loads(reply.raw) == {"active": False}


def test_one_slice_of_all_batches_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other requests are answered after each slice, and not after one of every batch that is under way."""
    slices: list[int] = []
    validate_each = Signer.validate_each

    def counted(signer: Signer, tokens: Any, **demands: Any) -> Any:
        slices.append(len(tokens))
        return validate_each(signer, tokens, **demands)

    monkeypatch.setattr(Signer, "validate_each", counted)
    app = create_app(
        Settings.from_env(
            {
                "SECRET_KEY": KEY,
                "DATABASE_URL": "memory://",
                "ANONYMOUS_SCOPES": "token:introspect",
                "AUDIT_LOG": "off",
                "LOG_LEVEL": "error",
            }
        )
    )
    body = json.dumps({"tokens": [Signer(KEY).issue() for _ in range(1000)]}).encode()
    sent: list[Any] = []

    async def batch() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        scope = {"type": "http", "method": "POST", "path": "/app/valid", "headers": headers, "client": None}
        await app(scope | {"query_string": b"", "root_path": ""}, receive, send)

    async def several() -> list[int]:
        rounds = []
        batches = [asyncio.create_task(batch()) for _ in range(6)]
        while not all(each.done() for each in batches):
            before = len(slices)
            await asyncio.sleep(0)
            rounds.append(len(slices) - before)
        return rounds

    rounds = asyncio.run(several())
    assert (max(rounds), sum(rounds)) == (1, len(slices))
    assert sum(slices) == 6000
    answers = [json.loads(message["body"]) for message in sent if "body" in message]
    assert [len(answer["results"]) for answer in answers] == [1000] * 6
    assert all(answer["status"] for answer in answers)
