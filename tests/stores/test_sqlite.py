"""The list in SQLite fails closed when its file, its disk or other programs misbehave."""

import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from support.clock import HANG
from support.service import environment

from signer.errors import StoreError
from signer.policy import MAX_GROUPS
from signer.stores.sqlite import statements
from signer.stores.sqlite.store import SQLiteStore

JTI, OTHER = "a" * 22, "b" * 22
EXP = 1_800_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    opened = SQLiteStore(path, timeout=0.2)
    opened.revoke(JTI, EXP)
    yield opened
    opened.close()


def refuses_everything(store: SQLiteStore) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.lookup(OTHER, EXP, []),
        lambda: store.revoke(OTHER, EXP),
        lambda: store.use(OTHER, EXP, 1),
        lambda: store.advance("sub:a", 1, EXP),
        lambda: store.purge(1),
        store.count,
        store.ping,
    ]
    for call in calls:
        with pytest.raises(StoreError):
            call()


def test_it_remembers_across_restarts(store: SQLiteStore, path: Path) -> None:
    """The next process that opens the file finds what was written."""
    store.close()
    with closing(SQLiteStore(path)) as again:
        assert again.lookup(JTI, EXP, []).revoked


def test_only_its_owner_may_read_it(store: SQLiteStore, path: Path) -> None:
    """It contains names of subjects. SQLite gives its side files the same mode."""
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_it_is_as_the_design_says(store: SQLiteStore, path: Path) -> None:
    """WAL, synchronous=FULL for every commit, clustered by expiry."""
    assert store._opened.writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._opened.writer.execute("PRAGMA synchronous").fetchone() == (2,)
    for sql, values in (
        (statements.LOOKUP, MAX_GROUPS + 2),
        (statements.PURGE_BOUND, 2),
        (statements.PURGE_TOKENS, 2),
        (statements.PURGE_GROUPS, 2),
    ):
        plan = [row[3] for row in store._opened.writer.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * values)]
        assert not [step for step in plan if "SCAN" in step and "state" not in step], plan


def test_a_look_up_waits_for_no_lock(store: SQLiteStore) -> None:
    """It may run in an event loop: better one call is refused at once than all are delayed."""
    assert store._opened.reader.execute("PRAGMA busy_timeout").fetchone() == (0,)


def test_a_look_up_cannot_change_anything(store: SQLiteStore) -> None:
    """Its connection is for reading."""
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._opened.reader.execute("DELETE FROM tokens")


def test_a_file_deleted_during_a_commit_is_no_success(store: SQLiteStore, path: Path) -> None:
    """The change went with it."""
    with ExitStack() as changes:
        changes.enter_context(store.together())
        store.revoke(OTHER, EXP)
        path.unlink()
        with pytest.raises(StoreError, match="cannot answer"):
            changes.close()


def test_a_file_that_was_taken_away_is_not_read_within_changes(store: SQLiteStore, path: Path) -> None:
    """Before the first change."""
    with store.together():
        path.rename(path.with_name("away"))
        with pytest.raises(StoreError, match="cannot answer"):
            store.lookup(JTI, EXP, [])


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-bell"])
def test_a_deleted_file_refuses(store: SQLiteStore, path: Path, suffix: str) -> None:
    """SQLite alone would go on with the deleted file, and a new worker with another one. Without the -shm,
    both wrote to one WAL without seeing each other's changes, and acknowledged revocations were lost."""
    Path(f"{path}{suffix}").unlink()
    refuses_everything(store)
    assert path.exists() == (suffix != "")


def test_another_process_on_new_side_files_is_noticed(store: SQLiteStore, path: Path) -> None:
    """The -shm is deleted, and another process makes a new one. The first process still refuses."""
    Path(f"{path}-shm").unlink()
    program = "import sys; from signer.stores.sqlite.store import SQLiteStore; SQLiteStore(sys.argv[1]).revoke('b' * 22, 1_800_000_000)"
    subprocess.run([sys.executable, "-c", program, str(path)], env=environment(), check=False, timeout=30)
    refuses_everything(store)


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_side_files_of_a_lost_list_stop_a_new_one(store: SQLiteStore, path: Path, suffix: str) -> None:
    """SQLite would apply the old -wal to the new list."""
    store.close()
    path.unlink()
    Path(f"{path}{suffix}").write_bytes(b"")
    with pytest.raises(StoreError, match="is gone"):
        SQLiteStore(path)
    assert not path.exists()
    Path(f"{path}{suffix}").unlink()
    SQLiteStore(path).close()


def test_an_older_copy_over_the_file_is_noticed(store: SQLiteStore, path: Path) -> None:
    """`cp backup list` keeps the inode, but the list has fewer changes than this process has seen."""
    store._opened.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = path.read_bytes()
    store.revoke(OTHER, EXP)
    assert store.lookup(OTHER, EXP, []).revoked
    store._opened.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(backup)
    # Another process's change makes every cache look again.
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("INSERT INTO tokens VALUES (1, 'x', 1, 0, 0)")
    with pytest.raises(StoreError):
        store.lookup(OTHER, EXP, [])
    with pytest.raises(StoreError):
        store.revoke(OTHER, EXP)


@pytest.mark.parametrize(
    "damage", ["DROP TABLE tokens", "DROP TABLE state", "DELETE FROM state", "UPDATE state SET horizon = 'x'"]
)
def test_a_list_with_parts_missing_refuses(store: SQLiteStore, path: Path, damage: str) -> None:
    """For example by a person."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(damage)
    for call in (store.ping, lambda: store.lookup(OTHER, EXP, [])):
        with pytest.raises(StoreError):
            call()


def test_a_link_to_the_file_is_followed(store: SQLiteStore, path: Path) -> None:
    """SQLite keeps its side files beside the target."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    with closing(SQLiteStore(link)) as linked:
        assert linked.lookup(JTI, EXP, []).revoked


def test_a_replaced_file_refuses(store: SQLiteStore, path: Path) -> None:
    """A list restored from yesterday's backup while the service runs is another list."""
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)
    refuses_everything(store)


def test_a_file_put_back_answers_again(store: SQLiteStore, path: Path) -> None:
    """It is the same file, by inode, and nothing was lost."""
    path.rename(path.with_name("away"))
    refuses_everything(store)
    path.with_name("away").rename(path)
    assert store.lookup(JTI, EXP, []).revoked


@pytest.mark.parametrize("size", [0, 100, 4096, 8192])
def test_a_truncated_file_refuses(store: SQLiteStore, path: Path, size: int) -> None:
    """Readiness and the next start notice it; no look-up calls a revoked token valid."""
    store._opened.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, size)
    with pytest.raises(StoreError):
        store.ping()
    with suppress(StoreError):
        assert store.lookup(JTI, EXP, []).revoked
    with pytest.raises(StoreError):
        SQLiteStore(path).close()


def test_a_damaged_file_refuses(store: SQLiteStore, path: Path) -> None:
    """Pages overwritten with garbage behind the header."""
    store._opened.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))
    with pytest.raises(StoreError):
        store.ping()
    with pytest.raises(StoreError):
        SQLiteStore(path).close()


@pytest.mark.parametrize("content", [b"", b"not a database", b"\x00" * 8192])
def test_a_file_that_is_no_list_is_not_taken_for_an_empty_one(path: Path, content: bytes) -> None:
    """A full disk, or a mistake, may leave an empty file."""
    path.write_bytes(content)
    with pytest.raises(StoreError):
        SQLiteStore(path)
    assert path.read_bytes() == content


def test_another_database_is_not_touched(path: Path) -> None:
    """DATABASE_URL may point at an application's own data."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE tokens (x)")
    with pytest.raises(StoreError, match="not a list"):
        SQLiteStore(path)


@pytest.mark.parametrize("version", [1, 2, 6])
def test_a_list_of_another_version_is_refused(store: SQLiteStore, path: Path, version: int) -> None:
    """It may hold rows that this version would ignore, or lack what this version writes."""
    store._opened.writer.execute(f"PRAGMA user_version = {version}")
    store.close()
    with pytest.raises(StoreError, match="not a list this version can read"):
        SQLiteStore(path)


def test_a_full_disk_at_the_start_leaves_nothing_behind(path: Path) -> None:
    """No half of a list, and no side files."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(StoreError):
            SQLiteStore(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    assert not list(path.parent.iterdir())


def test_a_locked_list_refuses_changes_and_still_answers(store: SQLiteStore, path: Path) -> None:
    """In WAL mode a writer blocks only other writers. Afterwards everything is as before."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            store.revoke(OTHER, EXP)
        with pytest.raises(StoreError, match="locked"):
            store.ping()
        assert store.lookup(JTI, EXP, []).revoked
        other.execute("ROLLBACK")
    assert not store.lookup(OTHER, EXP, []).revoked
    store.revoke(OTHER, EXP)
    store.ping()


def test_a_full_disk_refuses_changes_and_loses_nothing(store: SQLiteStore, path: Path) -> None:
    """Each change is either there afterwards or raised an error. Once there is room again, changes go on."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    done = 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size + 50_000, hard))
    try:
        with pytest.raises(StoreError):  # noqa: PT012 - which call fails is not known
            for number in range(1000):
                store.revoke(f"{number:022d}", EXP)
                done += 1
        assert 0 < done < 1000
        assert store.lookup(JTI, EXP, []).revoked
        with pytest.raises(StoreError):
            store.ping()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    assert [store.lookup(f"{number:022d}", EXP, []).revoked for number in range(done + 1)] == [
        True
    ] * done + [False]
    store.revoke(OTHER, EXP)
    store.close()
    with closing(SQLiteStore(path)) as again:
        assert again.lookup("0" * 22, EXP, []).revoked
        assert again.count() == done + 2


READ_ONLY = """
import os, sys
from signer.errors import StoreError
from signer.stores.sqlite.store import SQLiteStore
if os.geteuid() == 0:  # to root nothing is read-only
    os.setuid(65534)
try:
    SQLiteStore(sys.argv[1])
except StoreError as error:
    print("refused:", error)
"""


def test_a_list_that_cannot_be_written_stops_the_start() -> None:
    """A service that cannot revoke must not come up as if it could."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.db"
        SQLiteStore(path).close()
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        try:
            tried = subprocess.run(
                [sys.executable, "-c", READ_ONLY, str(path)],
                env=environment(),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        finally:
            Path(folder).chmod(0o755)
    assert tried.stdout.startswith("refused:"), tried.stdout + tried.stderr


REVOKER = """
import os, signal, sys
from signer.stores.sqlite.store import SQLiteStore
store = SQLiteStore(sys.argv[1])
for number in range(20):
    store.revoke(f"{number:022d}", 1_800_000_000)
os.kill(os.getpid(), signal.SIGKILL)
"""
INHERITOR = """
import os, subprocess, sys
from signer.stores.sqlite.store import SQLiteStore
path, way, revoker = sys.argv[1:]
store = SQLiteStore(path)
store.revoke("a" * 22, 1_800_000_000)
read, write = os.pipe()
if not (child := os.fork()):
    os.close(write)
    os.read(read, 1)
    if way == "close":
        store.close()
    sys.exit()
store.close()
subprocess.run([sys.executable, "-c", revoker, path])
os.write(write, b"x")
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("way", ["close", "exit"])
def test_a_child_of_a_fork_takes_no_revocations_with_it(path: Path, way: str) -> None:
    """SQLite would write back what it had read before the fork, and remove the -wal of those that wrote since
    (sqlite.org/howtocorrupt.html, section 2.6)."""
    program = [sys.executable, "-c", INHERITOR, str(path), way, REVOKER]
    subprocess.run(program, env=environment(), check=True, timeout=HANG)
    with closing(SQLiteStore(path)) as store:
        assert all(store.lookup(f"{number:022d}", 1_800_000_000, ()).revoked for number in range(20))
