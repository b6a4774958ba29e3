"""Several workers: uvicorn's supervisor, with the signals that the service needs."""

import logging
import os
import signal
import time
from contextlib import suppress
from typing import Final

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

logger = logging.getLogger(__name__)

#: Seconds in which a new worker must begin to serve. A busy machine may take many of them to start Python.
BEGIN_TIMEOUT: Final = 60.0
#: Seconds in which a worker that was told to end is expected to have done so; then it is killed.
END_TIMEOUT: Final = 15.0
#: Times that as many workers as there are may end by themselves, while none of them serves.
ATTEMPTS: Final = 3


class Worker(Process):
    """A process that serves, or is about to."""

    #: Whether it was heard of, as it is once it runs our code.
    has_begun = False

    def start(self) -> None:
        """Start the process, and ask for a first sign of it."""
        super().start()
        self._latest = time.monotonic() + BEGIN_TIMEOUT
        self.parent_conn.send(b"ping")

    def is_alive(self, timeout: float = 5) -> bool:
        """Whether it answers within so many seconds; until its first answer, whether it may still begin."""
        self.has_begun = self.has_begun or self.parent_conn.poll()
        if not self.has_begun and time.monotonic() < self._latest:
            return self.process.is_alive()
        return super().is_alive(timeout)


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

    processes: list[Worker]  # type: ignore[assignment]

    def init_processes(self) -> None:
        """Start the workers."""
        self.processes += [self._started() for _ in range(self.processes_num)]

    def keep_subprocess_alive(self) -> None:
        """Replace those that ended or hang."""
        for worker in self.processes:
            worker.child_conn.close()  # the worker has it, too; or its end would not be heard of for seconds
        patience = self.config.timeout_worker_healthcheck
        lost = [worker for worker in self.processes if not worker.is_alive(patience)]
        kept = [worker for worker in self.processes if worker not in lost]
        if self._ended and any(worker.has_begun and worker.is_ready(patience) for worker in kept):
            self._ended = 0
        for worker in lost:
            self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        if self.should_exit.is_set():
            return
        worker.kill()
        worker.join()
        # One that had to be killed may have served until then.
        was_serving = worker.has_begun and worker.exitcode == -signal.SIGKILL
        self._ended = 0 if was_serving else self._ended + 1
        # That exit code says that no worker can start.
        if worker.exitcode == STARTUP_FAILURE or self._ended >= ATTEMPTS * self.processes_num:
            self.has_failed = True
            self.should_exit.set()
        else:
            logger.info("Worker [%s] died", worker.pid)
            self.processes[self.processes.index(worker)] = self._started()

    def _started(self) -> Worker:
        worker = Worker(self.config, self.sockets)
        worker.start()
        return worker

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

    def handle_ttin(self) -> None:
        """One worker more."""
        self.processes_num += 1
        self.processes.append(self._started())

    def restart_all(self) -> None:
        """Replace the workers one by one. uvicorn's own waits without end for one that hangs."""
        for index, old in enumerate(self.processes):
            new = self._started()
            if not self._is_serving_in_time(new):
                new.kill()
                new.join()
                logger.error("New worker [%s] does not answer: the old ones stay", new.pid)
                return
            self.processes[index] = new
            old.terminate()
            _await_end(old, time.monotonic() + END_TIMEOUT)

    def _is_serving_in_time(self, new: Worker) -> bool:
        latest = time.monotonic() + BEGIN_TIMEOUT
        # Whoever is told to end meanwhile does not wait for it.
        while (
            new.process.is_alive() and time.monotonic() < latest and signal.SIGTERM not in self.signal_queue
        ):
            if new.is_ready(timeout=1):
                return True
            time.sleep(0.1)
        return False

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
