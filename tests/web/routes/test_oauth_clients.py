"""OAuth clients of other authors, used with a real service: what they take for granted must hold."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from authlib.integrations.base_client import OAuthError  # type: ignore[import-untyped]
from authlib.integrations.flask_oauth2 import ResourceProtector, current_token  # type: ignore[import-untyped]
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession  # type: ignore[import-untyped]
from authlib.oauth2.rfc7662 import IntrospectTokenValidator  # type: ignore[import-untyped]
from flask import Flask
from oauthlib.oauth2 import (  # type: ignore[import-untyped]
    BackendApplicationClient,
    InvalidClientError,
    InvalidScopeError,
)
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as RequestsSession  # type: ignore[import-untyped]
from support.clock import HANG
from support.service import KEY, ROOT, Service, cli
from werkzeug.serving import make_server

NAME = "app.one~x"
SCOPE = "token:introspect token:revoke read write"
#: Each *.mjs here drives one library, and exits with 0 if that saw what it should.
SCRIPTS = ROOT / "tests" / "clients"
METHODS = ["client_secret_basic", "client_secret_post"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A production service, with a client's credential."""
    directory = tmp_path_factory.mktemp("clients")
    made = cli(directory, "client", NAME, "--scope", SCOPE, "--ttl", "1d", SECRET_KEY=KEY)
    with Service(directory, {"SECRET_KEY": KEY}, credential=made.stdout.strip()) as running:
        yield running


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy and no password file of the person who runs the tests interferes."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NETRC", os.devnull)


@pytest.fixture
def url(service: Service) -> str:
    """Where the service is."""
    return f"http://127.0.0.1:{service.port}"


@pytest.fixture
def secret(service: Service) -> str:
    """The client's secret."""
    assert service.credential
    return service.credential


class TestAuthlib:
    """Its client, and its guard of a resource server."""

    @pytest.fixture
    def session(self) -> Iterator[Callable[..., Any]]:
        """Sessions that are closed when the test ends."""
        opened: list[Any] = []

        def new(secret: str, **options: Any) -> Any:
            opened.append(AuthlibSession(NAME, secret, **options))
            return opened[-1]

        yield new
        for one in opened:
            one.close()

    @pytest.mark.parametrize("method", METHODS)
    def test_the_client_is_granted_told_and_obeyed(
        self, url: str, secret: str, session: Callable[..., Any], method: str
    ) -> None:
        """A grant, introspection and revocation, at the endpoints that the metadata names."""
        known = requests.get(f"{url}/.well-known/oauth-authorization-server", timeout=HANG).json()
        client = session(secret, scope="read", token_endpoint_auth_method=method)
        granted = client.fetch_token(known["token_endpoint"], grant_type="client_credentials")
        assert (granted["token_type"], granted["scope"], granted["expires_in"]) == ("Bearer", "read", 3600)
        assert not granted.is_expired()
        assert client.get(f"{url}/auth?scope=read").status_code == 200

        def introspected() -> Any:
            return client.introspect_token(
                known["introspection_endpoint"], granted["access_token"], "access_token"
            ).json()

        assert introspected()["active"] is True
        assert introspected()["exp"] == pytest.approx(granted["expires_at"], abs=5)
        ended = client.revoke_token(known["revocation_endpoint"], granted["access_token"], "access_token")
        assert (ended.status_code, ended.json()) == (200, {})
        assert introspected() == {"active": False}
        assert client.get(f"{url}/auth?scope=read").status_code == 401

    @pytest.mark.parametrize("method", METHODS)
    def test_the_client_understands_a_refusal(
        self, url: str, secret: str, session: Callable[..., Any], method: str
    ) -> None:
        """Its own exception has our error."""
        for client, error in (
            (session("wrong", token_endpoint_auth_method=method), "invalid_client"),
            (session(secret, token_endpoint_auth_method=method, scope="admin"), "invalid_scope"),
        ):
            with pytest.raises(OAuthError) as refused:
                client.fetch_token(f"{url}/oauth/token", grant_type="client_credentials")
            assert refused.value.error == error
            assert refused.value.description

    def test_the_guard_lets_in_who_holds_the_scope(self, url: str, secret: str, guarded: str) -> None:
        """Until the token is revoked; then no request passes (RFC 6750, section 3.1)."""
        token = granted_token(url, secret, "read")
        allowed = get(f"{guarded}/read", token)
        assert (allowed.status_code, allowed.json()) == (200, {"client": NAME})
        short = get(f"{guarded}/write", token)
        assert (short.status_code, short.json()["error"]) == (403, "insufficient_scope")
        both = granted_token(url, secret, "read write")
        assert get(f"{guarded}/write", both).status_code == 200
        form = {"token": token}
        assert (
            requests.post(f"{url}/oauth/revoke", form, auth=(NAME, secret), timeout=HANG).status_code == 200
        )
        ended = get(f"{guarded}/read", token)
        assert (ended.status_code, ended.json()["error"]) == (401, "invalid_token")
        assert get(f"{guarded}/write", both).status_code == 200

    def test_the_guard_keeps_out_what_is_no_access_token(self, secret: str, guarded: str) -> None:
        """Nothing, garbage, and above all a client's own credential, although it has the scope."""
        assert requests.get(f"{guarded}/read", timeout=HANG).status_code == 401
        for token in ("garbage", secret):
            refused = get(f"{guarded}/read", token)
            assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")

    @pytest.fixture
    def guarded(self, url: str, secret: str) -> Iterator[str]:
        """The URL of a resource server that Authlib guards."""
        server = make_server("127.0.0.1", 0, resource_server(url, secret), threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()


class Introspected(IntrospectTokenValidator):  # type: ignore[misc]
    """Authlib's validator, with the one call that its documentation asks for."""

    def __init__(self, url: str, secret: str) -> None:
        super().__init__()
        self._url, self._secret = url, secret

    def introspect_token(self, token_string: str) -> Any:
        form = {"token": token_string, "token_type_hint": "access_token"}
        told = requests.post(f"{self._url}/oauth/introspect", form, auth=(NAME, self._secret), timeout=HANG)
        told.raise_for_status()
        return told.json()


def resource_server(url: str, secret: str) -> Flask:
    """An application that asks the service about each token."""
    require = ResourceProtector()
    require.register_token_validator(Introspected(url, secret))

    def show() -> dict[str, str]:
        return {"client": current_token["client_id"]}

    app = Flask("resource-server")
    for scope in ("read", "write"):
        app.add_url_rule(f"/{scope}", scope, require(scope)(show))
    return app


def get(url: str, token: str) -> requests.Response:
    """Call it as a client with this token."""
    return requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=HANG)


def granted_token(url: str, secret: str, scope: str) -> str:
    """An access token from the service."""
    form = {"grant_type": "client_credentials", "scope": scope}
    answer = requests.post(f"{url}/oauth/token", form, auth=(NAME, secret), timeout=HANG)
    return str(answer.json()["access_token"])


class TestRequestsOAuthlib:
    """requests-oauthlib, with oauthlib below it."""

    @pytest.fixture
    def session(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        """A session for programs that act in their own name."""
        # By default, the library uses https only.
        monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
        with RequestsSession(client=BackendApplicationClient(NAME)) as session:
            yield session

    @pytest.mark.parametrize("way", ["basic", "basic and id", "form"])
    def test_a_grant_and_its_end(self, url: str, secret: str, session: Any, way: str) -> None:
        """With each way to authenticate: Basic, Basic with the id in the form too, or the form alone."""
        proof: dict[str, dict[str, Any]] = {
            "basic": {"auth": HTTPBasicAuth(NAME, secret)},
            "basic and id": {"auth": HTTPBasicAuth(NAME, secret), "include_client_id": True},
            "form": {"client_secret": secret, "include_client_id": True},
        }
        granted = session.fetch_token(f"{url}/oauth/token", scope="read", **proof[way])
        assert (granted["token_type"], granted["scope"], granted["expires_in"]) == ("Bearer", ["read"], 3600)
        assert session.get(f"{url}/auth?scope=read").status_code == 200
        revocation, headers, body = session._client.prepare_token_revocation_request(
            f"{url}/oauth/revoke", granted["access_token"]
        )
        ended = requests.post(revocation, body, headers=headers, auth=(NAME, secret), timeout=HANG)
        assert (ended.status_code, ended.json()) == (200, {})
        assert session.get(f"{url}/auth?scope=read").status_code == 401

    def test_a_refusal_is_its_own_error(self, url: str, secret: str, session: Any) -> None:
        """It has one class for each of our errors."""
        with pytest.raises(InvalidClientError):
            session.fetch_token(f"{url}/oauth/token", auth=HTTPBasicAuth(NAME, "wrong"))
        with pytest.raises(InvalidClientError):
            session.fetch_token(f"{url}/oauth/token", client_secret="wrong", include_client_id=True)
        with pytest.raises(InvalidScopeError):
            session.fetch_token(f"{url}/oauth/token", scope="admin", auth=HTTPBasicAuth(NAME, secret))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts and what they import, at the versions of package-lock.json."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("npm")
    for path in (*SCRIPTS.glob("*.mjs"), *SCRIPTS.glob("package*.json")):
        shutil.copy(path, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
class TestNode:
    """Clients from npm, each driven by a script of tests/clients."""

    @pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.mjs")))
    def test_a_client_and_the_service_understand_each_other(
        self, url: str, secret: str, installed: Path, script: str
    ) -> None:
        """Each library's script says what that means."""
        known = {"SERVICE_URL": url, "CLIENT_ID": NAME, "CLIENT_SECRET": secret}
        done = subprocess.run(
            ["node", script],
            cwd=installed,
            env=os.environ | known,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def test_the_lock_file_names_no_registry(self) -> None:
        """A hash identifies each package, from whatever registry it is installed."""
        lock = json.loads((SCRIPTS / "package-lock.json").read_text())
        packages = [package for name, package in lock["packages"].items() if name]
        assert len(packages) > 4
        for package in packages:
            assert "resolved" not in package
            assert package["integrity"].startswith("sha512-")
