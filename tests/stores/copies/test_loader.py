"""The index of a list in SQLite: that it is current, and what happens when it cannot be."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from weakref import ref

import pytest
from support.clock import eventually
from support.service import environment

from signer.errors import StoreError
from signer.policy import TRUST
from signer.stores import newest
from signer.stores.contract import Entry, Row
from signer.stores.copies import loader
from signer.stores.copies.feed import part_after
from signer.stores.names import by_subject, row
from signer.stores.sqlite import trust, writer
from signer.stores.sqlite.bell import SIZE
from signer.stores.sqlite.store import SQLiteStore
from signer.tokens.claims import Claims

EXP = 1_900_000_000


def claims(number: int, sub: str | None = None) -> Claims:
    return Claims(jti=f"{number:022}", exp=EXP, purpose="access", sub=sub)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path)) as opened:
        assert opened.view.is_clear(claims(0), EXP)
        yield opened


def wait_until_clear(store: SQLiteStore, of: Claims) -> None:
    """A long list is read in a thread."""
    eventually(lambda: store.view.is_clear(of, EXP), 60)


def fill(path: Path, count: int, first: int = 1) -> None:
    """With rows that are not in the log, as in a list that is far ahead."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        rows = ((EXP, row(claims(number)), 1, 0, 0) for number in range(first, first + count))
        connection.executemany("INSERT INTO tokens VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("UPDATE state SET changes = changes + ?", (count,))
        connection.execute("COMMIT")


def test_it_asks_the_list_nothing_while_nobody_changes_it(store: SQLiteStore) -> None:
    """Ten thousand tokens take a few statements: one each tenth of a second."""
    statements: list[str] = []
    store._opened.reader.set_trace_callback(statements.append)
    started = time.monotonic()
    assert all(store.view.is_clear(claims(number), EXP) for number in range(10_000))
    assert len(statements) <= 4 * (2 + (time.monotonic() - started) / TRUST)


def test_of_a_change_it_reads_that_alone(store: SQLiteStore) -> None:
    """And it still knows all other rows."""
    for number in range(1, 50):
        store.revoke(row(claims(number)), EXP)
        assert not store.view.is_clear(claims(number), EXP)
        assert store.view.is_clear(claims(number + 1), EXP)
    store.advance(by_subject("alice"), 1, EXP)
    assert not store.view.is_clear(claims(99, "alice"), EXP)
    assert store.view.is_clear(claims(99, "bob"), EXP)
    assert not any(store.view.is_clear(claims(number), EXP) for number in range(1, 50))


def test_a_long_list_is_read_by_a_thread_in_small_steps(path: Path) -> None:
    """Until then every token is looked up in the list itself."""
    SQLiteStore(path).close()
    fill(path, 3 * trust.STEP + 1)
    with closing(SQLiteStore(path)) as store:
        store.advance(by_subject("alice"), 1, EXP)
        assert not store.view.is_clear(claims(0), EXP)
        assert store.lookup(row(claims(1)), EXP, []).revoked
        wait_until_clear(store, claims(0))
        assert not any(
            store.view.is_clear(claims(number), EXP) for number in (1, trust.STEP, 3 * trust.STEP + 1)
        )
        assert not store.view.is_clear(claims(0, "alice"), EXP)


def test_what_changes_while_it_is_read_is_not_overlooked(path: Path) -> None:
    """A row that is added before the place that it has reached."""
    SQLiteStore(path).close()
    fill(path, 20 * trust.STEP, first=1000)
    with closing(SQLiteStore(path)) as store, closing(SQLiteStore(path)) as other:
        number = 0
        while not store.view.is_clear(claims(0), EXP):
            number += 1
            other.revoke(row(claims(number)), EXP)
        assert number > 1
        assert not any(store.view.is_clear(claims(known), EXP) for known in range(1, number + 1))


def test_who_is_too_far_behind_reads_the_list_anew(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log forgets old changes."""
    for module in (writer, newest):
        monkeypatch.setattr(module, "LOG_SIZE", 300)
    with closing(SQLiteStore(path)) as other, other.together():
        for number in range(1, 1000):
            other.revoke(row(claims(number)), EXP)
    (logged,) = store._opened.reader.execute("SELECT count(*) FROM log").fetchone()
    assert 300 <= logged < 600
    wait_until_clear(store, claims(0))
    assert not any(store.view.is_clear(claims(number), EXP) for number in range(1, 1000))


def test_a_list_too_long_for_memory_is_looked_up(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read again after some time, in which it may have been purged."""
    monkeypatch.setattr(loader, "MAX_ROWS", 500)
    with closing(SQLiteStore(path)) as other, other.together():
        for number in range(1, 600):
            other.revoke(row(claims(number)), EXP if number > 400 else 1000)

    def rests() -> bool:
        assert not store.view.is_clear(claims(0), EXP)
        return store._index.loader.is_resting

    eventually(rests)
    assert store.lookup(row(claims(500)), EXP, []).revoked
    while store.purge(2000):
        pass
    monkeypatch.setattr(store._index.loader, "_rests_until", 0.0)
    wait_until_clear(store, claims(0))
    assert not store.view.is_clear(claims(500), EXP)
    assert len(store._index.loader.copy) == 199


def test_of_a_list_too_long_for_memory_nothing_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its rows are counted first, no further than that number."""
    SQLiteStore(path).close()
    fill(path, 5 * trust.STEP)
    added: list[Row] = []
    monkeypatch.setattr(trust, "MAX_ROWS", 2 * trust.STEP)
    monkeypatch.setattr(loader.Loader, "_load", lambda *_: added.append(_))
    with closing(SQLiteStore(path)) as store:
        store.view.is_clear(claims(0), EXP)
        eventually(lambda: store._index.loader.is_resting)
        assert len(added) == 1  # the first step, which most lists do not go beyond
        assert store.lookup(row(claims(1)), EXP, []).revoked
        assert not store.view.is_clear(claims(0), EXP)


def test_an_index_that_is_given_up_is_forgotten(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part by part, because freeing a million ids at once delays the whole process."""
    monkeypatch.setattr(loader, "MAX_ROWS", 5000)
    with closing(SQLiteStore(path)) as other, other.together():
        for number in range(1, 4900):
            other.revoke(row(claims(number)), EXP)
    wait_until_clear(store, claims(0))
    given_up = [ref(part) for part in store._index.loader.copy.parts if isinstance(part, set)]
    with closing(SQLiteStore(path)) as other, other.together():
        for number in range(4900, 5100):
            other.revoke(row(claims(number)), EXP)
    eventually(lambda: not store.view.is_clear(claims(0), EXP) and store._index.loader.is_resting)
    eventually(lambda: not any(part() for part in given_up))


def test_rows_that_were_purged_leave_when_there_is_no_more_room(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not earlier, and without a pause."""
    monkeypatch.setattr(loader, "MAX_ROWS", 500)
    for lot in range(4):
        with store.together():
            for number in range(200):
                store.revoke(row(claims(1000 * lot + number)), 1000 + lot)
        store.purge(1001 + lot)
        wait_until_clear(store, claims(99_999))
    assert len(store._index.loader.copy) <= 500
    assert not store._index.loader.is_resting


def test_a_change_by_another_program_is_seen_soon(store: SQLiteStore, path: Path) -> None:
    """Such a change rings no bell, for example one made in SQLite's shell."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO tokens VALUES (?, ?, 1, 0, 0)", (EXP, row(claims(7))))
        connection.execute("INSERT INTO log SELECT changes + 1, 7, ?, ?, 0 FROM state", (row(claims(7)), EXP))
        connection.execute("UPDATE state SET changes = changes + 1, mark = 7")
    time.sleep(2 * TRUST)
    assert not store.view.is_clear(claims(7), EXP)


REVOKE = """
import sys, signer.stores.sqlite.store as sqlite
from signer.tokens.claims import Claims
from signer.stores.names import row
store = sqlite.SQLiteStore(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    store.revoke(row(Claims(jti=line.strip(), exp=1_900_000_000, purpose="access")), 1_900_000_000)
    print("done", flush=True)
"""
DIE_BETWEEN = REVOKE.replace(
    'print("ready"',
    """import os, signal
store._opened.bell.ring = lambda changes: os.kill(os.getpid(), signal.SIGKILL)
print(\"ready\"""",
)


@pytest.mark.slow
def test_no_other_process_accepts_what_one_was_told_is_revoked(store: SQLiteStore, path: Path) -> None:
    """Two thousand revocations, each checked here at the moment at which it is acknowledged there."""
    with subprocess.Popen(
        [sys.executable, "-c", REVOKE, str(path)], env=environment(), text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "ready\n"
        for number in range(1, 2001):
            assert store.view.is_clear(claims(number), EXP)
            other.stdin.write(f"{number:022}\n")
            assert other.stdout.readline() == "done\n"
            assert not store.view.is_clear(claims(number), EXP), number


@contextmanager
def about_to_die(path: Path, number: int) -> Iterator[Callable[[], None]]:
    """A process that has the list open. When called, it revokes a token and is killed between commit and
    ring."""
    with subprocess.Popen(
        [sys.executable, "-c", DIE_BETWEEN, str(path)], env=environment(), text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdin
        assert other.stdout
        stdin, stdout = other.stdin, other.stdout
        assert stdout.readline() == "ready\n"

        def die() -> None:
            stdin.write(f"{number:022}\n")
            assert stdout.readline() == ""
            assert other.wait(60) == -signal.SIGKILL

        yield die


def test_a_writer_killed_before_it_rang_is_noticed(store: SQLiteStore, path: Path) -> None:
    """Its change was not acknowledged, but it is there. It counts from the next check of the files on."""
    with about_to_die(path, 5) as die:
        die()
    time.sleep(2 * TRUST)
    assert not store.view.is_clear(claims(5), EXP)


def looked_up_together(store: SQLiteStore) -> Entry:
    with store.together():
        return store.lookup(row(claims(5)), EXP, [])


#: Each tells its caller something of the list.
READS: dict[str, Callable[[SQLiteStore], object]] = {
    "look-up": lambda store: store.lookup(row(claims(5)), EXP, []),
    "look-up among changes": looked_up_together,
    "use": lambda store: store.use(row(claims(5)), EXP, 1),
    "rotation": lambda store: store.rotate(row(claims(5)), EXP, 1),
    "index": lambda store: store.view.is_clear(claims(5), EXP),
    "part for a copy": part_after,
    "ping": SQLiteStore.ping,
}


@pytest.mark.parametrize("reads", READS)
def test_who_reads_what_a_killed_writer_left_tells_everybody(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch, reads: str
) -> None:
    """Before it answers. If one process calls a token used, no other calls it valid, not even for a
    moment."""
    monkeypatch.setattr(trust, "TRUST", 3600.0)  # nothing else would tell it
    with closing(SQLiteStore(path)) as reader, about_to_die(path, 5) as die:
        assert store.view.is_clear(claims(6), EXP)
        die()
        assert store.view.is_clear(claims(5), EXP)  # the hole, which nobody has seen yet
        READS[reads](reader)
        assert not store.view.is_clear(claims(5), EXP)


def test_without_its_bell_a_list_is_not_changed(store: SQLiteStore, path: Path) -> None:
    """Other processes would not hear of the change."""
    Path(f"{path}-bell").unlink()
    with pytest.raises(StoreError):
        store.revoke(row(claims(1)), EXP)


def test_a_bell_that_was_lost_is_made_again_at_the_start(path: Path) -> None:
    """As after a list was restored from a backup."""
    SQLiteStore(path).close()
    Path(f"{path}-bell").unlink()
    with closing(SQLiteStore(path)) as store, closing(SQLiteStore(path)) as other:
        wait_until_clear(store, claims(1))
        other.revoke(row(claims(1)), EXP)
        assert not store.view.is_clear(claims(1), EXP)


#: What makes a list one of that version, and a statement of who still runs with it.
OLDER = {
    3: (
        "DROP TABLE log; ALTER TABLE state DROP COLUMN mark; ALTER TABLE state RENAME TO marks;",
        "UPDATE marks SET changes = changes + 1",
    ),
    4: (
        "DROP TABLE log; ALTER TABLE state DROP COLUMN mark;"
        " CREATE TABLE log (number INTEGER PRIMARY KEY, name TEXT NOT NULL, generation INTEGER NOT NULL);",
        "INSERT INTO log VALUES (1, 'access/x', 0)",
    ),
}


@pytest.mark.parametrize("version", OLDER)
def test_a_list_of_an_older_version_gets_its_log(path: Path, version: int) -> None:
    """With everything in it. A process that still runs the older version cannot change it any more."""
    with closing(SQLiteStore(path)) as store:
        store.revoke(row(claims(1)), EXP)
        store.advance(by_subject("alice"), 1, EXP)
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"{OLDER[version][0]} PRAGMA user_version = {version};")
    with closing(SQLiteStore(path)) as store, closing(SQLiteStore(path)) as other:
        wait_until_clear(store, claims(2))
        assert not store.view.is_clear(claims(1), EXP)
        assert not store.view.is_clear(claims(2, "alice"), EXP)
        other.revoke(row(claims(2)), EXP)
        assert not store.view.is_clear(claims(2), EXP)
    with closing(sqlite3.connect(path)) as old, pytest.raises(sqlite3.OperationalError):
        old.execute(OLDER[version][1])


def counted(store: SQLiteStore) -> list[int]:
    """The numbers for which it rings its bell from now on."""
    rung: list[int] = []
    ring = store._opened.bell.ring

    def ring_and_note(changes: int) -> None:
        rung.append(changes)
        ring(changes)

    store._opened.bell.ring = ring_and_note  # type: ignore[method-assign]
    return rung


def test_changes_made_together_are_rung_once(store: SQLiteStore) -> None:
    """One commit, one ring, and every change is known."""
    rung = counted(store)
    with store.together():
        for number in range(1, 600):
            store.revoke(row(claims(number)), EXP)
        assert not rung
    assert len(rung) == 1
    assert not any(store.view.is_clear(claims(number), EXP) for number in range(1, 600))


def test_reading_rings_no_bell(store: SQLiteStore, path: Path) -> None:
    """One commit, one ring, however many readers and processes there are."""
    with closing(SQLiteStore(path)) as other:
        rung = [*map(counted, (store, other))]
        for number in range(1, 200):
            store.use(row(claims(number)), EXP, 1)
            assert other.use(row(claims(number)), EXP, 1) is None
            for reader in (store, other):
                assert reader.lookup(row(claims(number)), EXP, []).uses == 1
                assert not reader.view.is_clear(claims(number), EXP)
                reader.ping()
    assert [*map(len, rung)] == [199 * 2, 199]  # each ping is a change


RIVAL = """
import sys
from signer.stores.sqlite.store import SQLiteStore
store = SQLiteStore(sys.argv[1], timeout=100)
ring, rings = store._opened.bell.ring, []
store._opened.bell.ring = lambda changes: (rings.append(changes), ring(changes))
print("ready", flush=True)
sys.stdin.readline()
for number in range(300):
    store.use(f"access/{sys.argv[2]}{number}", 1_900_000_000, 1)
    store.lookup(f"access/{number % 4}{number}", 1_900_000_000, [])
print(len(rings), flush=True)
"""


@pytest.mark.slow
def test_rivals_ring_hardly_more_often_than_they_commit(store: SQLiteStore, path: Path) -> None:
    """Four processes, each of which may find another between commit and ring. It rings in its place, and the
    other one need not ring any more."""
    with ExitStack() as running:
        rivals = [
            running.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RIVAL, str(path), str(number)], env=environment(), text=True,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                )
            )
            for number in range(4)
        ]  # fmt: skip
        for rival in rivals:
            assert rival.stdout
            assert rival.stdout.readline() == "ready\n"
        before = commits(store)
        for rival in rivals:
            assert rival.stdin
            rival.stdin.write("\n")
            rival.stdin.flush()
        rung = [int(rival.communicate(timeout=120)[0]) for rival in rivals]
    assert commits(store) - before == 4 * 300
    assert 4 * 300 <= sum(rung) <= 4 * 330


def commits(store: SQLiteStore) -> int:
    with store.snapshot() as snapshot:
        return snapshot.point.number


@pytest.mark.parametrize("size", [0, 1, 8, 15])
def test_a_bell_cut_short_is_mended_by_who_opens_the_list(path: Path, size: int) -> None:
    """By a crash of the machine, or left by a version whose bell had eight bytes."""
    SQLiteStore(path).close()
    bell = Path(f"{path}-bell")
    os.truncate(bell, size)
    with closing(SQLiteStore(path)) as store, closing(SQLiteStore(path)) as other:
        assert bell.stat().st_size == SIZE
        assert store.view.is_clear(claims(1), EXP)
        other.revoke(row(claims(1)), EXP)
        assert not store.view.is_clear(claims(1), EXP)


CUT_SHORT = """
import os, sys
from pathlib import Path
from weakref import ref
from signer.tokens.claims import Claims
from signer.stores.names import row
from signer.stores.sqlite.store import SQLiteStore
path, size = Path(sys.argv[1]), int(sys.argv[2])
bell = Path(f"{path}-bell")
one, other = SQLiteStore(path), SQLiteStore(path)
for number in range(100):
    claims = Claims(jti=f"{number:022}", exp=1_900_000_000, purpose="access")
    assert one.view.is_clear(claims, claims.exp)
    if number % 2:
        other.revoke(row(claims), claims.exp)
        os.truncate(bell, size)  # before one has heard of it
    else:
        os.truncate(bell, size)
        one.view.is_clear(claims, claims.exp)
        os.truncate(bell, size)
        other.revoke(row(claims), claims.exp)
    assert not one.view.is_clear(claims, claims.exp)
    one.view.is_clear(claims, claims.exp)
    assert bell.stat().st_size == 16
"""


@pytest.mark.parametrize("size", [0, 8])
def test_a_bell_cut_short_under_those_who_listen_ends_nobody(path: Path, size: int) -> None:
    """With a memory mapping, it would (SIGBUS). A process that finds it too short asks the list, and repairs
    it."""
    done = subprocess.run(
        [sys.executable, "-c", CUT_SHORT, str(path), str(size)],
        env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr[-500:]) == (0, "Made a new, empty list: " + f"{path}\n")


def test_a_bell_that_cannot_be_mended_is_answered_by_nobody(store: SQLiteStore, path: Path) -> None:
    """For example on a file system that became read-only. Processes that hear of no change must not
    disagree."""
    with about_to_die(path, 5) as die:
        die()
    store._opened.bell.close()
    with Path(f"{path}-bell").open("rb", buffering=0) as store._opened.bell._file:
        with pytest.raises(StoreError):
            store.lookup(row(claims(5)), EXP, [])
        with pytest.raises(StoreError):
            store.view.is_clear(claims(5), EXP)


def test_an_older_version_rings_and_hears_the_bell(store: SQLiteStore, path: Path) -> None:
    """While workers are replaced both run on one list. The older one writes and compares eight random
    bytes."""
    bell = Path(f"{path}-bell")
    heard = bell.read_bytes()[:8]
    store.revoke(row(claims(1)), EXP)
    assert bell.read_bytes()[:8] != heard

    def ring(changes: int) -> None:
        with bell.open("r+b", buffering=0) as file:
            file.write(os.urandom(8))

    with closing(SQLiteStore(path)) as other:
        other._opened.bell.ring = ring  # type: ignore[method-assign]
        assert store.view.is_clear(claims(2), EXP)
        other.revoke(row(claims(2)), EXP)
        assert not store.view.is_clear(claims(2), EXP)


@pytest.mark.parametrize("content", [bytes(16), b"\xff" * 16, b"\x7f" * 40])
def test_a_bell_that_somebody_writes_to_hides_no_change(
    store: SQLiteStore, path: Path, content: bytes
) -> None:
    """However often, and at whatever moment, the same content is written."""
    bell = Path(f"{path}-bell")
    with closing(SQLiteStore(path)) as other:
        for number in range(1, 20):
            for _ in range(3):
                bell.write_bytes(content)
                store.view.is_clear(claims(0), EXP)
            with other.together():
                other.revoke(row(claims(number)), EXP)
                bell.write_bytes(content)
                store.view.is_clear(claims(number), EXP)
            assert not store.view.is_clear(claims(number), EXP)
            bell.write_bytes(content)
            assert not store.view.is_clear(claims(number), EXP)


def test_a_bell_of_another_history_is_set_right(path: Path) -> None:
    """A backup with fewer changes was put back, and the bell left in its place: who comes after must be
    heard."""
    with closing(SQLiteStore(path)) as store:
        store._opened.bell.ring(1_000_000)
    with closing(SQLiteStore(path)) as store, closing(SQLiteStore(path)) as other:
        assert store._opened.bell.rung_for() == commits(store)
        assert store.view.is_clear(claims(1), EXP)
        other.revoke(row(claims(1)), EXP)
        assert not store.view.is_clear(claims(1), EXP)
