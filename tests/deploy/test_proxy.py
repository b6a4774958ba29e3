"""nginx in front of signer itself, with the configuration in this folder."""

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.clock import HANG
from support.service import KEY, Service, cli, free_port

HERE = Path(__file__).resolve().parent
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx")
SPOOLS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("signer")
    made = cli(directory, "client", "tests", "--scope", "token:issue read", "--ttl", "1d", SECRET_KEY=KEY)
    settings = {"SECRET_KEY": KEY, "TRUSTED_PROXIES": "127.0.0.1", "AUDIT_LOG": "audit.log"}
    with Service(directory, settings, credential=made.stdout.strip()) as running:
        yield running


@pytest.fixture(scope="module")
def nginx(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service as it is reached through nginx."""
    directory, port = tmp_path_factory.mktemp("nginx"), free_port()
    site = (HERE / "nginx-signer.conf").read_text()
    (directory / "site.conf").write_text(
        site.replace("127.0.0.1:8000", f"127.0.0.1:{service.port}").replace(
            "127.0.0.1:8443", f"127.0.0.1:{port}"
        )
    )
    spools = "".join(f"{spool}_temp_path {directory}/{spool}; " for spool in SPOOLS)
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "main.conf").write_text(
        f"daemon off; pid {directory}/nginx.pid; {user} worker_processes 1;"
        f" events {{ }} http {{ {spools} include {directory}/site.conf; }}"
    )
    assert NGINX
    command = [NGINX, "-e", str(directory / "error.log"), "-c", str(directory / "main.conf")]
    with subprocess.Popen(command, cwd=directory) as process:
        try:
            behind = Service(directory, port=port, credential=service.credential)
            deadline = time.monotonic() + HANG
            while time.monotonic() < deadline:
                with suppress(OSError):
                    behind.call("GET", "/healthz")
                    break
                time.sleep(0.05)
            yield behind
        finally:
            process.terminate()


def called_from(address: str, port: int, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG, source_address=(address, 0))
    try:
        connection.request("POST", path, headers=headers)
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


def test_log_and_trail_name_the_caller_and_not_what_it_says_it_is(service: Service, nginx: Service) -> None:
    """The address from nginx replaces the one that the caller sent."""
    headers = {
        "Authorization": f"Bearer {nginx.credential}", "X-Forwarded-For": "192.0.2.7", "X-Request-ID": "through-nginx",
    }  # fmt: skip
    assert called_from("127.0.0.9", nginx.port, "/app/token", headers).status == 200
    service.wait_for_log("request_id=through-nginx")
    (line,) = [line for line in service.log.splitlines() if "request_id=through-nginx" in line]
    assert "address=127.0.0.9 " in line
    trail = map(json.loads, (service.directory / "audit.log").read_text().splitlines())
    (event,) = [event for event in trail if event.get("request_id") == "through-nginx"]
    assert event["address"] == "127.0.0.9"
    assert "192.0.2.7" not in service.log


def test_what_signer_says_comes_through(nginx: Service) -> None:
    """Tokens, refusals and ids. The metrics are for internal callers only."""
    token = nginx.issue()
    assert nginx.says_valid(token)
    assert nginx.call("POST", "/app/token", credential="x").status == 401
    assert nginx.call("GET", "/healthz").headers["X-Request-ID"]
    assert nginx.call("GET", "/metrics").status == 404


def test_no_token_is_in_its_logs(service: Service, nginx: Service) -> None:
    """Not even if signer cannot be reached, an error about which nginx logs a lot."""
    token = nginx.issue()
    nginx.says_valid(token)
    nginx.send_raw(f"GET /app/valid/{token} HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n".encode())
    service.stop()
    assert nginx.call("GET", f"/app/valid/{token}").status == 502
    written = "".join(file.read_text() for file in nginx.directory.rglob("*") if file.is_file())
    assert token not in written
    assert token.split(".")[1] not in written
