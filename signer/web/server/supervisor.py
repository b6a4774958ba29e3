"""The supervisor of several workers: uvicorn's, with the signals that the service needs."""

import logging
import os
import signal
import time
from contextlib import suppress
from typing import Final

from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from ...policy import ATTEMPTS, ATTEMPTS_TIME, BEGIN_TIMEOUT, END_TIMEOUT

logger = logging.getLogger(__name__)

#: The signals that end the service.
_ENDING: Final = {signal.SIGTERM, signal.SIGINT}


class Worker(Process):
    """A process that serves, or is starting."""

    #: Whether it has answered at least once.
    has_served = False

    def start(self) -> None:
        """Start the process, and ask it whether it serves."""
        super().start()
        self._latest = time.monotonic() + BEGIN_TIMEOUT
        self.parent_conn.send(b"ping")

    def is_alive(self, timeout: float = 5) -> bool:
        """Whether it answers within so many seconds. Before its first answer: whether it still has time."""
        if self.has_served:
            return super().is_alive(timeout)
        self.has_served = self._is_serving()
        return self.process.is_alive() and (self.has_served or time.monotonic() < self._latest)

    def _is_serving(self) -> bool:
        # A thread of the worker answers as soon as Python runs; it says no until the application is open.
        try:
            if self.parent_conn.poll():
                if self.parent_conn.recv() is True:
                    return True
                self.parent_conn.send(b"ping")
        except (OSError, EOFError):
            pass  # the worker has ended
        return False


class Supervisor(Multiprocess):
    """Keeps workers running.

    SIGHUP is passed on to each worker, which then reopens its audit trail. SIGUSR2 replaces the workers one
    by one: an old one ends after its successor has answered. TTIN and TTOU add and remove one, as in uvicorn.

    SIGHUP must be blocked, and stays blocked. Workers inherit that, so a worker that gets the signal before
    it can handle it does so later.

    A worker that ends is replaced. If all end before they serve, again and again, the supervisor gives up:
    a service that listens and never answers keeps its callers from trying another one.
    """

    #: Whether the supervisor has given up.
    has_failed = False
    #: How many workers have ended since the last one that served, and when the first of them did.
    _ended = 0
    _since = 0.0

    processes: list[Worker]  # type: ignore[assignment]

    def init_processes(self) -> None:
        """Start the workers."""
        self.processes += [self._started() for _ in range(self.processes_num)]

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have ended or hang."""
        for worker in self.processes:
            worker.child_conn.close()  # only the worker must have it, or its end is noticed seconds later
        patience = self.config.timeout_worker_healthcheck
        lost = [worker for worker in self.processes if not worker.is_alive(patience)]
        if any(worker.has_served for worker in self.processes if worker not in lost):
            self._ended = 0
        for worker in lost:
            self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        if self.should_exit.is_set():
            return
        worker.kill()
        worker.join()
        if worker.has_served or not self._ended:
            self._ended, self._since = 0, time.monotonic()
        self._ended += 1
        is_enough = self._ended >= ATTEMPTS * self.processes_num
        is_over = is_enough and time.monotonic() > self._since + ATTEMPTS_TIME
        if is_over or worker.exitcode == STARTUP_FAILURE:  # this code says that no worker can start
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
        """Handle the signals that have arrived since the last call."""
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
        """Add a worker."""
        self.processes_num += 1
        self.processes.append(self._started())

    def restart_all(self) -> None:
        """Replace the workers one by one. uvicorn's own method waits forever for one that hangs."""
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
        # A signal that ends the service also ends this wait.
        while new.is_alive() and not new.has_served and not _ENDING & {*self.signal_queue}:
            time.sleep(0.1)
        return new.has_served

    def terminate_all(self) -> None:
        """End the workers. No connection is accepted from now on, so the sockets close: none should wait."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Return when all workers have ended, or were killed."""
        latest = time.monotonic() + END_TIMEOUT
        for process in self.processes:
            _await_end(process, latest)


def _await_end(worker: Process, latest: float) -> None:
    worker.process.join(max(0.0, latest - time.monotonic()))
    if worker.process.is_alive():
        logger.error("Worker [%s] hangs: killed", worker.pid)
        worker.process.kill()
    worker.join()
