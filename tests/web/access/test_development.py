"""The service without any configuration: it needs no credential, so it serves this machine only."""

import os
import stat
import subprocess
import sys

import pytest
from support.service import KEY, Service, cli, environment

from signer import Signer, open_store
from signer.assembly import keys_of
from signer.settings import Settings
from signer.tokens.keys import PRODUCTION_LINE, Key


def test_it_is_loud_about_itself(development: Service) -> None:
    """With the line that turns it into a production service."""
    assert "DEVELOPMENT SERVICE" in development.log
    assert PRODUCTION_LINE in development.log


def test_its_key_is_kept_beside_the_list_for_its_owner_only(development: Service) -> None:
    """So tokens survive a restart. It is the key that signs."""
    path = development.directory / "tokens.db.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    store = open_store(f"sqlite:///{development.directory}/tokens.db")
    assert Signer(path.read_text(), store).validate(development.issue(sub="alice")).sub == "alice"
    store.close()
    assert path.read_text() not in development.log


def test_first_starts_at_once_agree_on_one_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All sign with the same key, whichever process makes it."""
    directory = tmp_path_factory.mktemp("first")
    program = (
        "from signer.assembly import keys_of; from signer.settings import Settings;"
        "print(keys_of(Settings(), create=True).current.id)"
    )
    start = [sys.executable, "-c", program]
    started = [
        subprocess.Popen(start, cwd=directory, env=environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    ids = {process.communicate(timeout=60)[0] for process in started}
    assert ids == {f"{Key((directory / 'tokens.db.key').read_text()).id}\n"}
    assert not list(directory.glob("*.new*"))


def test_tokens_survive_a_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Both the key and the list are kept."""
    directory = tmp_path_factory.mktemp("restart")
    with Service(directory) as service:
        good, revoked = service.issue(), service.issue()
        service.call("POST", "/app/revoke", {"token": revoked})
    with Service(directory) as service:
        assert (service.says_valid(good), service.says_valid(revoked)) == (True, False)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 43])
def test_a_key_file_that_holds_no_key_stops_the_start(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """The message names the file, and not its content."""
    directory = tmp_path_factory.mktemp("broken")
    (directory / "tokens.db.key").write_bytes(content)
    made = cli(directory, "client", "x", "--scope", "token:issue", "--ttl", "1h")
    assert made.returncode == 2
    assert "Traceback" not in made.stderr
    assert "tokens.db.key" in made.stderr
    assert "xff" not in made.stderr


def test_a_key_that_others_may_read_stops_the_start(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The message has the command that repairs it."""
    directory = tmp_path_factory.mktemp("readable")
    keys_of(Settings(database_url=f"sqlite:///{directory}/tokens.db"), create=True)
    (directory / "tokens.db.key").chmod(0o644)
    with pytest.raises(AssertionError, match="chmod 600"):
        Service(directory).__enter__()


REFUSED = [
    {"Host": "evil.example"},
    {"Host": "localhost.evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "10.0.0.1"},
    {"Host": ""},
    {"Host": "[::1"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Forwarded-Host": "localhost"},
    {"X-Forwarded-Proto": "https"},
    {"Forwarded": "for=127.0.0.1"},
    {"X-Real-IP": "127.0.0.1"},
    {"Via": "1.1 proxy"},
    {"True-Client-IP": "127.0.0.1"},
    {"X_Forwarded_For": "127.0.0.1"},
    {"CF-Ray": "1"},
    {"X-Envoy-External-Address": "127.0.0.1"},
    {"X-Original-Host": "localhost"},
    {"Fly-Client-IP": "127.0.0.1"},
    {"X-ProxyUser-Ip": "127.0.0.1"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("headers", REFUSED, ids=lambda headers: " ".join(*headers.items()))
@pytest.mark.parametrize("command", ["app.py", "uvicorn"])
def test_what_may_come_from_elsewhere_is_403(
    development: Service, under_uvicorn: Service, headers: dict[str, str], command: str
) -> None:
    """Through a proxy, a host name that resolves to this machine (DNS rebinding), or a page of another
    site."""
    service = {"app.py": development, "uvicorn": under_uvicorn}[command]
    reply = service.call("POST", "/app/token", headers=headers)
    assert (reply.status, reply.json["code"]) == (403, "development_only")
    assert "SECRET_KEY" in reply.json["detail"]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "localhost"}, {"Host": "LOCALHOST:8000"}, {"Host": "127.0.0.1:1"}, {"Host": "[::1]:8000"}, {"Host": "[::1]"},
     {"Origin": "http://localhost:3000"}, {"Origin": "http://127.0.0.1"}, {"Sec-Fetch-Site": "same-origin"}],
)  # fmt: skip
def test_what_comes_from_here_is_served(development: Service, headers: dict[str, str]) -> None:
    """Under any name that this machine has."""
    assert development.call("POST", "/app/token", headers=headers).status == 200


def test_two_host_headers_or_none_are_403(development: Service) -> None:
    """It is unknown which of two is meant."""
    for hosts in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        answer = development.send_raw(b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n")
        assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400"))


@pytest.mark.parametrize("command", ["app.py", "uvicorn"])
def test_http_1_0_is_403(development: Service, under_uvicorn: Service, command: str) -> None:
    """nginx before 1.29.7 speaks it to the service behind it, without any header of its own; no client here
    does."""
    service = {"app.py": development, "uvicorn": under_uvicorn}[command]
    answer = service.send_raw(
        b"POST /app/token HTTP/1.0\r\nHost: 127.0.0.1:8000\r\nConnection: close\r\n\r\n"
    )
    assert b" 403 " in answer.partition(b"\r\n")[0]
    assert b"development_only" in answer


def test_it_does_not_listen_to_the_world(tmp_path_factory: pytest.TempPathFactory) -> None:
    """HOST=0.0.0.0 without a key stops the start."""
    with pytest.raises(AssertionError, match="development service"):
        Service(tmp_path_factory.mktemp("world"), {"HOST": "0.0.0.0"}).__enter__()


def test_a_bad_credential_is_refused_here_too(development: Service) -> None:
    """Such a mistake should be noticed before production."""
    assert development.call("POST", "/app/token", credential="wrong").status == 401


def test_an_empty_secret_key_is_not_taken_for_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`SECRET_KEY=$FORGOTTEN` must not start an open service."""
    with pytest.raises(AssertionError, match="SECRET_KEY"):
        Service(tmp_path_factory.mktemp("empty"), {"SECRET_KEY": ""}).__enter__()


def test_production_serves_every_host(production: Service) -> None:
    """There, the credential decides, behind any proxy."""
    reply = production.call(
        "POST", "/app/token", headers={"Host": "tokens.example", "X-Forwarded-For": "10.0.0.1"}
    )
    assert reply.status == 200
    assert not (production.directory / "tokens.db.key").exists()
    assert KEY not in production.log
    assert os.environ.get("SECRET_KEY") is None
