"""Private PostgreSQL servers, and a pooler in front of them. Each has its own folder and port, and is ended
by its test."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.clock import HANG
from support.service import free_port

USER, PASSWORD = "signer", "a-pass-word-nobody-tells"


def program(name: str) -> str:
    """The path of an installed program; the test is skipped if it is not installed."""
    folders = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    found = shutil.which(name, path=":".join([*folders, os.environ.get("PATH", ""), "/usr/sbin"]))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def _unprivileged() -> dict[str, Any]:
    # These programs refuse to run as root.
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in known else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class _Server:
    """A program in its own session, which listens on `port`."""

    def __init__(self) -> None:
        self._run_as = _unprivileged()
        # Not in pytest's folder, which only the user of the tests can read.
        self.folder = Path(tempfile.mkdtemp(prefix="signer-postgres-"))
        if self._run_as:
            os.chown(self.folder, self._run_as["user"], self._run_as["group"])
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def url_of(
        self, port: int, database: str = "postgres", user: str = USER, password: str = PASSWORD
    ) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{port}/{database}"

    @property
    def url(self) -> str:
        return self.url_of(self.port)

    def run(self, *command: str) -> None:
        subprocess.run(
            command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, timeout=HANG, env={"LANG": "C"}, **self._run_as
        )  # fmt: skip

    def launch(self, *command: str) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True, env={"LANG": "C"}, **self._run_as
            )  # fmt: skip
        eventually(lambda: self.sql("SELECT 1"), psycopg.Error)

    def sql(self, *statements: str) -> None:
        """Execute statements as the owner of the list, without using the store."""
        with psycopg.connect(self.url, autocommit=True, connect_timeout=2) as connection:
            for statement in statements:
                connection.execute(statement)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program and all its processes, each of which has its own session."""
        if self.process is not None:
            pid = self.process.pid
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            for each in (pid, *map(int, children)):
                with suppress(ProcessLookupError):
                    os.kill(each, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(HANG)
        self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)


class Postgres(_Server):
    """A server with an empty database; with `source`, a standby of that server."""

    def __init__(self, *settings: str, source: "Postgres | None" = None) -> None:
        super().__init__()
        self._settings = settings
        self._data = self.folder / "data"
        if source is None:
            self._initialise()
        else:
            self.run(program("pg_basebackup"), "-D", str(self._data), "-R", "-c", "fast", "-d", source.url)
        self.start()

    def _initialise(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self.run(
            program("initdb"), "-D", str(self._data), "-U", USER, "--pwfile", str(secret),
            "--auth", "scram-sha-256", "--no-sync", "--no-locale", "-E", "UTF8",
        )  # fmt: skip

    def start(self) -> None:
        settings = (
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "shared_buffers=16MB",
            "fsync=off",
            *self._settings,
        )
        options = [part for setting in settings for part in ("-c", setting)]
        self.launch(program("postgres"), "-D", str(self._data), "-p", str(self.port), *options)

    def stop(self) -> None:
        """Stop it as `pg_ctl stop -m fast` does."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(HANG)
            self.process = None

    def copy(self) -> Path:
        """Copy all its files; it must not be running."""
        target = self.folder / "copy"
        self.run("cp", "-a", str(self._data), str(target))
        return target

    def restore(self, copy: Path) -> None:
        shutil.rmtree(self._data)
        copy.rename(self._data)


class PgBouncer(_Server):
    """A pooler in transaction mode in front of a server."""

    def __init__(self, server: Postgres) -> None:
        super().__init__()
        (self.folder / "users").write_text(f'"{USER}" "{PASSWORD}"\n')
        (self.folder / "ini").write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr=127.0.0.1\n"
            f"listen_port={self.port}\nauth_type=scram-sha-256\nauth_file={self.folder}/users\nunix_socket_dir=\n"
            "pool_mode=transaction\ndefault_pool_size=3\n"
        )
        self.launch(program("pgbouncer"), str(self.folder / "ini"))


def eventually(call: Callable[[], object], *errors: type[BaseException], within: float = HANG) -> None:
    """Repeat until it raises none of these errors."""
    until = time.monotonic() + within
    while True:
        try:
            call()
        except errors:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return
