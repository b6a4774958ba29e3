"""The command line."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from support.clock import HANG
from support.service import KEY, ROOT, Service, cli, environment

from signer import Claims, KeyRing, Signer, Store, __version__, open_store
from signer.assembly import keys_of
from signer.cli import commands, main
from signer.errors import TokenRevoked
from signer.settings import Settings
from signer.tokens.codec import Codec

SETTINGS = {"SECRET_KEY": KEY}


def test_keygen_prints_a_key_and_needs_no_settings(tmp_path: Path) -> None:
    """Even where the settings are wrong, because a new key is needed to correct them."""
    made = cli(tmp_path, "keygen", SECRET_KEY="", DATABASE_URL="nonsense")
    assert (made.returncode, made.stderr) == (0, "")
    KeyRing(made.stdout.strip())
    assert made.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_client_prints_a_credential_alone(tmp_path: Path, open_list: Callable[[str], Store]) -> None:
    """With the name, scope and life that were asked for; nothing else is on standard output or standard
    error."""
    first = cli(tmp_path, "client", "billing", "--scope", "token:issue read", "--ttl", "90d", **SETTINGS)
    assert "new, empty list" in first.stderr
    made = cli(tmp_path, "client", "billing", "--scope", "token:issue read", "--ttl", "90d", **SETTINGS)
    assert (made.returncode, made.stderr, made.stdout.count("\n")) == (0, "", 1)
    signer = Signer(KEY, open_list(f"sqlite:///{tmp_path}/tokens.db?mode=rw"))
    claims = signer.validate(made.stdout.strip(), purpose="signer:client")
    assert (claims.sub, claims.client_id, claims.scope) == ("billing", "billing", "token:issue read")
    assert claims.exp - claims.iat == 90 * 24 * 3600


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a b", "--scope", "read", "--ttl", "1d"], "client_id"),
        (["x", "--scope", "token:isue", "--ttl", "1d"], "token:isue"),
        (["x", "--scope", 'a"b', "--ttl", "1d"], "scope"),
        (["x", "--scope", "read", "--ttl", "91d"], "TOKEN_MAX_TTL_MINUTES"),
    ],
)
def test_what_cannot_be_is_one_line_on_standard_error(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    """Exit code 2, and standard output is empty, so that nothing is mistaken for a credential."""
    made = cli(tmp_path, "client", *arguments, **SETTINGS)
    assert (made.returncode, made.stdout) == (2, "")
    assert made.stderr.splitlines()[-1].startswith("signer: ")
    assert words in made.stderr
    assert "Traceback" not in made.stderr


def test_a_development_credential_is_called_so(tmp_path: Path) -> None:
    """On standard error, because a production service will refuse it."""
    keys_of(Settings(database_url=f"sqlite:///{tmp_path}/tokens.db"), create=True)
    made = cli(tmp_path, "client", "x", "--scope", "token:issue", "--ttl", "1d")
    assert (made.returncode, made.stdout.count("\n")) == (0, 1)
    assert "SECRET_KEY is not set" in made.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("client", "x", "--scope", "token:issue", "--ttl", "1d"),
        ("issue", "--sub", "42"),
        ("purpose-key", "access"),
    ],
)
@pytest.mark.parametrize("url", ["sqlite:///./tokens.db", "memory://"])
def test_no_command_goes_on_with_a_key_of_its_own(tmp_path: Path, command: tuple[str, ...], url: str) -> None:
    """Without the settings of the service, it would make a second key beside a production list."""
    made = cli(tmp_path, *command, DATABASE_URL=url)
    assert (made.returncode, made.stdout) == (2, "")
    assert "SECRET_KEY is not set" in made.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ttl", ["", "90", "0d", "-1d", "1.5h", "1w", "d", "1d ", "\u0661d"])
def test_a_duration_is_a_number_and_a_unit(tmp_path: Path, ttl: str) -> None:
    """Exit code 2, with examples."""
    made = cli(tmp_path, "client", "x", "--scope", "read", f"--ttl={ttl}", **SETTINGS)
    assert (made.returncode, made.stdout) == (2, "")
    assert "90d, 12h, 30m or 45s" in made.stderr


def test_a_wrong_setting_is_one_line(tmp_path: Path) -> None:
    """No traceback, no key."""
    made = cli(tmp_path, "client", "x", "--scope", "read", "--ttl", "1d", SECRET_KEY="short-secret")
    assert (made.returncode, made.stdout, made.stderr.count("\n")) == (2, "", 1)
    assert "short-secret" not in made.stderr
    assert "python -m signer keygen" in made.stderr


def run(
    directory: Path, *arguments: str, stdin: str = "", **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command with this text on its standard input."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "signer", *arguments],
        cwd=directory, env=environment(**SETTINGS | settings), input=stdin,
        capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A folder with an empty list."""
    open_store(f"sqlite:///{tmp_path}/tokens.db").close()
    return tmp_path


def test_a_token_from_its_issue_to_its_end(listed: Path) -> None:
    """A token is printed alone on standard output and read from standard input; exit code 0 is valid, 1 is
    refused."""
    issued = run(
        listed, "issue", "--sub", "42", "--scope", "read write", "--ttl", "15m", "--data", '{"a": [1]}'
    )
    assert (issued.returncode, issued.stderr, issued.stdout.count("\n")) == (0, "", 1)
    token = issued.stdout
    good = run(listed, "validate", "--purpose", "access", "--scope", "read", stdin=token)
    assert (good.returncode, good.stderr) == (0, "")
    table = dict(line.split(maxsplit=1) for line in good.stdout.splitlines())
    assert (table["status"], table["sub"], table["scope"], table["data"]) == (
        "true",
        "42",
        "read write",
        '{"a": [1]}',
    )
    assert datetime.fromisoformat(table["exp_utc"]).timestamp() == int(table["exp"])
    assert int(table["exp"]) - int(table["iat"]) == 900
    seen = run(listed, "inspect", "--json", stdin=token)
    assert json.loads(seen.stdout)["verified"] is False
    revoked = run(listed, "revoke", stdin=token)
    assert (revoked.returncode, revoked.stdout.splitlines()[0]) == (0, "revoked  true")
    refused = run(listed, "validate", stdin=token)
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", "signer: The token was revoked.\n")


def test_consuming_counts(listed: Path) -> None:
    """The answer says how many uses are left; after the last one the token is refused."""
    token = run(listed, "issue", "--purpose", "reset", "--max-uses", "2").stdout
    consume = ("consume", "--purpose", "reset", "--json")
    left = [json.loads(run(listed, *consume, stdin=token).stdout)["uses_left"] for _ in range(2)]
    assert left == [1, 0]
    last = run(listed, *consume, stdin=token)
    assert (last.returncode, json.loads(last.stdout)["code"]) == (1, "token_used")


def test_what_a_token_is_bound_to_comes_from_a_file(listed: Path) -> None:
    """A password's hash must not appear in a process list."""
    (listed / "state").write_text("42 old-hash")
    token = run(listed, "issue", "--bind-file", "state").stdout
    assert run(listed, "validate", "--bind-file", "state", stdin=token).returncode == 0
    assert run(listed, "validate", stdin=token).returncode == 1
    (listed / "state").write_text("42 new-hash")
    assert run(listed, "validate", "--bind-file", "state", stdin=token).returncode == 1
    missing = run(listed, "validate", "--bind-file", "none", stdin=token)
    assert (missing.returncode, missing.stderr) == (
        2,
        "signer: --bind-file cannot be read: No such file or directory.\n",
    )


@pytest.mark.parametrize("name", ["jti", "sub", "sid", "client-id"])
def test_many_are_revoked_by_name(listed: Path, open_list: Callable[[str], Store], name: str) -> None:
    """Two names at once are refused."""
    signer = Signer(KEY, open_list(f"sqlite:///{listed}/tokens.db"))
    token = signer.issue(sub="s1", sid="s1", client_id="s1")
    value = signer.validate(token).jti if name == "jti" else "s1"
    # With "=", because an id may begin with a dash.
    assert run(listed, "revoke", f"--{name}={value}").returncode == 0
    with pytest.raises(TokenRevoked):
        signer.validate(token)
    assert run(listed, "revoke", "--sub", "42", "--sid", "s1").returncode == 2


@pytest.mark.slow
def test_json_is_one_object_for_every_command(listed: Path) -> None:
    """Errors are one object, too, with their stable code."""
    token = run(listed, "issue").stdout
    for arguments in (
        ("keygen",), ("purpose-key", "access"), ("client", "x", "--scope", "read", "--ttl", "1d"), ("issue",),
        ("validate",), ("consume",), ("inspect",), ("revoke",), ("purge",), ("check",),
    ):  # fmt: skip
        done = run(listed, *arguments, "--json", stdin=token)
        assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1), arguments
        assert isinstance(json.loads(done.stdout), dict)
    refused = run(listed, "validate", "--json", stdin="x")
    assert (refused.returncode, json.loads(refused.stdout)["code"]) == (1, "token_malformed")
    wrong = run(listed, "issue", "--max-uses", "0", "--json")
    assert (wrong.returncode, json.loads(wrong.stdout)["code"]) == (2, "request_invalid")


@pytest.mark.parametrize("command", ["issue", "validate", "consume", "revoke", "purge", "check"])
def test_a_missing_list_is_not_made(tmp_path: Path, command: str) -> None:
    """An empty list in the wrong folder would call every token valid, and take revocations that no service
    reads. Exit code 3."""
    token = Signer(KEY).issue()
    made = run(tmp_path, command, stdin=token)
    assert made.returncode == 3
    assert "There is no list" in made.stderr + made.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "exit_code"),
    [
        ({"SECRET_KEY": "short"}, 2),
        ({"AUDIT_LOG": "no/such/folder/log"}, 2),
        ({"AUDIT_LOG": "/dev/full"}, 3),
        ({"DATABASE_URL": "nonsense"}, 2),
    ],
)
def test_exit_codes_tell_refused_from_wrong_from_unavailable(
    listed: Path, settings: dict[str, str], exit_code: int
) -> None:
    """A script must not mistake a machine that is down for a token that is bad."""
    token = Signer(KEY).issue()
    made = run(listed, "revoke", stdin=token, **settings)
    assert made.returncode == exit_code
    assert made.stderr.startswith("signer: ")
    assert Signer(KEY).validate(token)


def test_a_damaged_list_is_exit_code_3(listed: Path) -> None:
    """For `check` as for other commands."""
    (listed / "tokens.db").write_bytes(b"not a database" * 1000)
    for command in ("check", "purge"):
        made = run(listed, command)
        assert made.returncode == 3
        assert "cannot answer" in made.stdout + made.stderr


def test_check_shows_every_setting_and_no_secret(listed: Path) -> None:
    """Settings by their names in the environment, keys by their public ids; and whether list and clock
    work."""
    settings = {"SECRET_KEY_FALLBACKS": "x" * 40, "ANONYMOUS_SCOPES": "token:issue", "AUDIT_LOG": "audit.log"}
    made = run(listed, "check", **settings)
    assert (made.returncode, made.stderr) == (0, "")
    table = {line.split()[0]: line.split(maxsplit=1)[1] for line in made.stdout.splitlines()}
    assert set(table) >= {field.upper() for field in Settings.__struct_fields__ if field != "keys"}
    assert table["SECRET_KEY"] == f"set, key id {KeyRing(KEY).current.id}"
    assert table["SECRET_KEY_FALLBACKS"] == f"1 set, key ids {KeyRing('x' * 40).current.id}"
    assert (table["list"], table["clock"], table["ANONYMOUS_SCOPES"]) == ("ok, 0 rows", "ok", "token:issue")
    assert KEY not in made.stdout
    assert "xxxx" not in made.stdout
    # `check` may run as root: it creates no file, because the service could not write to it.
    assert not (listed / "audit.log").exists()


def test_check_shows_where_each_setting_was_taken_from(tmp_path: Path) -> None:
    """The variables, in the order of the settings. Nothing of a secret is shown, nor the file that holds
    it."""
    open_store(f"sqlite:///{tmp_path}/own.db").close()
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "url").write_text("sqlite:///own.db\n")
    settings = {
        "SIGNER_SECRET_KEY_FILE": "key", "SECRET_KEY": "x" * 40, "SECRET_KEY_FALLBACKS": "y" * 40,
        "DATABASE_URL_FILE": "url", "SIGNER_PORT": "81", "PORT": "82", "LOG_LEVEL": "error",
    }  # fmt: skip
    made = cli(tmp_path, "check", "--json", **settings)
    assert (made.returncode, made.stderr) == (0, "")
    said = json.loads(made.stdout)
    assert said["taken_from"] == "SIGNER_SECRET_KEY_FILE, DATABASE_URL_FILE, SIGNER_PORT, LOG_LEVEL"
    assert (said["PORT"], said["DATABASE_URL"], said["SECRET_KEY_FALLBACKS"]) == (
        81,
        "sqlite:///own.db",
        "none",
    )
    assert "xxxx" not in made.stdout
    assert "yyyy" not in made.stdout
    assert KEY not in made.stdout


@pytest.mark.slow
def test_purge_works_while_the_service_runs_and_says_how_it_goes(tmp_path: Path) -> None:
    """On 300,000 rows, while tokens are issued and revoked."""
    with Service(tmp_path, SETTINGS | {"ANONYMOUS_SCOPES": "token:issue token:revoke"}) as service:
        with closing(sqlite3.connect(tmp_path / "tokens.db")) as connection, connection:
            connection.executemany(
                "INSERT INTO tokens VALUES (?, ?, 1, 0, 0)",
                ((number, str(number)) for number in range(300_000)),
            )
        with subprocess.Popen(
            [sys.executable, "-m", "signer", "purge"], cwd=tmp_path, env=environment(**SETTINGS),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as purging:  # fmt: skip
            answered = 0
            while purging.poll() is None:
                token = service.issue()
                assert service.call("POST", "/app/revoke", {"token": token}).status == 200
                assert not service.says_valid(token)
                answered += 1
            assert purging.stdout is not None
            assert purging.stderr is not None
            assert purging.stdout.read() == "purged  300000\n"
            assert answered > 10
            for line in purging.stderr.read().splitlines():
                assert re.fullmatch(r"signer: \d+ rows so far", line)


def test_progress_is_told_of_a_long_purge(
    listed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error, so that standard output holds only the result."""
    with closing(sqlite3.connect(listed / "tokens.db")) as connection, connection:
        connection.executemany(
            "INSERT INTO tokens VALUES (?, '', 1, 0, 0)", ((number,) for number in range(2500))
        )
    monkeypatch.chdir(listed)
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setattr("signer.cli.commands._PROGRESS", 0)
    assert main(["purge"]) == 0
    told = capsys.readouterr()
    assert told.out == "purged  2500\n"
    assert told.err.splitlines() == [f"signer: {rows} rows so far" for rows in (1000, 2000, 2500)]


def test_serve_is_the_service(tmp_path: Path) -> None:
    """It does what python app.py does; also with several workers, which import the module that started
    them."""
    service = Service(tmp_path, SETTINGS | {"WEB_CONCURRENCY": "2"}, ("-m", "signer", "serve"))
    with service:
        service.wait_until_started(2)
        assert service.call("GET", "/readyz").status == 200
        assert service.stop() in (0, -15)
    assert len(service.pids) == 2


@pytest.mark.slow
def test_help_has_examples_and_tells_of_tokens_and_codes(tmp_path: Path) -> None:
    """The help of `signer` and of each command has an example; `signer` without arguments prints its
    usage."""
    help_ = run(tmp_path, "--help").stdout
    for word in ("examples:", "exit codes:", "standard input"):
        assert word in help_
    commands = re.findall(r"^    ([a-z-]+)", help_, re.MULTILINE)
    assert set(commands) == {
        "keygen", "purpose-key", "client", "issue", "validate", "consume", "inspect", "revoke", "purge", "backup",
        "create-list", "serve", "check",
    }  # fmt: skip
    for command in commands:
        assert f"signer {command}" in run(tmp_path, command, "--help").stdout.partition("\n\n")[2], command
    alone = run(tmp_path)
    assert (alone.returncode, "usage: signer" in alone.stderr) == (2, True)
    assert run(tmp_path, "--version").stdout == f"signer {__version__}\n"


def test_no_token_is_asked_for_as_an_argument(tmp_path: Path) -> None:
    """It would stay in the shell's history and appear in process lists."""
    token = Signer(KEY).issue()
    for command in ("validate", "consume", "inspect", "revoke"):
        assert run(tmp_path, command, token).returncode == 2


def test_a_claim_cannot_write_to_the_terminal(listed: Path) -> None:
    """A program with a key can put any text into a token."""
    claims = Claims(jti="a" * 22, exp=2**32, purpose="access", sub="\x1b[31m\n\x9bred")
    token = Codec(KeyRing(KEY)).encode(claims, 1_700_000_000)
    shown = run(listed, "inspect", stdin=token)
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout
    assert "\x9b" not in shown.stdout


COMMANDS = ("keygen", "purpose-key", "client", "issue", "validate", "consume", "inspect", "revoke", "purge",
            "create-list", "backup", "serve", "check")  # fmt: skip
TOKEN = "sgt_AbCdEf.eyJqdGkiOiJ4In0.aaaaaa.0000000000000000000000000000000000000000000"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error message for wrong arguments, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    return said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_token_among_the_arguments_is_not_repeated(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """The message says where a token belongs instead. Standard error ends up in logs."""
    needed = {"purpose-key": ["x"], "client": ["x", "--scope", "x", "--ttl", "1d"], "backup": ["x"]}
    said = refusal(capsys, command, *needed.get(command, []), TOKEN)
    assert "a token is read from standard input" in said
    assert TOKEN not in said
    for more in ([f"--json={TOKEN}"], [f"-h{TOKEN}"], [f"--{TOKEN}"], [f"--no-such={TOKEN}"], ["--", TOKEN]):
        assert TOKEN not in refusal(capsys, command, *needed.get(command, []), *more), more


@pytest.mark.parametrize(
    "arguments",
    [
        [TOKEN],
        [f"--json={TOKEN}", "check"],
        ["issue", "--max-uses", TOKEN],
        ["issue", "--ttl", TOKEN],
        ["issue", "--data", TOKEN],
        ["validate", f"--max-age={TOKEN}"],
        ["revoke", "--sub", TOKEN, "--sid", TOKEN],
        ["client", TOKEN],
        ["validate", "it's", f'"{TOKEN}"'],
    ],
)
def test_nor_as_a_command_or_the_value_of_an_option(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Whatever message argparse makes of it."""
    assert TOKEN not in refusal(capsys, *arguments)


def test_an_option_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """So that the typing error is found; for an unknown command the message lists the known ones."""
    assert "no such option: --no-such, --other\n" in refusal(capsys, "check", "--no-such", "--other=value")
    assert "create-list" in refusal(capsys, "chekc")


def test_an_option_is_not_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    """`--bind state` was taken for `--bind-file`, and `--scop` could mean another option in the next
    version."""
    assert "no such option: --bind" in refusal(capsys, "validate", "--bind", "state")
    for command, option in (
        ("issue", "--purp"),
        ("revoke", "--client"),
        ("check", "--jso"),
        ("issue", "--max=1"),
    ):
        assert "no such option" in refusal(capsys, command, option)
    assert "no such option: --vers" in refusal(capsys, "--vers", "check")


def test_an_empty_standard_input_is_told(listed: Path) -> None:
    """The message says so, because the file with the token was empty. White space is no token, either."""
    for command in ("validate", "consume", "inspect", "revoke"):
        for nothing in ("", " \n"):
            made = run(listed, command, stdin=nothing)
            assert (made.returncode, made.stdout) == (1, "")
            assert "Standard input is empty" in made.stderr
    made = run(listed, "validate", "--json")
    assert json.loads(made.stdout)["code"] == "token_malformed"
    assert "Standard input is empty" not in run(listed, "validate", stdin="x" * 9000).stderr


def test_an_empty_name_revokes_nothing(listed: Path, open_list: Callable[[str], Store]) -> None:
    """A variable of the shell was not set. The token on standard input is not taken in its place."""
    token = run(listed, "issue").stdout
    for name in ("jti", "sub", "sid", "client-id"):
        assert run(listed, "revoke", f"--{name}", "", stdin=token).returncode == 2
    assert run(listed, "validate", stdin=token).returncode == 0


def test_standard_input_of_every_kind_is_a_refused_token(listed: Path) -> None:
    """Closed, empty, binary, huge, or a token with more text after it: exit code 1, and one line."""
    token = run(listed, "issue").stdout.strip()
    for raw in (
        b"",
        b"\xff\xfe\x00",
        b"x" * 10**6,
        token.encode() + b" " * 9000 + b"x",
        token.encode() + b"\nx",
    ):
        made = subprocess.run(
            [sys.executable, "-m", "signer", "validate"], input=raw, cwd=listed, env=environment(**SETTINGS),
            capture_output=True, check=False,
        )  # fmt: skip
        assert (made.returncode, made.stderr.count(b"\n")) == (1, 1), made.stderr
    closed = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", sys.executable, "-m", "signer", "validate"], cwd=listed,
        env=environment(**SETTINGS), capture_output=True, check=False,
    )  # fmt: skip
    assert (closed.returncode, closed.stderr.count(b"\n")) == (1, 1), closed.stderr


def test_an_answer_that_cannot_be_written_is_told(listed: Path) -> None:
    """A token that was issued and not received is no success."""
    full = subprocess.run(
        ["sh", "-c", '"$@" > /dev/full', "sh", sys.executable, "-m", "signer", "issue"], cwd=listed,
        env=environment(**SETTINGS), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert full.returncode == 3
    assert full.stderr.startswith("signer: the answer cannot be written: No space left on device.\n")


def test_a_client_credential_is_not_used_up(listed: Path) -> None:
    """As over HTTP: tokens with one of the service's own purposes cannot be consumed."""
    credential = run(listed, "client", "x", "--scope", "read", "--ttl", "1d").stdout
    made = run(listed, "consume", "--purpose", "signer:client", stdin=credential)
    assert (made.returncode, "the service's own" in made.stderr) == (2, True)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"DATABASE_URL": "mysql://user:p%40ss@example.org/0"}, "DATABASE_URL"),
        ({"DATABASE_URL": "redis://user:p%40ss@example.org/x"}, "DATABASE_URL"),
        ({"DATABASE_URL": "redis://[::1"}, "DATABASE_URL"),
        ({"AUDIT_LOG": "/proc/1/no/such"}, "AUDIT_LOG"),
        ({"AUDIT_LOG": "."}, "AUDIT_LOG"),
    ],
)
def test_check_of_what_cannot_be_is_one_line(listed: Path, settings: dict[str, str], word: str) -> None:
    """The line shows no password, and there is no traceback."""
    made = run(listed, "check", **settings)
    assert (made.returncode, made.stdout) == (2, "")
    assert made.stderr.startswith(f"signer: {word}")
    assert "p%40ss" not in made.stderr


def test_check_makes_nothing(tmp_path: Path) -> None:
    """In an empty folder, without settings, it creates no list, no key and no audit trail."""
    made = cli(tmp_path, "check", AUDIT_LOG="audit.log")
    assert made.returncode == 3
    assert not list(tmp_path.iterdir())


def test_a_user_without_a_name_is_a_number(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container a user may have no name."""

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.chdir(listed)
    monkeypatch.setenv("SECRET_KEY", KEY)
    monkeypatch.setenv("AUDIT_LOG", "audit.log")
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert main(["issue"]) == 0
    assert f'"actor":"signer:cli:{os.getuid()}"' in (listed / "audit.log").read_text()


def test_a_backup_is_a_list_of_its_own(listed: Path, open_list: Callable[[str], Store]) -> None:
    """Only its owner can read it. It can be made while the list is in use; it overwrites no file, and needs a
    list."""
    signer = Signer(KEY, open_list(f"sqlite:///{listed}/tokens.db"))
    token = signer.issue()
    signer.revoke(token)
    made = run(listed, "backup", "copy.db")
    assert (made.returncode, made.stdout) == (0, "backup  copy.db\n")
    assert (listed / "copy.db").stat().st_mode & 0o777 == 0o600
    with pytest.raises(TokenRevoked):
        Signer(KEY, open_list(f"sqlite:///{listed}/copy.db?mode=rw")).validate(token)
    before = (listed / "copy.db").read_bytes()
    again = run(listed, "backup", "copy.db")
    assert (again.returncode, "File exists" in again.stderr) == (3, True)
    assert (listed / "copy.db").read_bytes() == before
    lost = run(listed, "backup", "other.db", DATABASE_URL="sqlite:///lost.db")
    assert lost.returncode == 3
    assert not [name for name in ("other.db", "lost.db") if (listed / name).exists()]
    assert run(listed, "backup", "x.db", DATABASE_URL="memory://").returncode == 2


def test_a_limit_without_its_library_stops_service_and_check(tmp_path: Path) -> None:
    """It says so once; workers do not fail again and again."""
    (tmp_path / "limits.py").write_text("raise ImportError\n")
    for arguments, workers in ((("check",), "1"), (("serve",), "1"), (("serve",), "2")):
        settings = {**SETTINGS, "RATE_LIMIT": "1/minute", "WEB_CONCURRENCY": workers}
        made = subprocess.run(
            [sys.executable, "-m", "signer", *arguments], cwd=tmp_path,
            env=environment(**settings) | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
            capture_output=True, text=True, timeout=HANG, check=False,
        )  # fmt: skip
        assert (made.returncode, made.stderr) == (
            2,
            "signer: RATE_LIMIT needs: pip install 'signer-tokens[limits]'\n",
        )


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hidden@127.0.0.1:6379/0",
        "redis://:hidden@127.0.0.1:6379/0",
        "redis://127.0.0.1:6379/0?password=hidden",
        "redis://hidden@127.0.0.1:6379/0?x=a@b:hidden",
    ],
)
def test_check_shows_a_server_and_none_of_its_secrets(listed: Path, url: str) -> None:
    """Wherever in the URL they are."""
    made = run(listed, "check", RATE_LIMIT_STORAGE=url)
    assert made.returncode == 0
    assert "hidden" not in made.stdout + made.stderr
    assert re.search(r"^RATE_LIMIT_STORAGE +redis://127\.0\.0\.1:6379/0$", made.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:hid/den@h/db", "postgresql://h/db"),
        ("redis://:hid?den@h/0", "redis://…"),
        ("redis://:hid#den@h/0", "redis://…"),
        ("https://edge:hidden@h/x", "https://h/x"),
        ("postgresql:///db?password=hidden", "postgresql:///db"),
        ("memory://", "memory://"),
        ("sqlite:////a/b.db?mode=rw", "sqlite:////a/b.db?mode=rw"),
    ],
)
def test_a_password_that_is_not_encoded_is_not_shown(url: str, shown: str) -> None:
    """Even where a parser of URLs would misread it."""
    assert commands._without_secrets(url) == shown
