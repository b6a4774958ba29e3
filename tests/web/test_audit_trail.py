"""The audit trail of a running service."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.service import KEY, Reply, Service, cli, client

SCOPES = "token:issue token:introspect token:revoke token:purge read"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def credential(directory: Path, scopes: str = SCOPES, name: str = "tests") -> str:
    return client(name, scopes)


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "audit.log").read_text().splitlines()]


def of(reply: Reply, directory: Path) -> list[dict[str, Any]]:
    """The lines of one request."""
    return [line for line in lines(directory) if line["request_id"] == reply.headers["X-Request-ID"]]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("audited")
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": "audit.log"}
    with Service(directory, settings, credential=credential(directory)) as running:
        yield running


def test_every_change_has_a_line_with_who_and_what(audited: Service) -> None:
    """It is there when the change is answered."""
    where = audited.directory

    def outcome(reply: Reply, **more: Any) -> dict[str, Any]:
        assert reply.status == 200, reply.raw
        (line,) = of(reply, where)
        assert (line["actor"], line["address"], line["outcome"]) == ("tests", "127.0.0.1", "ok")
        assert more.items() <= line.items()
        return line

    issued = audited.call("POST", "/app/token", {"sub": "42", "purpose": "reset"})
    line = outcome(
        issued, event="issue", jti=issued.json["jti"], sub="42", purpose="reset", client_id="tests"
    )
    assert line["kid"] == issued.json["token"][4:10]
    used = audited.call("POST", "/app/consume", {"token": issued.json["token"], "purpose": "reset"})
    outcome(used, event="consume", jti=issued.json["jti"])
    session = audited.call("POST", "/app/token", {"sub": "42", "sid": "s1"}).json["token"]
    rotated = audited.call("POST", "/app/rotate", {"token": session})
    outcome(rotated, event="rotate", sid="s1")
    outcome(audited.call("POST", "/app/revoke", {"token": rotated.json["token"]}), event="revoke", sid="s1")
    outcome(audited.call("POST", "/app/revoke", {"sub": "42"}), event="revoke", sub="42")
    code = audited.call("POST", "/app/code", {"sub": "42"})
    outcome(code, event="issue", purpose="signer:code:access")
    right = {"token": code.json["token"], "code": code.json["code"]}
    outcome(audited.call("POST", "/app/code/verify", right), event="verify_code", sub="42")
    got = audited.call("POST", "/oauth/token", b"grant_type=client_credentials", FORM)
    outcome(got, event="issue", sub="tests")
    ended = audited.call("POST", "/oauth/revoke", b"token=" + got.json["access_token"].encode(), FORM)
    outcome(ended, event="revoke", sub="tests")
    many = audited.call("POST", "/app/tokens", {"tokens": [{}, {}]})
    assert [line["jti"] for line in of(many, where)] == [token["jti"] for token in many.json["tokens"]]
    purged = audited.call("DELETE", "/app/clear/all/tokens")
    assert [line.get("rows") for line in of(purged, where)] == [None, 0]


def test_refusals_are_written_with_their_code(audited: Service) -> None:
    """Of changes, and of callers; the reason for a refused credential is for the operator only."""
    where = audited.directory
    token = audited.issue()
    audited.call("POST", "/app/consume", {"token": token})
    (line,) = of(audited.call("POST", "/app/consume", {"token": token}), where)
    assert (line["event"], line["outcome"]) == ("consume", "token_used")
    (line,) = of(audited.call("POST", "/app/revoke", {"token": token}, credential=token), where)
    assert (line["event"], line["outcome"], line["reason"]) == (
        "authenticate", "credential_invalid", "token_purpose_wrong",
    )  # fmt: skip
    lacking = credential(where, "read", "lacking")
    (line,) = of(audited.call("POST", "/app/token", credential=lacking), where)
    assert (line["event"], line["outcome"], line["actor"]) == (
        "authenticate",
        "scope_insufficient",
        "lacking",
    )


def test_what_strangers_can_repeat_is_not_written(audited: Service) -> None:
    """Calls without a credential, and validations: they would fill the disk, and then no change could be
    made."""
    size = (audited.directory / "audit.log").stat().st_size
    token = audited.issue()
    issued = (audited.directory / "audit.log").stat().st_size
    assert issued > size
    for text in (token, "x"):
        audited.call("GET", f"/app/valid/{text}")
        audited.call("POST", "/app/valid", {"token": text})
    audited.send_raw(b"POST /app/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    audited.send_raw(b"GET /auth HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n")
    assert (audited.directory / "audit.log").stat().st_size == issued


def test_validations_are_written_where_asked_for(tmp_path: Path) -> None:
    """With the outcome that the caller got; at /auth, its demands on scope and purpose count, too."""
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": "audit.log", "AUDIT_VALIDATIONS": "true"}
    with Service(tmp_path, settings, credential=credential(tmp_path)) as service:
        token = service.issue(scope="read")
        for query, status, outcome in (
            ("", 200, "ok"), ("?scope=admin", 403, "token_scope_insufficient"), ("?purpose=x", 401, "token_purpose_wrong"),
        ):  # fmt: skip
            reply = service.call("GET", f"/auth{query}", credential=token)
            assert reply.status == status
            (line,) = of(reply, tmp_path)
            assert (line["event"], line["outcome"]) == ("validate", outcome)
        counted = service.issue(max_uses=2)
        asked = service.call("POST", "/oauth/introspect", b"token=" + counted.encode(), FORM)
        (line,) = of(asked, tmp_path)
        assert line["outcome"] == "token_used"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Service]:
    """A service whose audit trail is on a full disk."""
    token = credential(tmp_path)
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": "/dev/full"}
    with Service(tmp_path, settings, credential=token) as running:
        yield running


def test_without_a_trail_there_is_no_change_and_validation_goes_on(full: Service) -> None:
    """503 for each change, the list stays as it was, and nothing is issued. The service stays ready to
    validate."""
    plain = cli(full.directory, "issue", "--sub", "42", SECRET_KEY=KEY, AUDIT_LOG="off").stdout.strip()
    rows = cli(full.directory, "check", "--json", SECRET_KEY=KEY, AUDIT_LOG="off")
    for method, path, body in (
        ("POST", "/app/token", {}),
        ("POST", "/app/tokens", {"tokens": [{}]}),
        ("POST", "/app/code", {"sub": "42"}),
        ("POST", "/app/consume", {"token": plain}),
        ("POST", "/app/rotate", {"token": plain}),
        ("POST", "/app/revoke", {"token": plain}),
        ("POST", "/app/revoke", {"sub": "42"}),
        ("DELETE", "/app/clear/all/tokens", None),
    ):
        reply = full.call(method, path, body)
        # A token without a client cannot be rotated by this one.
        assert (reply.status, reply.json["code"]) in (
            (503, "audit_unavailable"),
            (403, "scope_insufficient"),
        ), path
        assert reply.status == 403 or reply.headers["Retry-After"]
    form = full.call("POST", "/oauth/token", b"grant_type=client_credentials", FORM)
    assert (form.status, form.json["error"]) == (503, "temporarily_unavailable")
    assert full.says_valid(plain)
    assert full.call("POST", "/app/valid", {"token": plain}).json["status"] is True
    assert full.call("GET", "/readyz").status == 200
    after = cli(full.directory, "check", "--json", SECRET_KEY=KEY, AUDIT_LOG="off")
    assert json.loads(after.stdout)["list"] == json.loads(rows.stdout)["list"]


@pytest.mark.slow
def test_a_reader_that_has_stopped_does_not_stop_the_service(tmp_path: Path) -> None:
    """The trail goes to a program that no longer reads: changes are refused in time, and validations are
    answered."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": "pipe", "AUDIT_VALIDATIONS": "true"}
    with Service(tmp_path, settings, credential=credential(tmp_path)) as service:
        token = service.issue()
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda _: service.says_valid(token), range(1000)))
            begun = time.monotonic()
            changes = [
                pool.submit(service.call, "POST", "/app/revoke", {"token": token}),
                pool.submit(service.call, "POST", "/app/token"),
            ]
            while not all(change.done() for change in changes):
                # A signal to reopen the trail does not wait for the changes that wait.
                os.kill(service.process.pid, signal.SIGHUP)
                assert service.says_valid(token)
            assert [change.result().status for change in changes] == [503, 503]
            assert time.monotonic() - begun > 4
        while len(os.read(reader, 65536)) == 65536:
            pass
        assert service.call("POST", "/app/revoke", {"token": token}).status == 200
        assert not service.says_valid(token)
    os.close(reader)


def test_lines_of_several_workers_are_whole(tmp_path: Path) -> None:
    """One file and many writers: each line is complete, and none is missing."""
    settings = {"SECRET_KEY": KEY, "AUDIT_LOG": "audit.log", "WEB_CONCURRENCY": "3"}
    with (
        Service(tmp_path, settings, credential=credential(tmp_path)) as service,
        ThreadPoolExecutor(12) as pool,
    ):
        replies = list(pool.map(lambda _: service.call("POST", "/app/token", {"sub": "é" * 200}), range(300)))
    assert {line["jti"] for line in lines(tmp_path)} == {reply.json["jti"] for reply in replies}


def test_the_command_line_writes_into_the_same_trail(audited: Service) -> None:
    """In the name of the user who is logged in, and never on standard output, which is for the answer."""
    made = cli(audited.directory, "issue", "--sub", "43", "--json", SECRET_KEY=KEY, AUDIT_LOG="audit.log")
    (line,) = [line for line in lines(audited.directory) if line.get("jti") == json.loads(made.stdout)["jti"]]
    assert (line["actor"].rpartition(":")[0], line["event"], line["sub"]) == ("signer:cli", "issue", "43")
    made = cli(audited.directory, "issue", "--sub", "43", SECRET_KEY=KEY)
    assert made.stdout.startswith("sgt_")
    assert made.stdout.count("\n") == 1


def test_it_cannot_be_opened_is_one_line_at_the_start(tmp_path: Path) -> None:
    """And the service does not start without it."""
    service = Service(tmp_path, {"SECRET_KEY": KEY, "AUDIT_LOG": "no/such/folder/audit.log"})
    with pytest.raises(AssertionError, match="did not start"):
        service.__enter__()
    assert service.log.startswith("signer: AUDIT_LOG: the audit trail cannot be opened: ")
    assert service.log.count("\n") == 1
