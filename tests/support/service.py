"""A real service in its own process, and a client that sends exactly what a test asks for."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.clock import HANG, eventually

from signer import Signer
from signer.credentials import issue_credential

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-test-key-of-more-than-thirty-two-bytes"
PASSED_ON = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")


def environment(**settings: str) -> dict[str, str]:
    """A clean environment with only these settings."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT)} | settings


def cli(directory: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m signer` in `directory`."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "signer", *arguments],
        cwd=directory,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )


def client(name: str, scope: str, key: str = KEY) -> str:
    """A credential for a client without any revocation: what `python -m signer client` prints, in a tenth of
    a millisecond."""
    return issue_credential(Signer(key), name, scope, 24 * 60 * 60)


@dataclass(frozen=True)
class Reply:
    """The answer of the service."""

    status: int
    headers: http.client.HTTPMessage
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Service:
    """`python app.py` in `directory`, with these settings in its environment."""

    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = (str(ROOT / "app.py"),)
    credential: str | None = None
    port: int = 0
    waits: bool = True
    #: A command that runs the service as another user, with its arguments.
    run_as: tuple[str, ...] = ()

    def __enter__(self) -> "Service":
        self.port = self.port or free_port()
        self.log_path = self.directory / f"service-{self.port}.log"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.run_as,
                    sys.executable,
                    "-W",
                    "error",
                    *(part.format(port=self.port) for part in self.command),
                ],
                cwd=self.directory,
                env=environment(**{"PORT": str(self.port), **self.settings}),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if self.waits:
            self._wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> int:
        """End it as an operator would; return the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(HANG)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it and its workers with kill -9."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(HANG)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def pids(self) -> list[int]:
        """The processes that have ever served, the oldest first."""
        return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", self.log)]

    def wait_for_log(self, text: str, count: int = 1) -> None:
        """Wait until the log contains this text so many times."""
        eventually(lambda: self.log.count(text) >= count)

    def wait_until_started(self, workers: int = 1) -> None:
        """Wait until so many processes have ever been ready to serve. The context is entered when the first
        one listens."""
        self.wait_for_log("Application startup complete", workers)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        credential: str | None = None,
    ) -> Reply:
        """Send one request. A body that is not bytes is sent as JSON."""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        credential = credential or self.credential
        if credential and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {credential}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def issue(self, **request: Any) -> str:
        """Issue a token with POST /app/token."""
        reply = self.call("POST", "/app/token", request)
        assert reply.status == 200, reply.raw
        return str(reply.json["token"])

    def says_valid(self, token: str) -> bool:
        """The answer of GET /app/valid/{token}."""
        reply = self.call("GET", f"/app/valid/{token}")
        assert (reply.status, reply.json["status_code"]) == (200, 200), reply.raw
        return bool(reply.json["status"])

    def send_raw(self, data: bytes, *, half_close: bool = False, patience: float = HANG) -> bytes:
        """Send these bytes. Return all that comes back until the server closes the connection, or is silent
        after a complete answer, or begins none in `patience` seconds."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=patience) as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while chunk := connection.recv(65536):
                    answer += chunk
                    connection.settimeout(0.3 if is_whole(answer, data) else HANG)
            except (TimeoutError, ConnectionResetError):
                pass
            return answer

    def _wait(self) -> None:
        deadline = time.monotonic() + HANG
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the service did not start:\n{self.log}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.kill()
        raise AssertionError(f"the service did not listen:\n{self.log}")


def is_whole(answers: bytes, requests: bytes) -> bool:
    """Whether the last answer is complete. For HTTP/2 this is not checked."""
    if requests.startswith((b"HEAD ", b"PRI ")):
        return True
    head, end, body = answers[answers.rfind(b"HTTP/1.") :].partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    return bool(end) and (length is None or len(body) >= int(length[1]))


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
