"""Another program locks the list's file, or its disk is frozen: each call gets an answer nevertheless."""

import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from faults.disk import frozen, image
from support.clock import eventually
from support.service import KEY, Service, cli, environment

from signer import Signer
from signer.errors import StoreError
from signer.policy import MOST_TOGETHER
from signer.stores.sqlite.store import SQLiteStore

SCOPES = "token:issue token:introspect token:revoke metrics:read revocations:read"
#: More changes than two groups can hold.
MANY = 2 * MOST_TOGETHER + 20
Lock = Callable[[Path], None]


def written(path: Path) -> None:
    """As a program that has begun to write, and does something else."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE state SET horizon = horizon")
    hold()


def stopped(path: Path) -> None:
    """As one of our programs that was stopped within a change."""
    store = SQLiteStore(path)
    with store.together():
        store.revoke("access/none", 2_000_000_000)
        hold()


def recovered(path: Path) -> None:
    """As a program that recovers SQLite's shared memory, and never ends. SQLite waits for it for ten
    seconds."""
    with Path(f"{path}-shm").open("r+b") as shared:
        while True:
            try:
                fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB, 8, 120)
                hold()
            except BlockingIOError:  # Another process reads at this moment.
                pass


def hold() -> None:
    os.write(1, b"held\n")
    os.kill(os.getpid(), signal.SIGSTOP)


@contextmanager
def locked(lock: Lock, path: Path) -> Iterator[None]:
    """In another process, because locks belong to processes."""
    program = f"import sys; from pathlib import Path; from faults.test_locks import {lock.__name__} as lock; lock(Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], env=environment, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.readline() == "held\n"
            yield
        finally:
            holder.kill()


@contextmanager
def serving(folder: Path, workers: int = 1, list_in: str = "") -> Iterator[Service]:
    settings = {
        "SECRET_KEY": KEY,
        "DATABASE_URL": f"sqlite:///{folder / list_in}/tokens.db",
        "AUDIT_LOG": "off",
    }
    made = cli(folder, "client", "tests", "--scope", SCOPES, "--ttl", "1d", **settings)
    ours = {**settings, "WEB_CONCURRENCY": str(workers), "LOG_LEVEL": "warning"}
    with Service(folder, ours, credential=made.stdout.strip()) as running:
        # Not by readiness, which would be reported for another second.
        eventually(lambda: running.call("GET", "/healthz").status == 200)
        yield running


Call = Future[tuple[int, float]]


class Callers:
    """Many callers at the same time, each with its own connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._pool = ThreadPoolExecutor(2 * MANY)
        self._calls: list[Call] = []

    def __enter__(self) -> "Callers":
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.shutdown()

    def call(self, method: str, path: str, body: object = None, times: int = 1) -> None:
        """Send a call, and do not wait for the answer."""
        for _ in range(times):
            self._calls.append(self._pool.submit(self._answered, method, path, body))

    def taken(self) -> list[Call]:
        """The calls since the last time."""
        calls, self._calls = self._calls, []
        return calls

    def _answered(self, method: str, path: str, body: object) -> tuple[int, float]:
        began = time.monotonic()
        return self._service.call(method, path, body).status, time.monotonic() - began


def answers(calls: list[Call]) -> list[tuple[int, float]]:
    """The status of each call, which must have one, and the seconds that it took."""
    assert not wait(calls, timeout=60).not_done
    return [call.result() for call in calls]


def tokens(service: Service) -> tuple[str, str]:
    """A good token and a revoked one."""
    good, revoked = service.issue(), service.issue()
    assert service.call("POST", "/app/revoke", {"token": revoked}).status == 200
    assert service.says_valid(good)
    assert not service.says_valid(revoked)
    return good, revoked


def is_whole(service: Service, good: str, revoked: str) -> bool:
    """Whether everything works, and nothing was forgotten."""
    asked = service.call("GET", f"/app/valid/{revoked}")
    assert asked.json["status"] is False
    used = service.call("POST", "/app/consume", {"token": Signer(KEY).issue()})
    ready = service.call("GET", "/readyz")
    valid = service.call("GET", f"/app/valid/{good}")
    return {asked.status, used.status, ready.status, valid.status} == {200} and valid.json["status"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lock", "workers"), [(written, 1), pytest.param(stopped, 2, marks=pytest.mark.slow)]
)
def test_while_another_writes_validation_goes_on_and_changes_are_refused(
    tmp_path: Path, lock: Lock, workers: int
) -> None:
    """All are refused in the time of one, however many wait in the queue. What was refused was not made."""
    with serving(tmp_path, workers) as service:
        good, revoked = tokens(service)
        uses = [Signer(KEY).issue() for _ in range(MANY)]
        with Callers(service) as callers, locked(lock, tmp_path / "tokens.db"):
            for token in uses:
                callers.call("POST", "/app/consume", {"token": token})
            callers.call("POST", "/app/revoke", {"token": good})
            changes = callers.taken()
            for path in (f"/app/valid/{good}", f"/app/valid/{revoked}", "/healthz", "/metrics"):
                callers.call("GET", path, times=10)
            callers.call("POST", "/app/token", {}, times=10)
            assert {status for status, _ in answers(callers.taken())} == {200}
            told = answers(changes)
            assert {status for status, _ in told} == {503}
            # If one group of changes waited after the other, it would take three times as long.
            seconds = [seconds for _, seconds in told[:MANY]]
            assert max(seconds) < 2.5 * min(seconds)
            eventually(lambda: service.call("GET", "/readyz").status == 503)
        eventually(lambda: is_whole(service, good, revoked), 60)
        assert {service.call("POST", "/app/consume", {"token": token}).status for token in uses} == {200}


@pytest.mark.slow
def test_while_nobody_can_read_all_are_refused_and_the_service_is_alive(tmp_path: Path) -> None:
    """One caller waits, for a moment, and the others do not. What needs no list is answered."""
    with serving(tmp_path) as service:
        good, revoked = tokens(service)
        uses = [Signer(KEY).issue() for _ in range(20)]
        with Callers(service) as callers, locked(recovered, tmp_path / "tokens.db"):
            for token in uses:
                callers.call("POST", "/app/consume", {"token": token})
            changes = callers.taken()
            # Until the last known state is too old to be trusted.
            eventually(lambda: service.call("GET", f"/app/valid/{good}").status == 503, 60)
            callers.call("GET", f"/app/valid/{good}", times=50)
            callers.call("GET", f"/app/valid/{revoked}", times=50)
            assert {status for status, _ in answers(callers.taken())} == {503}
            callers.call("GET", "/healthz", times=50)
            assert {status for status, _ in answers(callers.taken())} == {200}
            assert {status for status, _ in answers(changes)} == {503}
            eventually(lambda: service.call("GET", "/readyz").status == 503)
        eventually(lambda: is_whole(service, good, revoked), 60)
        assert {service.call("POST", "/app/consume", {"token": token}).status for token in uses} == {200}


@pytest.mark.slow
def test_on_a_frozen_disk_validation_goes_on_and_changes_are_given_up(tmp_path: Path) -> None:
    """It is then unknown whether they were made. They are made at most once."""
    with image(tmp_path / "disk"), serving(tmp_path, 2, "disk") as service:
        good, revoked = tokens(service)
        uses = [Signer(KEY).issue() for _ in range(MANY)]
        with Callers(service) as callers, frozen(tmp_path / "disk"):
            for token in uses:
                callers.call("POST", "/app/consume", {"token": token})
            changes = callers.taken()
            for path in (f"/app/valid/{good}", f"/app/valid/{revoked}", "/healthz"):
                callers.call("GET", path, times=10)
            assert {status for status, _ in answers(callers.taken())} == {200}
            callers.call("GET", "/metrics")
            assert {status for status, _ in answers(changes + callers.taken())} == {503}
            eventually(lambda: service.call("GET", "/readyz").status == 503)
        eventually(lambda: is_whole(service, good, revoked), 60)
        told = [service.call("POST", "/app/consume", {"token": token}).status for token in uses]
        assert set(told) <= {200, 409}
        # Changes that waited in the queue were not made; one group in each worker may have been.
        assert told.count(409) <= 2 * MOST_TOGETHER


@pytest.mark.slow
def test_the_command_line_answers_while_another_writes(tmp_path: Path) -> None:
    """Commands that read work; commands that write say why they cannot."""
    good, revoked = from_the_command_line(tmp_path)
    with locked(written, tmp_path / "tokens.db"):
        issued = cli(tmp_path, "issue", "--sub", "42", SECRET_KEY=KEY)
        assert issued.returncode == 0, issued.stderr
        for token, code in ((good, 0), (revoked, 1), (issued.stdout, 0)):
            asked = cli_with(token, tmp_path, "validate")
            assert asked.returncode == code, asked.stderr
        for command in ("consume", "revoke"):
            refused = cli_with(good, tmp_path, command)
            assert (refused.returncode, "locked" in refused.stderr) == (3, True)
    assert cli_with(good, tmp_path, "consume").returncode == 0


@pytest.mark.slow
def test_the_command_line_gives_up_a_list_that_nobody_can_read(tmp_path: Path) -> None:
    """Exit code 3, as for any list that cannot answer. SQLite itself could wait longer."""
    good, _ = from_the_command_line(tmp_path)
    # SQLite's shared memory exists while a process has the list open.
    with closing(SQLiteStore(tmp_path / "tokens.db")):
        with locked(recovered, tmp_path / "tokens.db"):
            asked = cli_with(good, tmp_path, "validate")
        assert asked.returncode == 3
        assert asked.stderr.startswith("signer: The list")
        assert cli_with(good, tmp_path, "validate").returncode == 0


def from_the_command_line(folder: Path) -> tuple[str, str]:
    """A good token and a revoked one."""
    cli(folder, "create-list", SECRET_KEY=KEY)
    good, revoked = (cli(folder, "issue", SECRET_KEY=KEY).stdout for _ in range(2))
    assert cli_with(revoked, folder, "revoke").returncode == 0
    return good, revoked


def cli_with(token: str, folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "signer", command],
        cwd=folder,
        env=environment(SECRET_KEY=KEY),
        input=token,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_change_that_waited_in_vain_spares_the_next_ones_that(tmp_path: Path) -> None:
    """Until one succeeds: then they wait as long as before."""
    with closing(SQLiteStore(tmp_path / "list.db", timeout=0.5)) as store, ExitStack() as released:

        def waits() -> int:
            (milliseconds,) = store._opened.writer.execute("PRAGMA busy_timeout").fetchone()
            return int(milliseconds)

        other = released.enter_context(closing(sqlite3.connect(tmp_path / "list.db", isolation_level=None)))
        other.execute("BEGIN IMMEDIATE")
        assert waits() == 500
        for _ in range(2):
            with pytest.raises(StoreError, match="locked"):
                store.revoke("access/x", 1)
            assert waits() == 250
        other.execute("ROLLBACK")
        store.revoke("access/x", 1)
        assert waits() == 500


def test_a_change_waits_no_longer_for_another_thread_than_for_another_process(tmp_path: Path) -> None:
    """A thread that hangs in the disk holds the list for ever."""
    release, held = threading.Event(), threading.Event()
    with closing(SQLiteStore(tmp_path / "list.db", timeout=0.2)) as store:

        def hang() -> None:
            with store.together():
                held.set()
                release.wait()

        other = threading.Thread(target=hang)
        other.start()
        held.wait()
        with pytest.raises(StoreError, match="has not ended"):
            store.revoke("access/x", 1)
        assert not store.lookup("access/x", 1, []).revoked
        release.set()
        other.join()
        store.revoke("access/x", 1)
