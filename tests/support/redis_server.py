"""Private Redis servers, on free ports and in their own folders."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis as driver
from support.clock import HANG
from support.service import free_port


class Redis:
    """A server that keeps its port and its folder when it restarts.

    Args:
        directory: the folder of its files.
        options: lines of its configuration, such as "appendonly yes".
        is_sentinel: whether it watches other servers and holds no data.
        program: the executable.
    """

    def __init__(
        self, directory: Path, *options: str, is_sentinel: bool = False, program: str = "redis-server"
    ) -> None:
        self._binary = shutil.which(program) or ""
        if not self._binary:
            pytest.skip(f"{program} is not installed")
        self.directory = directory
        self.port = free_port()
        self.password = next((line.split()[1] for line in options if line.startswith("requirepass")), None)
        self._mode = ["--sentinel"] if is_sentinel else []
        common = [f"port {self.port}", "bind 127.0.0.1", f"dir {directory}", "logfile server.log"]
        lines = [*common, *([] if is_sentinel else ['save ""', "repl-diskless-sync-delay 0"]), *options]
        if "cluster-enabled yes" in options:
            # Its default is the port plus ten thousand, which may be too high.
            self.bus = free_port()
            lines.append(f"cluster-port {self.bus}")
        self._configuration = directory / f"{self.port}.conf"
        self._configuration.write_text("\n".join(lines))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Redis":
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """The URL, without a password."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command: Sequence[str] = [self._binary, str(self._configuration), *self._mode]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + HANG
        while time.monotonic() < deadline:
            with suppress(driver.RedisError):
                self.call("PING")
                return
            time.sleep(0.02)
        self.kill()
        raise AssertionError((self.directory / "server.log").read_text())

    def call(self, *command: str | int) -> Any:
        """Send one command; return its answer."""
        client: Any = driver.Redis(port=self.port, password=self.password, decode_responses=True, protocol=2)
        with client:
            return client.execute_command(*command)

    def signal(self, number: int) -> None:
        """Send a signal, such as SIGSTOP."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it with kill -9."""
        if self._process:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait(HANG)

    def restart(self) -> None:
        """End it with kill -9, and start it with what its files hold."""
        self.kill()
        self.start()

    def wait_for(self, *command: str | int, told: str) -> None:
        """Wait until the answer to a command, or its error, contains this text."""
        deadline, answer = time.monotonic() + HANG, ""
        while told not in answer:
            assert time.monotonic() < deadline, (command, told, answer)
            time.sleep(0.05)
            try:
                answer = str(self.call(*command))
            except driver.ResponseError as error:
                answer = str(error)

    def wait_for_master(self, master: "Redis") -> None:
        """Wait until this replica has all that its master has, and the master knows it."""
        self.wait_for("INFO", "replication", told="'master_link_status': 'up'")
        master.wait_for("INFO", "replication", told="'state': 'online'")
