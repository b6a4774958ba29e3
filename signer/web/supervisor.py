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
#: Times that as many workers as there are may end by themselves, while none of them serves.
ATTEMPTS: Final = 3


class Supervisor(Multiprocess):
    """Keeps workers running.

    SIGHUP goes on to each of them, which opens its audit trail anew; SIGUSR2 replaces them one by one, each
    new one answering before an old one ends. TTIN and TTOU add and remove one, as uvicorn has it.

    SIGHUP must be blocked, and stays so: a worker inherits that, and one that is told before it listens
    hears of it when it does.

    One that ends is replaced. Where all end before they serve, again and again, it gives up: who listens and
    never answers keeps callers from those that would.
    """

    #: Whether it has given up.
    has_failed = False
    #: How many workers have ended since one was found that serves.
    _ended = 0

    def keep_subprocess_alive(self) -> None:
        """Replace those that ended or hang."""
        if self.should_exit.is_set():
            return
        known = [*self.processes]
        for process in known:
            process.child_conn.close()  # the worker has it, too; or its end would not be heard of for seconds
        super().keep_subprocess_alive()
        kept = [process for process in known if process in self.processes]
        ended = [process.exitcode for process in known if process not in kept]
        # One that was killed may have served until then.
        if -signal.SIGKILL in ended or any(process.is_ready() for process in kept):
            self._ended = 0
        self._ended += len(ended)
        # uvicorn itself ends all where the exit code of one says that none can start.
        if self.should_exit.is_set() or self._ended >= ATTEMPTS * self.processes_num:
            self.has_failed = True
            self.should_exit.set()

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
