"""Several workers: uvicorn's supervisor, with the signals and the bookkeeping that the service needs."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from socket import socket

from uvicorn import Config
from uvicorn.supervisors import Multiprocess

from .metrics import forget


class Supervisor(Multiprocess):
    """Keeps workers running.

    SIGHUP goes on to each of them, which opens its audit trail anew; SIGUSR2 replaces them one by one, each
    new one answering before an old one ends. TTIN and TTOU add and remove one, as uvicorn has it.

    Args:
        folder: where the workers' metrics are.
    """

    def __init__(self, config: Config, sockets: list[socket], folder: Path) -> None:
        super().__init__(config, sockets)
        self._folder = folder
        self._known: set[int] = set()
        #: Who has not been told yet that the audit trail was moved.
        self._to_tell: set[int] = set()

    def handle_hup(self) -> None:
        """Pass it on, to each as soon as it listens."""
        self._to_tell = self._running()

    def handle_usr2(self) -> None:
        """Replace the workers one by one."""
        self.restart_all()

    def handle_signals(self) -> None:
        """Take note of who runs before anybody is replaced."""
        self._known |= self._running()
        super().handle_signals()
        for process in self.processes:
            # One that is starting may have opened the old file already.
            if process.pid in self._to_tell and process.is_ready(timeout=1):
                self._to_tell.discard(process.pid)
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGHUP)

    def keep_subprocess_alive(self) -> None:
        """Replace whoever died, and drop gauges of those who are gone."""
        super().keep_subprocess_alive()
        for pid in self._known - self._running():
            forget(pid, self._folder)
        self._known = self._running()

    def terminate_all(self) -> None:
        """End the workers. Nobody accepts connections from here on: let none wait for it."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def _running(self) -> set[int]:
        return {process.pid for process in self.processes if process.pid}
