"""The list in PostgreSQL fails closed, and in time, when its server, its network or other clients
misbehave."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from signal import SIGCONT, SIGSTOP
from typing import Any

import psycopg
import pytest
from support.clock import HANG
from support.postgres import PASSWORD, PgBouncer, Postgres, eventually, program
from support.service import environment, free_port

from signer import open_store
from signer.errors import ConfigurationError, StoreError
from signer.stores import Entry, newest
from signer.stores.contract import Point
from signer.stores.postgres import pool as postgres_pool
from signer.stores.postgres import statements as postgres_schema
from signer.stores.postgres import writer as module
from signer.stores.postgres.store import PostgresStore

JTI, OTHER = "a" * 22, "b" * 22
EXP = 1_800_000_000
TIMEOUT = 0.5


@pytest.fixture
def store(postgres_url: str) -> Iterator[PostgresStore]:
    with closing(PostgresStore(postgres_url)) as opened:
        opened.revoke(JTI, EXP)
        yield opened


@pytest.fixture(scope="module")
def mortal() -> Iterator[Postgres]:
    """A server that tests may stop and start again."""
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture
def on_mortal(mortal: Postgres) -> Iterator[PostgresStore]:
    mortal.sql("DROP SCHEMA IF EXISTS signer CASCADE")
    with closing(PostgresStore(mortal.url, timeout=TIMEOUT)) as opened:
        opened.revoke(JTI, EXP)
        yield opened


def calls(store: PostgresStore) -> list[Callable[[], object]]:
    return [
        lambda: store.lookup(OTHER, EXP, []),
        lambda: store.revoke(OTHER, EXP),
        lambda: store.use(OTHER, EXP, 1),
        lambda: store.rotate(OTHER, EXP, 1),
        lambda: store.advance("sub:a", 1, EXP),
        lambda: store.purge(1),
        lambda: store.snapshot().__enter__(),
        store.count,
        store.ping,
    ]


def refuses_everything(store: PostgresStore, match: str = "") -> None:
    for call in calls(store):
        with pytest.raises(StoreError, match=match):
            call()


def ask(connection: "psycopg.Connection[Any]", statement: str) -> Any:
    row = connection.execute(statement).fetchone()
    return row[0] if row else None


@contextmanager
def neighbour(url: str) -> Iterator["psycopg.Connection[Any]"]:
    """Another client of the same database."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def test_starters_at_once_make_one_list(postgres_url: str) -> None:
    """Eight processes start, and one of them makes the tables."""
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: PostgresStore(postgres_url), range(8)))
    stores[0].revoke(JTI, EXP)
    assert all(store.lookup(JTI, EXP, []).revoked for store in stores)
    for store in stores:
        store.close()


def test_a_later_version_is_refused(store: PostgresStore, postgres_url: str) -> None:
    """By processes that start, and by those that already run."""
    with neighbour(postgres_url) as other:
        other.execute("UPDATE signer.state SET version = 3")
    refuses_everything(store, "is of version 3")
    with pytest.raises(StoreError, match="is of version 3"):
        PostgresStore(postgres_url)


def make_older(server: "psycopg.Connection[Any]") -> None:
    """As the previous version left its tables."""
    server.execute("UPDATE signer.state SET version = 1")
    server.execute("DELETE FROM signer.tokens WHERE jti = ''")
    server.execute("DELETE FROM signer.groups WHERE name = ''")


def test_a_list_of_the_version_before_is_upgraded_once(store: PostgresStore, postgres_url: str) -> None:
    """By the first process that opens it. Programs of that version refuse it then, as this one refuses a
    later one."""
    store.advance("sub:a", 2_000_000_000_000, 1000)
    store.use(OTHER, EXP, 2)
    with neighbour(postgres_url) as other:
        make_older(other)
        refuses_everything(store, "is of version 1")
        with ThreadPoolExecutor(8) as pool:
            opened = list(pool.map(lambda _: PostgresStore(postgres_url), range(8)))
        assert ask(other, "SELECT version FROM signer.state") == 2
        assert opened[0].lookup(JTI, EXP, ["sub:a"]) == Entry(
            revoked=True, generation=2_000_000_000_000, last_generation=2_000_000_000_000
        )
        assert store.count() == 3
        for each in opened:
            each.close()


@pytest.mark.parametrize("table", ["tokens", "groups"])
def test_a_list_of_the_version_before_that_lost_rows_is_not_upgraded(
    store: PostgresStore, postgres_url: str, table: str
) -> None:
    """Its log shows it: every change that has not expired must be there. Purged rows need not."""
    store.advance("sub:a", 2_000_000_000_000, 1000)
    store.revoke(OTHER, 5)
    store.advance("sub:b", 3, 1)
    assert store.purge(100) == 1
    with neighbour(postgres_url) as other:
        make_older(other)
        PostgresStore(postgres_url).close()
        make_older(other)
        other.execute(f"TRUNCATE signer.{table}")
        for _ in range(2):
            with pytest.raises(StoreError, match="lost rows"):
                PostgresStore(postgres_url)
        assert ask(other, "SELECT version FROM signer.state") == 1


@pytest.mark.parametrize("how", ["TRUNCATE signer.{}", "DELETE FROM signer.{}"])
@pytest.mark.parametrize("table", ["tokens", "groups"])
def test_a_table_that_lost_its_rows_is_refused(
    store: PostgresStore, postgres_url: str, table: str, how: str
) -> None:
    """By processes that run and by those that start: a look-up would find nothing against any token."""
    store.advance("sub:a", 1, 1)
    with neighbour(postgres_url) as other:
        with store.snapshot() as snapshot:
            known = snapshot.point
        other.execute(how.format(table))
    for call in calls(store)[:-3] + calls(store)[-2:]:
        with pytest.raises(StoreError, match="lost rows, as by TRUNCATE"):
            call()
    with store.snapshot() as snapshot:
        for read in (lambda: snapshot.chunk(None, 10), lambda: snapshot.changes(known, 10)):
            with pytest.raises(StoreError, match="lost rows"):
                read()
    with pytest.raises(StoreError, match="lost rows"):
        PostgresStore(postgres_url)


def test_a_log_that_was_lost_makes_nothing_valid(store: PostgresStore, postgres_url: str) -> None:
    """A reader that is behind cannot tell its log from another list's. One that is up to date, or starts,
    knows everything from the tables."""
    with closing(PostgresStore(postgres_url)) as behind, neighbour(postgres_url) as other:
        with behind.snapshot() as snapshot:
            known = snapshot.point
        store.revoke(OTHER, EXP)
        other.execute("TRUNCATE signer.log")
        refuses_everything(behind, "went back to an older state")
        assert store.lookup(OTHER, EXP, []).revoked
        with closing(PostgresStore(postgres_url)) as restarted, restarted.snapshot() as snapshot:
            assert snapshot.changes(known, 10) is None
            assert {row.name for row in snapshot.chunk(None, 10).rows} == {JTI, OTHER}


def test_a_list_that_must_be_there_is_not_made(postgres_url: str) -> None:
    """A lost list must not come back empty."""
    with pytest.raises(StoreError, match="There is no list"):
        PostgresStore(postgres_url, create=False)
    PostgresStore(postgres_url).close()
    PostgresStore(postgres_url, create=False).close()


def test_a_role_without_the_right_to_create_can_use_it(store: PostgresStore, postgres: Postgres) -> None:
    """An administrator makes the tables; the role only needs to read and write them."""
    postgres.sql("DROP ROLE IF EXISTS app")
    postgres.sql(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
    postgres.sql("GRANT USAGE ON SCHEMA signer TO app")
    postgres.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA signer TO app")
    try:
        with closing(PostgresStore(postgres.url_of(postgres.port, user="app"))) as opened:
            assert opened.use(OTHER, EXP, 1) == 1
            assert opened.purge(1) == 0
            postgres.sql("REVOKE INSERT ON signer.tokens FROM app")
            with pytest.raises(StoreError, match="permission denied"):
                opened.revoke(OTHER, EXP)
    finally:
        postgres.sql("DROP OWNED BY app")
        postgres.sql("DROP ROLE app")


def test_a_server_that_hangs_is_refused_in_time(mortal: Postgres, on_mortal: PostgresStore) -> None:
    """Its connections stay up, new ones are accepted, and nothing answers. Afterwards everything works
    again."""
    mortal.signal(SIGSTOP)
    try:
        for call in calls(on_mortal):
            started = time.monotonic()
            with pytest.raises(StoreError):
                call()
            assert time.monotonic() - started < HANG
        with pytest.raises(StoreError):
            PostgresStore(mortal.url, timeout=TIMEOUT)
    finally:
        mortal.signal(SIGCONT)
    eventually(lambda: on_mortal.revoke(OTHER, EXP), StoreError)
    assert on_mortal.lookup(OTHER, EXP, []).revoked


def test_a_name_server_that_hangs_is_refused_in_time(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That wait cannot be interrupted; the connection that comes too late is closed."""
    connected: list[postgres_pool.Connection] = []
    connect = postgres_pool.Connection.connect

    def late(*args: Any, **kwargs: Any) -> postgres_pool.Connection:
        time.sleep(TIMEOUT)
        connected.append(connect(*args, **kwargs))
        return connected[0]

    monkeypatch.setattr(postgres_pool.Connection, "connect", late)
    started = time.monotonic()
    with pytest.raises(StoreError, match="no answer to the attempt to connect"):
        PostgresStore(postgres_url, timeout=TIMEOUT / 2)
    assert time.monotonic() - started < HANG
    eventually(lambda: _assert(connected[0].closed), AssertionError, IndexError)


def test_a_list_on_a_server_that_hangs_is_closed_in_time(mortal: Postgres, on_mortal: PostgresStore) -> None:
    """No caller waits until it is closed, or until the server ends its work."""
    on_mortal.wait_for_change(0)
    mortal.signal(SIGSTOP)
    try:
        with pytest.raises(StoreError):
            on_mortal.lookup(JTI, EXP, [])
        started = time.monotonic()
        on_mortal.close()
        assert time.monotonic() - started < HANG
    finally:
        mortal.signal(SIGCONT)


def test_it_works_again_by_itself_after_kill_9(mortal: Postgres, on_mortal: PostgresStore) -> None:
    """Acknowledged changes are there. While the server is away, every caller is refused at once."""
    mortal.kill()
    started = time.monotonic()
    refuses_everything(on_mortal, "cannot")
    assert time.monotonic() - started < HANG
    mortal.start()
    eventually(lambda: on_mortal.lookup(OTHER, EXP, []), StoreError)
    assert on_mortal.lookup(JTI, EXP, []).revoked
    on_mortal.revoke(OTHER, EXP)


@pytest.mark.slow
def test_a_server_that_was_restarted_fails_no_call(mortal: Postgres, on_mortal: PostgresStore) -> None:
    """Whether a read or a write comes first: nothing was sent on the broken connections."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: on_mortal.lookup(JTI, EXP, []), range(50)))
    for call in calls(on_mortal):
        mortal.stop()
        mortal.start()
        call()


def test_connections_that_are_ended_fail_no_call(store: PostgresStore, postgres_url: str) -> None:
    """An administrator ends all connections."""
    for call in calls(store):
        with neighbour(postgres_url) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        call()


def test_a_connection_that_is_lost_amid_changes_makes_none(store: PostgresStore, postgres_url: str) -> None:
    """They are not begun again, because the first changes are gone."""
    with pytest.raises(StoreError), store.together():  # noqa: PT012
        store.revoke(OTHER, EXP)
        with neighbour(postgres_url) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE state = 'idle in transaction'"
            )
        with suppress(StoreError):
            store.revoke("c", EXP)
    assert not store.lookup(OTHER, EXP, []).revoked
    assert store.count() == 1


def test_a_change_that_fails_undoes_those_before(store: PostgresStore) -> None:
    """The database would commit nothing, and report nothing."""
    with pytest.raises(StoreError, match=r"one has failed.*of range"), store.together():  # noqa: PT012
        store.revoke(OTHER, EXP)
        with pytest.raises(StoreError):
            store.revoke("c", 1 << 80)
    assert store.count() == 1


def test_together_cannot_be_nested(store: PostgresStore) -> None:
    """The end of the inner group would commit nothing."""
    with store.together(), pytest.raises(StoreError, match="already"), store.together():
        pass


def test_a_writer_that_does_not_let_go_stops_nobody_for_long(store: PostgresStore, postgres_url: str) -> None:
    """Readers go on, and writers are refused in time."""
    with closing(PostgresStore(postgres_url, timeout=TIMEOUT)) as hasty, neighbour(postgres_url) as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM signer.state FOR UPDATE")
        started = time.monotonic()
        with pytest.raises(StoreError, match="timeout"):
            hasty.revoke(OTHER, EXP)
        assert time.monotonic() - started < HANG
        assert hasty.lookup(JTI, EXP, []).revoked
        other.execute("ROLLBACK")
        hasty.revoke(OTHER, EXP)


def test_a_process_that_stops_amid_changes_loses_the_lock(store: PostgresStore, postgres_url: str) -> None:
    """The other processes would wait for it for as long as it lives."""
    with closing(PostgresStore(postgres_url, timeout=TIMEOUT)) as hasty:
        with pytest.raises(StoreError), hasty.together():  # noqa: PT012
            hasty.revoke(OTHER, EXP)
            store.revoke("c", EXP)
        assert hasty.count() == 2


def test_what_nobody_waits_for_is_cancelled(store: PostgresStore, postgres_url: str) -> None:
    """Look-ups that wait behind a table's maintenance leave nothing behind on the server."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with closing(PostgresStore(postgres_url, timeout=TIMEOUT)) as hasty, neighbour(postgres_url) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE signer.tokens")
        with pytest.raises(StoreError, match="in time"):
            hasty.lookup(JTI, EXP, [])

        def check() -> None:
            assert ask(other, waiting) == 0

        eventually(check, AssertionError)
        other.execute("ROLLBACK")
        assert hasty.lookup(JTI, EXP, []).revoked


def test_so_many_may_wait_for_a_connection_and_no_more(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call has the only connection. Those that may wait are refused after their time, the next one at
    once."""
    monkeypatch.setattr(postgres_pool, "_MAX_WAITING", 2)
    with (
        closing(PostgresStore(postgres_url, timeout=TIMEOUT, pool_size=1)) as small,
        ThreadPoolExecutor(2) as pool,
    ):
        with small.snapshot():
            waiting = [pool.submit(small.lookup, JTI, EXP, []) for _ in range(2)]
            time.sleep(TIMEOUT / 5)
            with pytest.raises(StoreError, match="Too many calls"):
                small.lookup(JTI, EXP, [])
            for call in waiting:
                with pytest.raises(StoreError, match="free in time"):
                    call.result(HANG)
        small.lookup(JTI, EXP, [])


@pytest.fixture(scope="module")
def pooler(postgres: Postgres) -> Iterator[PgBouncer]:
    server = PgBouncer(postgres)
    yield server
    server.remove()


def test_it_works_through_a_pooler(postgres_url: str, pooler: PgBouncer) -> None:
    """In transaction mode, in which two statements may reach two server processes. Eight threads of two
    processes share three connections, and exactly as many as the limit get a number."""
    with (
        closing(PostgresStore(pooler.url)) as one,
        closing(PostgresStore(pooler.url)) as two,
        ThreadPoolExecutor(8) as pool,
    ):
        numbers = list(pool.map(lambda n: (one, two)[n % 2].use(OTHER, EXP, 20), range(40)))
        assert sorted(number for number in numbers if number is not None) == list(range(1, 21))
        assert one.advance("sub:a", 1000, EXP) == 1000
        assert two.rotate(JTI, EXP, 100) == one.rotate(JTI, EXP, 101) == 100
        assert two.lookup(JTI, EXP, ["sub:a"]) == Entry(rotated_at=100, generation=1000, last_generation=1000)
        with suppress(ZeroDivisionError), one.together():
            one.revoke(JTI, EXP)
            raise ZeroDivisionError
        assert not two.lookup(JTI, EXP, []).revoked
        one.wait_for_change(0.01)
        assert two.purge(EXP + 1) == 2
        assert [one.count(), two.count()] == [1, 1]
        with one.snapshot() as snapshot:
            assert len(snapshot.chunk(None, 10).rows) == 1


def test_a_standby_is_refused(postgres: Postgres, store: PostgresStore) -> None:
    """It lacks the newest revocations."""
    standby = Postgres(source=postgres)
    try:
        with pytest.raises(StoreError, match="read-only"):
            PostgresStore(standby.url)
    finally:
        standby.remove()


def test_a_server_that_becomes_a_standby_is_refused(store: PostgresStore, postgres: Postgres) -> None:
    """On existing connections, as those through a pooler are."""
    store.lookup(JTI, EXP, [])
    postgres.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    postgres.sql("SELECT pg_reload_conf()")
    try:
        eventually(lambda: refuses_everything(store, "read|lost"), pytest.fail.Exception)
    finally:
        postgres.sql(
            "SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only"
        )
        postgres.sql("SELECT pg_reload_conf()")
    eventually(lambda: store.revoke(OTHER, EXP), StoreError)


def test_a_list_that_was_restored_is_refused(mortal: Postgres, on_mortal: PostgresStore) -> None:
    """Even if other processes have changed it since, and it has as many changes as before. A restart accepts
    it."""
    mortal.stop()
    copy = mortal.copy()
    mortal.start()
    on_mortal.revoke(OTHER, EXP)
    on_mortal.revoke("c", EXP)
    mortal.stop()
    mortal.restore(copy)
    mortal.start()
    refuses_everything(on_mortal, "went back to an older state")
    with closing(PostgresStore(mortal.url)) as restarted:
        assert not restarted.lookup(OTHER, EXP, []).revoked
        for number in range(3):
            restarted.revoke(f"{number}", EXP)
            refuses_everything(on_mortal, "went back to an older state")


@pytest.mark.parametrize(
    "change", ["UPDATE signer.state SET changes = changes - 1", "UPDATE signer.state SET mark = 1"]
)
def test_another_state_of_the_same_list_is_refused(
    store: PostgresStore, postgres_url: str, change: str
) -> None:
    """By its number, or by its mark."""
    with neighbour(postgres_url) as other:
        other.execute(change)
    refuses_everything(store, "went back to an older state")


def test_a_list_that_is_gone_is_refused(store: PostgresStore, postgres_url: str) -> None:
    """Its row, its tables, or the list, in whose place an empty one was made."""
    with neighbour(postgres_url) as other:
        other.execute("DELETE FROM signer.state")
        refuses_everything(store, "lost its state")
        other.execute("DROP SCHEMA signer CASCADE")
        refuses_everything(store, "is gone")
        with closing(PostgresStore(postgres_url)) as empty:
            refuses_everything(store, "went back to an older state")
            empty.revoke(OTHER, EXP)
            refuses_everything(store, "went back to an older state")


def test_an_empty_list_that_was_made_anew_is_refused(postgres_url: str) -> None:
    """Both have no changes."""
    with closing(PostgresStore(postgres_url)) as first, neighbour(postgres_url) as other:
        other.execute("DROP SCHEMA signer CASCADE")
        with closing(PostgresStore(postgres_url)):
            refuses_everything(first, "went back to an older state")


def test_an_older_list_is_not_believed_for_its_changes(store: PostgresStore, postgres_url: str) -> None:
    """Other processes, which know of no newer list, change it more often than its log can show. The newer
    list is accepted again."""
    with neighbour(postgres_url) as other:
        changes = ask(other, "SELECT changes FROM signer.state")
        other.execute("UPDATE signer.state SET changes = changes - 1")
        refuses_everything(store, "went back to an older state")
        other.execute("DELETE FROM signer.log")
        other.execute("UPDATE signer.state SET changes = changes + 100000")
        refuses_everything(store, "went back to an older state")
        other.execute("UPDATE signer.state SET changes = %s", (changes,))
        assert store.lookup(JTI, EXP, []).revoked
        # One that was never refused may be far behind.
        other.execute("UPDATE signer.state SET changes = changes + 100000")
        assert store.lookup(JTI, EXP, []).revoked


def test_a_purge_holds_no_writer_up(store: PostgresStore, postgres_url: str) -> None:
    """Once the horizon is raised, it deletes while another process makes changes."""
    for number in range(5):
        store.revoke(str(number), 10 + number)
    store.advance("sub:a", 10_000, 1)
    assert store.purge(100, 2) == 2
    with neighbour(postgres_url) as other:
        other.execute("BEGIN")
        other.execute("SELECT FROM signer.state FOR UPDATE")
        assert store.purge(100) == 4
    assert store.count() == 1


def test_a_group_that_is_advanced_during_a_purge_stays(store: PostgresStore, postgres_url: str) -> None:
    """The purge has chosen the group, and waits for the process that advances it."""
    store.advance("sub:a", 1000, 1)
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    store.purge(100, 0)
    with (
        closing(PostgresStore(postgres_url, timeout=60)) as other,
        closing(PostgresStore(postgres_url, timeout=60)) as purging,
        neighbour(postgres_url) as observer,
        ThreadPoolExecutor(1) as pool,
    ):
        with other.together():
            other.advance("sub:a", 1_000_000, 1)
            purged = pool.submit(purging.purge, 100)
            eventually(lambda: _assert(ask(observer, waiting) == 1), AssertionError)
        assert purged.result(60) == 0
        assert store.lookup("", 0, ["sub:a"]).generation == 1_000_000


def test_a_purge_together_with_other_changes_is_undone_with_them(store: PostgresStore) -> None:
    """Its rows and its horizon."""
    store.revoke(OTHER, 5)
    with pytest.raises(ValueError, match="mine"), store.together():  # noqa: PT012
        assert store.purge(100) == 1
        raise ValueError("mine")
    assert store.lookup(OTHER, 5, []) == Entry(revoked=True)
    with store.together():
        store.revoke("c", EXP)
        assert store.purge(100) == 1
    assert store.lookup(OTHER, 5, []) == Entry(horizon=100)


def test_others_changes_are_no_other_history(store: PostgresStore, postgres_url: str) -> None:
    """While many threads read and write, none is refused because the list went back."""
    with closing(PostgresStore(postgres_url)) as other, ThreadPoolExecutor(6) as pool:
        stop = threading.Event()

        def read() -> int:
            rounds = 0
            while not stop.is_set():
                store.lookup(JTI, EXP, [])
                rounds += 1
            return rounds

        readers = [pool.submit(read) for _ in range(3)]
        for number in range(100):
            (store, other)[number % 2].revoke(f"{number}", EXP)
        stop.set()
        assert all(reader.result(5) > 10 for reader in readers)


def test_every_change_is_in_the_log(
    store: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to the number that is forgotten. A process that has seen nothing since is not refused for that."""
    for each in (module, newest):
        monkeypatch.setattr(each, "LOG_SIZE", 20)
    monkeypatch.setattr(module, "_LOT", 4)
    with closing(PostgresStore(postgres_url)) as other, neighbour(postgres_url) as neighbour_:
        start = Point(0, ask(neighbour_, "SELECT mark FROM signer.log WHERE number = 0"))
        for number in range(10):
            store.revoke(f"{number}", EXP)
            store.purge(1)
            store.ping()
            with store.together():
                store.advance("sub:a", number, EXP)
                store.use(OTHER, EXP, 100)
        changes = ask(neighbour_, "SELECT changes FROM signer.state")
        numbers = ask(neighbour_, "SELECT array_agg(number ORDER BY number) FROM signer.log")
        assert numbers == list(range(numbers[0], changes + 1))
        assert 20 <= len(numbers) <= 20 + 4
        with other.snapshot() as snapshot:
            assert snapshot.changes(start, 10) is None
        assert other.lookup(JTI, EXP, []).revoked


def test_a_snapshot_is_of_one_moment(store: PostgresStore) -> None:
    """Changes that are made while it is read are not in it."""
    with store.snapshot() as snapshot, ThreadPoolExecutor(1) as pool:
        pool.submit(store.revoke, OTHER, EXP).result(5)
        assert [row.name for row in snapshot.chunk(None, 10).rows] == [JTI]
        assert snapshot.changes(snapshot.point, 10) == ([], snapshot.point)


def test_an_error_of_the_readers_own_is_left_alone(store: PostgresStore) -> None:
    """The list did not fail."""
    for context in (store.snapshot, store.together):
        with pytest.raises(ValueError, match="mine"), context():
            raise ValueError("mine")


def test_what_is_acknowledged_is_durable_whatever_the_role_wants(
    store: PostgresStore, postgres: Postgres
) -> None:
    """synchronous_commit = off would lose the last changes in a crash. A setting stronger than `on` is
    kept."""
    for wanted, is_so in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        postgres.sql(f"ALTER ROLE signer SET synchronous_commit = {wanted}")
        try:
            with closing(PostgresStore(postgres.url)) as opened, opened._writer.writing() as writer:
                assert ask(writer, "SHOW synchronous_commit") == is_so
                assert ask(writer, "SHOW statement_timeout") == "1600ms"
        finally:
            postgres.sql("ALTER ROLE signer RESET synchronous_commit")


def test_nothing_is_left_set_on_a_connection(store: PostgresStore) -> None:
    """Behind a pooler, another client may get it next."""
    with store._link.pool.connection(time.monotonic() + 2) as connection:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "search_path")
        shown = [ask(connection, f"SHOW {name}") for name in names]
    assert shown == ["0", "0", "0", '"$user", public']


def test_an_operator_of_somebody_elses_is_not_taken_for_the_servers(
    store: PostgresStore, postgres: Postgres
) -> None:
    """A user who may make functions in `public` could do everything that the list's role may
    (CVE-2018-1058)."""
    postgres.sql(
        "CREATE FUNCTION public.trap(int, numeric) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$",
        "CREATE OPERATOR public.< (LEFTARG = int, RIGHTARG = numeric, FUNCTION = public.trap)",
    )
    try:
        assert store.use(OTHER, EXP, 1 << 70) == 1
    finally:
        postgres.sql("DROP FUNCTION public.trap CASCADE")


def test_a_row_is_found_without_going_through_the_table(store: PostgresStore, postgres_url: str) -> None:
    """Whatever its size: with many rows, the planner scans nothing but the one row of the state."""
    with neighbour(postgres_url) as other:
        other.execute(
            "INSERT INTO signer.tokens SELECT n, '\\x61', true, 0, 0 FROM generate_series(1, 20000) n"
        )
        other.execute(
            "INSERT INTO signer.groups SELECT n::text::bytea, n, n FROM generate_series(1, 20000) n"
        )
        other.execute(
            "INSERT INTO signer.log SELECT n + 10, 1, '\\x61', n, 0 FROM generate_series(1, 20000) n"
        )
        other.execute("ANALYZE signer.tokens, signer.groups, signer.log")
        lookup = {"groups": [b"7", b"8"], "exp": 7, "jti": b"a", "seen": 3}
        for statement, values in (
            (postgres_schema.LOOKUP, lookup),
            (postgres_schema.PURGE_BOUND, (100, 10)),
            (postgres_schema.PURGE_TOKENS, (100, b"a")),
            (postgres_schema.PURGE_GROUPS, {"before": 100, "limit": 10}),
            (postgres_schema.LOG_AFTER, (5, 10)),
            (postgres_schema.TOKENS_AFTER, (100, b"a", 10)),
            (postgres_schema.GROUPS_AFTER, (b"7", 10)),
        ):
            plan = [row[0] for row in other.execute(f"EXPLAIN {statement}", values)]
            assert not [step for step in plan if "Seq Scan" in step and "state" not in step], plan


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_name_may_hold_anything_in_any_database(postgres: Postgres, encoding: str) -> None:
    """Even characters that its text type cannot hold. A value that is no text raises one of our errors."""
    postgres.sql("DROP DATABASE IF EXISTS other")
    postgres.sql(f"CREATE DATABASE other ENCODING {encoding} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    with closing(PostgresStore(postgres.url_of(postgres.port, "other"))) as store:
        for number, name in enumerate(
            ("sub:\u0142", "sub:\U0001f600", "sub:\0", "sub:'\"\\%s", "sub:" + "\u0142" * 255)
        ):
            store.advance(name, number + 1, EXP)
            store.revoke(name, EXP)
            assert store.lookup(name, EXP, [name]) == Entry(
                True, generation=number + 1, last_generation=number + 1
            )
        for call in (lambda: store.lookup("\udcff", EXP, []), lambda: store.advance("sub:\udcff", 1, 1)):
            with pytest.raises(StoreError, match="surrogates"):
                call()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://signer:se/cret@host/db", "postgresql://signer:se@cret@host/db", "postgresql://signer:12/se@cret/db",
        "postgresql://u:secret@[::1/db",
        "postgresql://u:secret@host/db?nonsense=1", "postgres://u:secret@host:port/db", "postgresql://u:%zzsecret@host/db",
    ],
)  # fmt: skip
def test_a_url_that_is_none_is_not_repeated(url: str) -> None:
    """Not even a part of it, which may be a part of the password."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as caught:
        open_store(url)
    told = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__suppress_context__}"
    assert not {"se", "cret", "secret", "12/se"} & set(told.replace("@", " ").replace("/", " ").split())
    assert "secret" not in told
    assert told.endswith("True")


def test_the_password_is_never_told(postgres: Postgres, postgres_url: str) -> None:
    """Not if it is wrong, if there is no server or no database, nor by the list itself."""
    for url, expected in (
        (postgres.url_of(postgres.port, password="wrong-pass"), "password authentication failed"),
        (postgres.url_of(free_port(), password="wrong-pass"), "refused"),
        (postgres.url_of(postgres.port, "nowhere"), 'database "nowhere" does not exist'),
    ):
        with pytest.raises(StoreError, match=expected) as caught:
            open_store(url)
        assert "127.0.0.1:" in str(caught.value)
        assert not [
            word for word in ("wrong-pass", PASSWORD, "://") if word in f"{caught.value} {caught.value!r}"
        ]
    with closing(PostgresStore(postgres_url)) as store:
        assert PASSWORD not in repr(store) + repr(store._link.pool)


def test_tls_checks_who_answers() -> None:
    """sslmode=verify-full: the named authority must have signed a certificate for the host in the URL. A
    server that has none is refused at the start, and so is one without TLS."""
    server = Postgres()
    ours, others, key = (server.folder / name for name in ("ours.pem", "others.pem", "key.pem"))
    checked = f"{server.url}?sslmode=verify-full&sslrootcert={ours}"

    def is_refused(url: str, match: str) -> None:
        with pytest.raises(StoreError, match=match) as caught:
            open_store(url)
        assert PASSWORD not in f"{caught.value} {caught.value!r}"

    try:
        for cert in (others, ours):
            server.run(
                program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                "-nodes", "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1",
                "-keyout", str(key), "-out", str(cert),
            )  # fmt: skip
        is_refused(checked, "does not support SSL")
        server.sql(
            f"ALTER SYSTEM SET ssl_cert_file = '{ours}'", f"ALTER SYSTEM SET ssl_key_file = '{key}'",
            "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()",
        )  # fmt: skip
        eventually(lambda: open_store(checked).close(), StoreError)
        is_refused(checked.replace(str(ours), str(others)), "certificate verify failed")
        is_refused(checked.replace("127.0.0.1", "localhost"), "does not match host name")
        with closing(PostgresStore(checked)) as store:
            store.revoke(JTI, EXP)
            assert store.lookup(JTI, EXP, []).revoked
            assert not store.lookup(OTHER, EXP, []).revoked
            with neighbour(f"{server.url}?sslmode=disable") as other:
                assert ask(other, "SELECT count(*) FROM pg_stat_ssl WHERE ssl")
    finally:
        server.remove()


WRITER = """
import sys
from signer import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
store.revoke("b" * 22, 1_800_000_000)
"""


def test_another_process_s_change_wakes_who_waits(store: PostgresStore, postgres_url: str) -> None:
    """At once; without a change, it waits for the whole time."""
    store.wait_for_change(5)  # begins to listen
    started = time.monotonic()
    store.wait_for_change(0.2)
    assert time.monotonic() - started >= 0.2
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, postgres_url],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process, ThreadPoolExecutor(1) as pool:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        waiting = pool.submit(store.wait_for_change, 2 * HANG)
        process.stdin.write("\n")
        process.stdin.flush()
        eventually(lambda: _assert(store.lookup(OTHER, EXP, []).revoked), AssertionError)
        waiting.result(HANG)


def _assert(is_so: bool) -> None:
    assert is_so


def test_a_change_between_two_waits_is_heard(store: PostgresStore) -> None:
    """The second wait ends at once."""
    store.wait_for_change(5)
    store.revoke(OTHER, EXP)
    started = time.monotonic()
    store.wait_for_change(2 * HANG)
    assert time.monotonic() - started < HANG


def test_who_waits_is_let_go_when_the_list_is_closed(store: PostgresStore) -> None:
    """With an error, as every call then."""
    store.wait_for_change(5)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.wait_for_change, 2 * HANG)
        time.sleep(0.1)
        store.close()
        with pytest.raises(StoreError, match="closed"):
            waiting.result(HANG)
    with pytest.raises(StoreError, match="closed"):
        store.wait_for_change(1)


@pytest.mark.slow
def test_waiting_survives_the_server(mortal: Postgres, on_mortal: PostgresStore) -> None:
    """Without a server it sleeps; once there is one again, it hears changes."""
    on_mortal.wait_for_change(5)
    mortal.stop()
    for _ in range(2):
        started = time.monotonic()
        on_mortal.wait_for_change(0.2)
        assert time.monotonic() - started >= 0.2
    mortal.start()
    time.sleep(0.1)
    on_mortal.wait_for_change(5)
    on_mortal.revoke(OTHER, EXP)
    started = time.monotonic()
    on_mortal.wait_for_change(2 * HANG)
    assert time.monotonic() - started < HANG


@pytest.mark.slow
def test_a_wait_for_a_standby_that_was_ended_is_no_success() -> None:
    """An administrator cancels the wait, and PostgreSQL warns. The change is on this server, and nowhere
    else."""
    server = Postgres()
    try:
        store = PostgresStore(server.url, timeout=HANG)
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
        # An error as long as that is not so: a division by zero.
        known = "SELECT 1 / (current_setting('synchronous_standby_names') = 'nobody')::int"
        eventually(lambda: server.sql(known), psycopg.Error)
        ended = "SELECT 1 / count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        with ThreadPoolExecutor(1) as pool:
            ending = pool.submit(eventually, lambda: server.sql(ended), psycopg.Error)
            with pytest.raises(StoreError, match="durable"):
                store.revoke(JTI, EXP)
            ending.result(HANG)
        store.close()
    finally:
        server.remove()
