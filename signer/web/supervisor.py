"""Several workers: uvicorn's supervisor, with the signals that the service needs."""

import logging
import os
import signal
import time
from contextlib import suppress
from typing import Final

from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

logger = logging.getLogger(__name__)

#: Seconds in which a worker that was told to end is expected to have done so; then it is killed.
END_TIMEOUT: Final = 15.0


class Supervisor(Multiprocess):
    """Keeps workers running.

    SIGHUP goes on to each of them, which opens its audit trail anew; SIGUSR2 replaces them one by one, each
    new one answering before an old one ends. TTIN and TTOU add and remove one, as uvicorn has it.

    SIGHUP must be blocked, and stays so: a worker inherits that, and one that is told before it listens
    hears of it when it does.
    """

    def handle_signals(self) -> None:
        """Do as told since the last time."""
        if signal.SIGHUP in signal.sigpending():
            signal.sigwait({signal.SIGHUP})
            for process in self.processes:
                with suppress(ProcessLookupError):
                    os.kill(process.pid or 0, signal.SIGHUP)
        super().handle_signals()

    def handle_usr2(self) -> None:
        """Replace the workers one by one."""
        self.restart_all()

    def restart_all(self) -> None:
        """The same. uvicorn's own waits without end for a worker that hangs."""
        for index, old in enumerate(self.processes):
            new = Process(self.config, self.sockets)
            new.start()
            if not new.wait_until_ready(self.config.timeout_worker_healthcheck, self.should_exit):
                new.kill()
                new.join()
                logger.error("New worker [%s] does not answer: the old ones stay", new.pid)
                return
            self.processes[index] = new
            old.terminate()
            _await_end(old, time.monotonic() + END_TIMEOUT)

    def terminate_all(self) -> None:
        """End the workers. Nobody accepts connections from here on: let none wait for it."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Return when they have ended, one way or the other."""
        latest = time.monotonic() + END_TIMEOUT
        for process in self.processes:
            _await_end(process, latest)


def _await_end(worker: Process, latest: float) -> None:
    worker.process.join(max(0.0, latest - time.monotonic()))
    if worker.process.is_alive():
        logger.error("Worker [%s] hangs: killed", worker.pid)
        worker.process.kill()
    worker.join()
