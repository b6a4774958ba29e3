"""Real servers in their own processes."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import KEY
from support.service import ROOT, cli, environment, free_port

#: All scopes that the benchmarks need.
SCOPES = "token:issue token:introspect token:revoke token:purge metrics:read read write"
TESTS = Path(__file__).resolve().parent.parent
_START_TIMEOUT = 60.0


@dataclass
class Server:
    """A program that serves on a free port of 127.0.0.1 while the context is entered.

    Standard error goes to a file, as with a service manager or a shell. Standard output goes there, too, or
    to a reader that throws it away, as the log of a container does. The program is ended by its id.

    Args:
        directory: its working directory, which is created if it does not exist.
        arguments: of Python; "{port}" in one of them becomes the port, which is also in PORT.
        settings: its environment, in addition to PATH and similar variables.
        is_read: whether standard output is read through a pipe.
    """

    directory: Path
    arguments: tuple[str, ...] = (str(ROOT / "app.py"),)
    settings: dict[str, str] = field(default_factory=dict)
    is_read: bool = False
    port: int = 0

    def __enter__(self) -> "Server":
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._log = self.directory / "server.log"
        variables = {"PORT": str(self.port), "PYTHONPATH": f"{ROOT}:{TESTS}", **self.settings}
        with self._log.open("ab") as log:
            self._reader = (
                subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
                if self.is_read
                else None
            )
            self.process = subprocess.Popen(
                [sys.executable, *(argument.format(port=self.port) for argument in self.arguments)],
                cwd=self.directory,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=self._reader.stdin if self._reader else log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._await()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        # Its workers, if it left any.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        if self._reader and self._reader.stdin:
            self._reader.stdin.close()
            self._reader.wait(20)

    def client(self) -> http.client.HTTPConnection:
        """A new connection to it, not yet open."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def call(self, method: str, path: str, body: Any = None, credential: str = "") -> tuple[int, bytes]:
        """Send one request on a new connection: status and body of the answer."""
        connection = self.client()
        try:
            return exchange(connection, method, path, body, credential)
        finally:
            connection.close()

    def _await(self) -> None:
        latest = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < latest:
            if self.process.poll() is not None:
                raise RuntimeError(f"The server ended at its start:\n{self._log.read_text()}")
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"The server does not listen:\n{self._log.read_text()}")


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, credential: str = ""
) -> tuple[int, bytes]:
    """Send one request on this connection, with its body as JSON: status and body of the answer."""
    headers = {"Authorization": f"Bearer {credential}"} if credential else {}
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def service(directory: Path, *, is_read: bool = False, **settings: str) -> Server:
    """`python app.py` in production mode with these settings, and without an audit trail unless they name
    one. Its list is `tokens.db` in `directory`."""
    return Server(directory, settings={"SECRET_KEY": KEY, "AUDIT_LOG": "off", **settings}, is_read=is_read)


def credential(directory: Path) -> str:
    """A client credential for everything, which all services with the benchmarks' key accept."""
    directory.mkdir(parents=True, exist_ok=True)
    made = cli(directory, "client", "benchmarks", "--scope", SCOPES, "--ttl", "1d", SECRET_KEY=KEY)
    if made.returncode:
        raise RuntimeError(made.stderr)
    return made.stdout.strip()
