"""The operations of the guide, step by step: what to do when something was lost, stolen or wrong."""

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.service import KEY, ROOT, Service, cli, environment

from signer import Signer

pytestmark = pytest.mark.slow

NEW_KEY = "a-new-key-of-more-than-thirty-two-bytes!"
SCOPES = "token:issue token:introspect token:revoke token:purge read"
OPERATE = (ROOT / "signer" / "guide" / "operate.md").read_text()


def credential(directory: Path, key: str = KEY, name: str = "tests") -> str:
    made = cli(directory, "client", name, "--scope", SCOPES, "--ttl", "1d", SECRET_KEY=key, AUDIT_LOG="off")
    return made.stdout.strip()


def service(directory: Path, key: str = KEY, **settings: str) -> Service:
    return Service(
        directory,
        {"SECRET_KEY": key, "AUDIT_LOG": "audit.log", **settings},
        credential=credential(directory, key),
    )


def revoke(running: Service, **what: Any) -> None:
    assert running.call("POST", "/app/revoke", what).status == 200


def back_up(directory: Path) -> None:
    """The command in the guide."""
    (line,) = [line for line in OPERATE.splitlines() if line.startswith("$ python -m signer backup")]
    command = line.removeprefix("$ ").replace("python", sys.executable, 1)
    settings = environment(SECRET_KEY=KEY)
    subprocess.run(
        ["bash", "-c", command], cwd=directory, env=settings, check=True, stdout=subprocess.DEVNULL
    )


def restore(directory: Path) -> None:
    for file in directory.glob("tokens.db*"):
        file.unlink()
    (directory / "copy.db").rename(directory / "tokens.db")


@pytest.fixture
def restored(tmp_path: Path) -> dict[str, str]:
    """A list as it was at the backup, and tokens revoked before and after it."""
    with service(tmp_path) as running:
        tokens = {
            name: running.issue(sub=name, sid=name) for name in ("before", "token", "subject", "used", "good")
        }
        revoke(running, token=tokens["before"])
        back_up(tmp_path)
        revoke(running, token=tokens["token"])
        revoke(running, sub="subject")
        assert running.call("POST", "/app/consume", {"token": tokens["used"]}).status == 200
        assert [name for name, token in tokens.items() if running.says_valid(token)] == ["good"]
    restore(tmp_path)
    return tokens


def test_a_backup_knows_what_was_revoked_before_it_and_no_more(
    tmp_path: Path, restored: dict[str, str]
) -> None:
    """As the guide warns. It is an intact list, with the same permissions."""
    assert cli(tmp_path, "check", SECRET_KEY=KEY, AUDIT_LOG="off").returncode == 0
    with service(tmp_path) as running:
        valid = [name for name, token in restored.items() if running.says_valid(token)]
        assert valid == ["token", "subject", "used", "good"]


def test_after_a_restore_a_new_key_ends_every_token(tmp_path: Path, restored: dict[str, str]) -> None:
    """And the old credentials, too; new ones work at once."""
    old = credential(tmp_path)
    with service(tmp_path, NEW_KEY) as running:
        assert not [name for name, token in restored.items() if running.says_valid(token)]
        assert running.call("POST", "/app/token", credential=old).status == 401
        assert running.says_valid(running.issue())


def test_after_a_restore_the_audit_trail_can_be_followed(tmp_path: Path, restored: dict[str, str]) -> None:
    """Tokens that were revoked or used since, as the audit trail says, are refused again; others stay
    valid."""
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    ended = [line for line in lines if line["event"] in ("revoke", "consume", "rotate", "theft")]
    assert len(ended) == 4
    for line in ended:
        name = next(name for name in ("jti", "sid", "sub", "client_id") if name in line)
        made = cli(tmp_path, "revoke", f"--{name}={line[name]}", SECRET_KEY=KEY, AUDIT_LOG="off")
        assert made.returncode == 0
    with service(tmp_path) as running:
        assert [name for name, token in restored.items() if running.says_valid(token)] == ["good"]


def test_a_lost_list_stops_the_start_until_a_new_one_is_begun(tmp_path: Path) -> None:
    """With ?mode=rw first; then once without it, and with a new key."""
    with service(tmp_path) as running:
        token = running.issue()
        revoke(running, token=token)
    for file in tmp_path.glob("tokens.db*"):
        file.unlink()
    url = "sqlite:///./tokens.db?mode=rw"
    lost = Service(tmp_path, {"SECRET_KEY": KEY, "DATABASE_URL": url})
    with pytest.raises(AssertionError, match="There is no list"):
        lost.__enter__()
    assert not list(tmp_path.glob("tokens.db*"))
    with service(tmp_path, NEW_KEY) as running:
        assert not running.says_valid(token)
    with service(tmp_path, NEW_KEY, DATABASE_URL=url) as running:
        assert running.says_valid(running.issue())


def test_a_leaked_credential_ends_with_what_it_issued(tmp_path: Path) -> None:
    """By one call, or one command. Its client continues with a new credential."""
    with service(tmp_path) as running:
        for end in (
            lambda: revoke(running, client_id="billing"),
            lambda: cli(tmp_path, "revoke", "--client-id", "billing", SECRET_KEY=KEY),
        ):
            leaked = credential(tmp_path, name="billing")
            token = running.call("POST", "/app/token", credential=leaked).json["token"]
            assert running.says_valid(token)
            end()
            assert running.call("POST", "/app/token", credential=leaked).status == 401
            assert not running.says_valid(token)
            assert (
                running.call("POST", "/app/token", credential=credential(tmp_path, name="billing")).status
                == 200
            )


def test_a_leaked_token_ends_and_the_trail_tells_where_it_was_used(tmp_path: Path) -> None:
    """By the command line while the service runs."""
    with service(tmp_path, AUDIT_VALIDATIONS="true") as running:
        token = running.issue(sub="42")
        running.says_valid(token)
        jti = Signer(KEY).inspect(token).unverified_claims.jti
        used = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines() if jti in line]
        assert [(line["event"], line["address"]) for line in used] == [
            ("issue", "127.0.0.1"),
            ("validate", "127.0.0.1"),
        ]
        made = subprocess.run(
            [sys.executable, "-m", "signer", "revoke"], input=token, cwd=tmp_path,
            env=environment(SECRET_KEY=KEY), text=True, check=True, capture_output=True,
        )  # fmt: skip
        assert jti in made.stdout
        assert not running.says_valid(token)


def test_a_leaked_key_is_worth_nothing_once_it_is_gone(
    tmp_path: Path, open_list: Callable[[str], Any]
) -> None:
    """Forged tokens and credentials are refused. Tokens rotated under the new key are ended by revoking the
    subject."""
    with service(tmp_path) as running:
        forged = Signer(KEY, open_list(f"sqlite:///{tmp_path}/tokens.db")).issue(sub="admin")
        assert running.says_valid(forged)
    settings = {
        "SECRET_KEY": NEW_KEY,
        "SECRET_KEY_FALLBACKS": KEY,
        "AUDIT_LOG": "audit.log",
        "ANONYMOUS_SCOPES": "token:issue",
    }
    with Service(tmp_path, settings, credential=credential(tmp_path)) as running:
        mine = running.issue(sub="admin")
        lives_on = running.call("POST", "/app/rotate", {"token": mine}).json["token"]
    with service(tmp_path, NEW_KEY) as running:
        assert not running.says_valid(forged)
        assert running.call("POST", "/app/token", credential=credential(tmp_path)).status == 401
        assert running.says_valid(lives_on)
        (line,) = [
            line for line in (tmp_path / "audit.log").read_text().splitlines() if '"event":"rotate"' in line
        ]
        revoke(running, sub=json.loads(line)["sub"])
        assert not running.says_valid(lives_on)


def test_a_purge_by_a_clock_that_ran_ahead_is_refused_and_can_be_recovered_from(
    tmp_path: Path, open_list: Callable[[str], Any]
) -> None:
    """503 for tokens about which the list knows nothing any more, until there is a new list with a new
    key."""
    with service(tmp_path) as running:
        token = running.issue()
        revoke(running, token=token)
        ahead = Signer(KEY, open_list(f"sqlite:///{tmp_path}/tokens.db"), clock=lambda: time.time() + 7200)
        assert ahead.purge() == 1
        reply = running.call("GET", f"/app/valid/{token}")
        assert (reply.status, reply.json["code"], reply.json["status"]) == (503, "clock_unreliable", False)
        assert running.call("GET", "/readyz").status == 503
    made = cli(tmp_path, "check", SECRET_KEY=KEY, AUDIT_LOG="off")
    assert made.returncode == 3
    assert "clock_unreliable" in made.stdout
    for file in tmp_path.glob("tokens.db*"):
        file.rename(file.with_suffix(".old"))
    with service(tmp_path, NEW_KEY) as running:
        assert running.call("GET", "/readyz").status == 200
        assert not running.says_valid(token)


def test_a_stolen_list_holds_no_token(tmp_path: Path) -> None:
    """And no usable part of one: it has ids, times and names."""
    with service(tmp_path) as running:
        tokens = [running.issue(sub="42", sid="s1") for _ in range(3)]
        revoke(running, token=tokens[0])
        running.call("POST", "/app/consume", {"token": tokens[1]})
        running.call("POST", "/app/rotate", {"token": tokens[2]})
        revoke(running, sub="42")
        code = running.call("POST", "/app/code", {"sub": "42"}).json
        running.call("POST", "/app/code/verify", {"token": code["token"], "code": "000000"})
    with closing(sqlite3.connect(tmp_path / "tokens.db")) as connection:
        dump = "\n".join(connection.iterdump())
    assert "sub:42" in dump
    for token in (*tokens, code["token"]):
        _, payload, _, signature = token.split(".")
        assert payload not in dump
        assert signature not in dump
    assert not re.search(rf"\b{code['code']}\b", dump)
