"""The command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
from service import KEY, cli

from signer import KeyRing, Signer, Store

SETTINGS = {"SECRET_KEY": KEY}


def test_keygen_prints_a_key_and_needs_no_settings(tmp_path: Path) -> None:
    """Even where those are wrong: it is how they are mended."""
    made = cli(tmp_path, "keygen", SECRET_KEY="", DATABASE_URL="nonsense")
    assert (made.returncode, made.stderr) == (0, "")
    KeyRing(made.stdout.strip())
    assert made.stdout.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_client_prints_a_credential_alone(tmp_path: Path, open_list: Callable[[str], Store]) -> None:
    """Name, scope and life as asked for; nothing else on standard output or error."""
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
    """Exit code 2, and nothing on standard output that could be taken for a credential."""
    made = cli(tmp_path, "client", *arguments, **SETTINGS)
    assert (made.returncode, made.stdout) == (2, "")
    assert made.stderr.splitlines()[-1].startswith("signer: ")
    assert words in made.stderr
    assert "Traceback" not in made.stderr


def test_a_development_credential_is_called_so(tmp_path: Path) -> None:
    """On standard error: a production service will refuse it."""
    made = cli(tmp_path, "client", "x", "--scope", "token:issue", "--ttl", "1d")
    assert (made.returncode, made.stdout.count("\n")) == (0, 1)
    assert "SECRET_KEY is not set" in made.stderr


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
