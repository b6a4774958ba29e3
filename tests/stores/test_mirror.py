"""The index of a SQLite list in memory: that it is current, and what it does where it cannot be."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from service import environment

from signer.claims import Claims
from signer.errors import StoreError
from signer.names import by_subject, row
from signer.stores import mirror, newest, sqlite
from signer.stores.sqlite import TRUST, SQLiteStore

EXP = 1_900_000_000


def claims(number: int, sub: str | None = None) -> Claims:
    return Claims(jti=f"{number:022}", exp=EXP, purpose="access", sub=sub)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "list.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(path)) as opened:
        assert opened.is_clear(claims(0), EXP)
        yield opened


def calls_until_clear(store: SQLiteStore, of: Claims) -> int:
    """How often it must be asked until it is sure."""
    for calls in range(10_000):
        if store.is_clear(of, EXP):
            return calls
    raise AssertionError


def fill(path: Path, count: int, first: int = 1) -> None:
    """With rows that are not in the log, as of a list that is far ahead."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        rows = ((EXP, row(claims(number)), 1, 0, 0) for number in range(first, first + count))
        connection.executemany("INSERT INTO tokens VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("UPDATE state SET changes = changes + ?", (count,))
        connection.execute("COMMIT")


def test_it_asks_the_list_nothing_while_nobody_changes_it(store: SQLiteStore) -> None:
    """Ten thousand tokens, and a handful of statements: one in a tenth of a second."""
    statements: list[str] = []
    store._reader.set_trace_callback(statements.append)
    started = time.monotonic()
    assert all(store.is_clear(claims(number), EXP) for number in range(10_000))
    assert len(statements) <= 4 * (2 + (time.monotonic() - started) / TRUST)


def test_of_a_change_it_reads_that_alone(store: SQLiteStore) -> None:
    """And goes on knowing all the rest."""
    for number in range(1, 50):
        store.revoke(row(claims(number)), EXP)
        assert not store.is_clear(claims(number), EXP)
        assert store.is_clear(claims(number + 1), EXP)
    store.advance(by_subject("alice"), 1, EXP)
    assert not store.is_clear(claims(99, "alice"), EXP)
    assert store.is_clear(claims(99, "bob"), EXP)
    assert not any(store.is_clear(claims(number), EXP) for number in range(1, 50))


def test_a_long_list_is_read_in_small_steps(path: Path) -> None:
    """Meanwhile every token is looked up in the list itself."""
    SQLiteStore(path).close()
    fill(path, 3 * mirror.STEP + 1)
    with closing(SQLiteStore(path)) as store:
        store.advance(by_subject("alice"), 1, EXP)
        assert 3 <= calls_until_clear(store, claims(0)) <= 5
        assert not any(
            store.is_clear(claims(number), EXP) for number in (1, mirror.STEP, 3 * mirror.STEP + 1)
        )
        assert not store.is_clear(claims(0, "alice"), EXP)


def test_what_changes_while_it_is_read_is_not_overlooked(path: Path) -> None:
    """A row that comes in behind the place it has reached."""
    SQLiteStore(path).close()
    fill(path, 5 * mirror.STEP, first=1000)
    with closing(SQLiteStore(path)) as store, closing(SQLiteStore(path)) as other:
        for number in range(3):
            assert not store.is_clear(claims(0), EXP)
            other.revoke(row(claims(number + 1)), EXP)
        calls_until_clear(store, claims(0))
        assert not any(store.is_clear(claims(number + 1), EXP) for number in range(3))


def test_who_is_too_far_behind_reads_the_list_anew(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log forgets what is old."""
    for module in (sqlite, newest):
        monkeypatch.setattr(module, "LOG_SIZE", 300)
    with closing(SQLiteStore(path)) as other, other.together():
        for number in range(1, 1000):
            other.revoke(row(claims(number)), EXP)
    (logged,) = store._reader.execute("SELECT count(*) FROM log").fetchone()
    assert 300 <= logged < 600
    calls_until_clear(store, claims(0))
    assert not any(store.is_clear(claims(number), EXP) for number in range(1, 1000))


def test_a_list_too_long_for_memory_is_looked_up(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And read again when there has been time to purge it."""
    monkeypatch.setattr(mirror, "MAX_ROWS", 500)
    with closing(SQLiteStore(path)) as other, other.together():
        for number in range(1, 600):
            other.revoke(row(claims(number)), EXP if number > 400 else 1000)
    assert not any(store.is_clear(claims(0), EXP) for _ in range(20))
    assert store._mirror.is_resting
    assert store.lookup(row(claims(500)), EXP, []).revoked
    while store.purge(2000):
        pass
    monkeypatch.setattr(store._mirror, "_rests_until", 0.0)
    calls_until_clear(store, claims(0))
    assert not store.is_clear(claims(500), EXP)
    assert len(store._mirror.copy) == 199


def test_rows_that_were_purged_leave_when_there_is_no_more_room(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before, and without a rest."""
    monkeypatch.setattr(mirror, "MAX_ROWS", 500)
    for lot in range(4):
        with store.together():
            for number in range(200):
                store.revoke(row(claims(1000 * lot + number)), 1000 + lot)
        store.purge(1001 + lot)
        calls_until_clear(store, claims(99_999))
    assert len(store._mirror.copy) <= 500
    assert not store._mirror.is_resting


def test_a_change_by_another_program_is_seen_soon(store: SQLiteStore, path: Path) -> None:
    """Which rings no bell: by hand, in SQLite's own shell."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO tokens VALUES (?, ?, 1, 0, 0)", (EXP, row(claims(7))))
        connection.execute("INSERT INTO log SELECT changes + 1, 7, ?, ?, 0 FROM state", (row(claims(7)), EXP))
        connection.execute("UPDATE state SET changes = changes + 1, mark = 7")
    time.sleep(2 * TRUST)
    assert not store.is_clear(claims(7), EXP)


REVOKE = """
import sys, signer.stores.sqlite as sqlite
from signer.claims import Claims
from signer.names import row
store = sqlite.SQLiteStore(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    store.revoke(row(Claims(jti=line.strip(), exp=1_900_000_000, purpose="access")), 1_900_000_000)
    print("done", flush=True)
"""
DIE_BETWEEN = REVOKE.replace(
    'print("ready"',
    """import os, signal
class Bell:
    def ring(self): os.kill(os.getpid(), signal.SIGKILL)
store._bell = Bell()
print(\"ready\"""",
)


def test_no_other_process_accepts_what_one_was_told_is_revoked(store: SQLiteStore, path: Path) -> None:
    """Two thousand revocations, each looked at here the moment it is acknowledged there."""
    with subprocess.Popen(
        [sys.executable, "-c", REVOKE, str(path)], env=environment(), text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "ready\n"
        for number in range(1, 2001):
            assert store.is_clear(claims(number), EXP)
            other.stdin.write(f"{number:022}\n")
            assert other.stdout.readline() == "done\n"
            assert not store.is_clear(claims(number), EXP), number


def test_a_writer_killed_before_it_rang_is_noticed(store: SQLiteStore, path: Path) -> None:
    """Nobody was told of its change, which is there: it counts from the next look at the files on."""
    with subprocess.Popen(
        [sys.executable, "-c", DIE_BETWEEN, str(path)], env=environment(), text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as other:  # fmt: skip
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "ready\n"
        assert store.is_clear(claims(5), EXP)
        other.stdin.write(f"{5:022}\n")
        assert other.stdout.readline() == ""
        assert other.wait(10) == -signal.SIGKILL
    assert store.lookup(row(claims(5)), EXP, []).revoked
    time.sleep(2 * TRUST)
    assert not store.is_clear(claims(5), EXP)


def test_without_its_bell_a_list_is_not_changed(store: SQLiteStore, path: Path) -> None:
    """Other processes would not hear of it."""
    Path(f"{path}-bell").unlink()
    with pytest.raises(StoreError):
        store.revoke(row(claims(1)), EXP)


def test_a_bell_that_was_lost_is_made_again_at_the_start(path: Path) -> None:
    """As after a list was put back from a backup."""
    SQLiteStore(path).close()
    Path(f"{path}-bell").unlink()
    with closing(SQLiteStore(path)) as store, closing(SQLiteStore(path)) as other:
        calls_until_clear(store, claims(1))
        other.revoke(row(claims(1)), EXP)
        assert not store.is_clear(claims(1), EXP)


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
    """With all that it holds; who still runs with that version can change it no more."""
    with closing(SQLiteStore(path)) as store:
        store.revoke(row(claims(1)), EXP)
        store.advance(by_subject("alice"), 1, EXP)
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"{OLDER[version][0]} PRAGMA user_version = {version};")
    with closing(SQLiteStore(path)) as store, closing(SQLiteStore(path)) as other:
        calls_until_clear(store, claims(2))
        assert not store.is_clear(claims(1), EXP)
        assert not store.is_clear(claims(2, "alice"), EXP)
        other.revoke(row(claims(2)), EXP)
        assert not store.is_clear(claims(2), EXP)
    with closing(sqlite3.connect(path)) as old, pytest.raises(sqlite3.OperationalError):
        old.execute(OLDER[version][1])


def test_a_change_of_several_threads_is_rung_once(store: SQLiteStore) -> None:
    """One commit, one ring, all of them known."""
    rung: list[int] = []
    ring = store._bell.ring

    def counted() -> None:
        rung.append(1)
        ring()

    store._bell.ring = counted  # type: ignore[method-assign]
    with store.together():
        for number in range(1, 600):
            store.revoke(row(claims(number)), EXP)
        assert not rung
    assert len(rung) == 1
    assert not any(store.is_clear(claims(number), EXP) for number in range(1, 600))
