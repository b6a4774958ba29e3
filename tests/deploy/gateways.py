"""Real gateways with the configurations beside this file, and the application behind them."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import unquote

from support.clock import HANG
from support.service import Reply, free_port, is_whole

HERE = Path(__file__).resolve().parent
#: Where distributions put servers; these folders are not in everybody's PATH.
PROGRAMS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
Header = tuple[str, str]


@dataclass(frozen=True)
class Seen:
    """A request as the application received it. Trailers count as headers, because some servers treat them
    so."""

    method: str
    target: str
    headers: list[Header]
    body: str

    @property
    def identity(self) -> dict[str, list[str]]:
        """The values of X-Token-* headers, by the last word of their name, however an application spells
        it."""
        said: dict[str, list[str]] = {}
        for name, value in self.headers:
            spelt = re.sub("[^a-z0-9]", "-", name.lower())
            if spelt.startswith("x-token-") and value:
                said.setdefault(spelt.removeprefix("x-token-"), []).append(value)
        return said

    @property
    def readings(self) -> set[str]:
        """Every path that an application might read in this request."""
        elsewhere = re.compile(
            "x-(original|rewrite|forwarded|envoy-original)-(url|uri|prefix|path)", re.IGNORECASE
        )
        said = [self.target, *(value for name, value in self.headers if elsewhere.fullmatch(name))]
        found = {path.partition("?")[0] for path in said}
        while more := {reading(path) for path in found for reading in _READINGS} - found:
            found |= more
        return found


def _plain(path: str) -> str:
    """The path without dot segments and empty segments."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    return "/" + "/".join(kept)


_READINGS: tuple[Callable[[str], str], ...] = (
    _plain,
    str.lower,
    lambda path: re.sub("^[a-z]+://[^/]*", "", path),
    lambda path: re.split("[?#]", path)[0],
    lambda path: re.sub(";[^/]*", "", path),
    lambda path: path.replace("\\", "/"),
    lambda path: path.split("\0")[0],
    lambda path: unquote(path, "latin-1"),
    lambda path: re.sub("%u00(..)", r"%\1", path),
    # Overlong UTF-8, after one decoding above.
    lambda path: re.sub("[\xc0\xc1][\x80-\xbf]", lambda two: chr((ord(two[0][0]) & 1) << 6 | ord(two[0][1]) & 63), path),
)  # fmt: skip


class Application(ThreadingHTTPServer):
    """Answers every request with what it received, as JSON, and keeps it in `received`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self.received: list[Seen] = []

    def __enter__(self) -> "Application":
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Application

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def handle(self) -> None:
        # A gateway drops its idle connections when it ends.
        with suppress(ConnectionResetError):
            super().handle()

    def _answer(self) -> None:
        body, trailers = self._read()
        headers = [*self.headers.items(), *trailers]
        # Not self.path: the standard library removes a second slash from it.
        seen = Seen(self.command, self.requestline.split(" ")[1], headers, body.decode())
        self.server.received.append(seen)
        answer = json.dumps(asdict(seen)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    def _read(self) -> tuple[bytes, list[Header]]:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(self._chunks())
            return body, http.client.parse_headers(self.rfile).items()
        return self.rfile.read(int(self.headers.get("Content-Length", 0))), []

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()

    def log_message(self, *_: object) -> None:
        """Log nothing: pytest shows failures."""


@dataclass
class Gateway(ABC):
    """The process of a gateway, in its own directory, in front of `signer` and `application` (ports)."""

    directory: Path
    signer: int
    application: int
    credential: str = ""
    port: int = field(default_factory=free_port)
    #: Names of the program, one of which must be installed.
    programs: ClassVar[tuple[str, ...]]
    #: Whether it asks /auth and not /oauth/introspect.
    asks: ClassVar[bool] = True

    @abstractmethod
    def command(self, program: str) -> list[str]:
        """Write its files; return the command that runs it in the foreground."""

    @classmethod
    def program(cls) -> str | None:
        """The path of the program; None if it is not installed."""
        found = (shutil.which(name, path=PROGRAMS) for name in cls.programs)
        return next((path for path in found if path), None)

    def shipped(self, name: str, changes: dict[str, str] | None = None) -> Path:
        """A copy of a file beside this one, with its placeholders replaced as an operator would."""
        ports = {"8080": self.port, "8000": self.signer, "9000": self.application}
        text = re.sub(r"\b(8080|8000|9000)\b", lambda found: str(ports[found[0]]), (HERE / name).read_text())
        for placeholder, value in (changes or {}).items():
            assert placeholder in text, placeholder
            text = text.replace(placeholder, value)
        copy = self.directory / name
        copy.write_text(text)
        return copy

    def __enter__(self) -> "Gateway":
        program = self.program()
        assert program
        self.log = self.directory / "gateway.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(program),
                cwd=self.directory,
                env={"PATH": PROGRAMS, "HOME": str(self.directory)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(HANG)
        finally:
            # Workers that outlive it; they are in its session.
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(HANG)

    def _wait(self) -> None:
        for _ in range(1000):
            if self.process.poll() is not None:
                break
            with suppress(OSError):
                return socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            time.sleep(0.02)
        self.__exit__()
        raise AssertionError(f"the gateway did not start:\n{self.log.read_text()}")

    def call(
        self, method: str, target: str, *headers: Header, body: bytes = b"", timeout: float = HANG
    ) -> Reply:
        """Send one request with exactly this target and these headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            names_host = "host" in (name.lower() for name, _ in headers)
            connection.putrequest(method, target, skip_host=names_host, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def send_raw(self, data: bytes) -> bytes:
        """Send these bytes; return all that comes back until the gateway closes the connection or is
        silent."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=HANG) as connection:
            connection.sendall(data)
            with suppress(TimeoutError, ConnectionResetError):
                while chunk := connection.recv(65536):
                    answer += chunk
                    connection.settimeout(0.3 if is_whole(answer, data) else HANG)
        return answer


class Nginx(Gateway):
    programs = ("nginx",)

    def command(self, program: str) -> list[str]:
        self.shipped("nginx.conf")
        spools = "client_body", "proxy", "fastcgi", "uwsgi", "scgi"
        # As root nginx would change its user, and lose access to this directory.
        user = "user root;" if os.geteuid() == 0 else ""
        main = self.directory / "main.conf"
        main.write_text(
            f"daemon off; pid {self.directory}/nginx.pid; error_log stderr; {user} worker_processes 1;"
            " events { } http { access_log off; "
            + "".join(f"{spool}_temp_path {self.directory}/{spool}; " for spool in spools)
            + f"include {self.directory}/nginx.conf; }}"
        )
        return [program, "-e", "stderr", "-c", str(main)]


class Caddy(Gateway):
    programs = ("caddy",)

    def command(self, program: str) -> list[str]:
        return [program, "run", "--adapter", "caddyfile", "--config", str(self.shipped("Caddyfile"))]


class HAProxy(Gateway):
    programs = ("haproxy",)

    def command(self, program: str) -> list[str]:
        script = self.shipped("haproxy-auth.lua")
        return [
            program,
            "-db",
            "-f",
            str(self.shipped("haproxy.cfg", {"/etc/haproxy/haproxy-auth.lua": str(script)})),
        ]


class Envoy(Gateway):
    programs = (os.environ.get("SIGNER_ENVOY", "envoy"),)

    def command(self, program: str) -> list[str]:
        config = str(self.shipped("envoy.yaml"))
        return [
            program,
            "-c",
            config,
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
        ]


class Apache(Gateway):
    programs = ("apache2", "httpd")
    asks = False

    @classmethod
    def program(cls) -> str | None:
        return super().program() if cls._modules() else None

    @staticmethod
    def _modules() -> Path | None:
        found = Path("/usr").glob("lib*/*/modules/mod_oauth2.so")
        return next((module.parent for module in found), None)

    def command(self, program: str) -> list[str]:
        self.shipped("apache.conf", {"CLIENT-CREDENTIAL": self.credential})
        modules = (
            "mpm_event unixd authn_core authz_core authz_user headers macro rewrite proxy proxy_http oauth2"
        )
        # As root it changes its user. By number, because distributions name the group of nobody differently.
        user = ["User #65534", "Group #65534"] if os.geteuid() == 0 else []
        main = self.directory / "main.conf"
        files = {name: Path(f"{self._modules()}/mod_{name}.so") for name in modules.split()}
        # Distributions also differ in which modules are built in.
        loaded = [f"LoadModule {name}_module {file}" for name, file in files.items() if file.exists()]
        main.write_text(
            "\n".join(
                [
                    *loaded,
                    *user,
                    f"ServerRoot {self.directory}",
                    "ServerName localhost",
                    "PidFile httpd.pid",
                    "DefaultRuntimeDir .",
                    "Mutex pthread",
                    "ErrorLog /dev/stderr",
                    "StartServers 1",
                    "MaxRequestWorkers 25",
                    "Include apache.conf",
                ]
            )
        )
        return [program, "-DFOREGROUND", "-f", str(main)]


GATEWAYS: tuple[type[Gateway], ...] = (Nginx, Caddy, HAProxy, Envoy, Apache)
#: The gateways that ask /auth, which accepts a cookie, too.
COOKIE_GATEWAYS = tuple(kind for kind in GATEWAYS if kind.asks)
