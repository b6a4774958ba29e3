"""The list on Redis: what goes wrong between it and its server."""

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.clock import HANG
from support.redis_server import Redis
from support.service import KEY, Service, cli, environment, free_port

from signer.errors import ConfigurationError, StoreError
from signer.stores.contract import Entry
from signer.stores.opening import create_list, open_store
from signer.stores.redis.link import parse
from signer.stores.redis.scripts import AGES, BUCKETS, GROUPS, KEEP, LOG, ROWS, STATE
from signer.stores.redis.store import RedisStore

JTI, OTHER = "a" * 22, "b" * 22
EXP = 4_000_000_000
DURABLE = ("appendonly yes", "appendfsync always")


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    opened = RedisStore(redis_url)
    yield opened
    opened.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    """A server that may be killed, with a list."""
    with Redis(tmp_path, *DURABLE) as running:
        create_list(running.url)
        yield running


def calls(store: RedisStore) -> list[Callable[[], object]]:
    return [
        lambda: store.lookup(JTI, EXP, ["sub:a"]),
        lambda: store.revoke(JTI, EXP),
        lambda: store.use(OTHER, EXP, 1),
        lambda: store.rotate("c" * 22, EXP, 1),
        lambda: store.advance("sub:a", 1, 1),
        lambda: store.purge(1),
        store.count,
        store.ping,
        lambda: store.snapshot().__enter__(),
    ]


def assert_all_fail(store: RedisStore, match: str) -> None:
    for call in calls(store):
        with pytest.raises(StoreError, match=match):
            call()


def dump(server: Redis) -> dict[str, bytes]:
    """All keys as they are, to be restored by `load`."""
    import redis

    with redis.Redis(port=server.port) as client:
        return {key.decode(): client.dump(key) for key in client.keys("*")}


def load(server: Redis, keys: dict[str, bytes]) -> None:
    import redis

    with redis.Redis(port=server.port) as client:
        client.flushall()
        for key, value in keys.items():
            client.restore(key, 0, value)


# Which server will do.


def test_a_server_that_evicts_is_refused(tmp_path: Path) -> None:
    """It would forget revocations. Opening says so, and ping, if the policy was changed later."""
    with Redis(tmp_path, "maxmemory 100mb", "maxmemory-policy volatile-ttl") as server:
        with pytest.raises(
            StoreError, match=r"maxmemory-policy volatile-ttl.*Set maxmemory-policy noeviction"
        ):
            create_list(server.url)
        server.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
        create_list(server.url)
        store = RedisStore(server.url)
        server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreError, match="allkeys-lru"):
            store.ping()
        store.close()


def test_a_server_without_room_still_answers(server: Redis) -> None:
    """Changes are refused; look-ups and purges are not."""
    store = RedisStore(server.url)
    store.revoke(JTI, EXP)
    server.call("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreError, match="maxmemory"):
        store.revoke(OTHER, EXP)
    assert store.lookup(JTI, EXP, []).revoked
    store.purge(5)
    store.close()


def test_a_server_in_memory_alone_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, at opening."""
    with Redis(tmp_path) as server:
        create_list(server.url)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            store = RedisStore(server.url)
            store.revoke(JTI, EXP)
        assert len(caplog.records) == 1
        assert "does not survive a restart" in caplog.text
        store.close()


def test_a_server_that_tells_nothing_of_itself_is_warned_of(
    server: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """A managed server may forbid INFO."""
    server.call("ACL", "SETUSER", "app", "on", ">word", "~{signer}:*", "&{signer}:*", "+@all", "-info")
    with caplog.at_level(logging.WARNING):
        store = RedisStore(server.url.replace("redis://", "redis://app:word@"))
    assert "evicts keys is unknown" in caplog.text
    store.revoke(JTI, EXP)
    assert store.lookup(JTI, EXP, []).revoked
    store.close()


def test_a_replica_is_refused(server: Redis, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It lags. A server that becomes a replica while running is noticed at the next call, even a look-up."""
    folder = tmp_path_factory.mktemp("replica")
    with Redis(folder, f"replicaof 127.0.0.1 {server.port}") as replica:
        replica.wait_for_master(server)
        with pytest.raises(StoreError, match="replica"):
            RedisStore(replica.url)
        replica.call("REPLICAOF", "NO", "ONE")
        store = RedisStore(replica.url)
        replica.call("REPLICAOF", "127.0.0.1", server.port)
        replica.wait_for_master(server)
        assert_all_fail(store, "this server is a replica")
        store.close()


# An empty list is confirmed, and never an accident.


def test_an_empty_server_is_refused_until_confirmed(tmp_path: Path) -> None:
    """By the command, which leaves an existing list as it is."""
    with Redis(tmp_path, *DURABLE) as server:
        settings = {"DATABASE_URL": server.url, "SECRET_KEY": KEY}
        for create in (True, False):
            with pytest.raises(StoreError, match="python -m signer create-list"):
                open_store(server.url, create=create)
        refused = cli(tmp_path, "client", "x", "--scope", "read", "--ttl", "1d", **settings)
        assert (refused.returncode, "create-list" in refused.stderr) == (3, True)
        made = cli(tmp_path, "create-list", **settings)
        assert (made.returncode, "nothing is revoked" in made.stdout) == (0, True)
        assert cli(tmp_path, "revoke", "--sub", "42", **settings).returncode == 0
        again = cli(tmp_path, "create-list", **settings)
        assert (again.returncode, "already" in again.stderr) == (2, True)
        store = open_store(server.url)
        assert store.count() == 1
        store.close()


def test_a_list_in_a_file_is_confirmed_the_same_way(tmp_path: Path) -> None:
    """With every ?mode= that the service opens it with."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path}/x.db?mode=rw", "SECRET_KEY": KEY}
    assert cli(tmp_path, "create-list", **settings).returncode == 0
    assert cli(tmp_path, "create-list", **settings).returncode == 2
    assert cli(tmp_path, "create-list", DATABASE_URL="memory://", SECRET_KEY=KEY).returncode == 2


def test_parts_of_a_list_are_not_taken_for_none(server: Redis) -> None:
    """If its state was deleted, that is no empty list."""
    store = RedisStore(server.url)
    store.revoke(JTI, EXP)
    server.call("DEL", STATE)
    with pytest.raises(StoreError, match="parts are left"):
        create_list(server.url)
    store.close()


def test_several_that_make_the_list_make_one(tmp_path: Path) -> None:
    """And exactly one of them made it."""
    with Redis(tmp_path) as server:
        stores: list[RedisStore] = []
        threads = [
            threading.Thread(target=lambda: stores.append(RedisStore(server.url, create=True)))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(store.is_new for store in stores) == [False] * 5 + [True]
        for store in stores:
            store.revoke(JTI, EXP)
            store.close()


@pytest.mark.parametrize("how", ["FLUSHALL", "DEL", "restart"])
def test_a_list_that_is_gone_fails_closed(tmp_path: Path, how: str) -> None:
    """Until an empty list is confirmed and the store is opened anew."""
    with Redis(tmp_path) as server:
        create_list(server.url)
        store = RedisStore(server.url)
        store.revoke(JTI, EXP)
        if how == "restart":
            server.restart()
        else:
            server.call(*((how, *server.call("KEYS", "*")) if how == "DEL" else (how,)))
        assert_all_fail(store, "create-list")
        create_list(server.url)
        assert_all_fail(store, "replaced while running")
        store.close()
        store = RedisStore(server.url)
        assert not store.lookup(JTI, EXP, []).revoked
        store.close()


@pytest.mark.slow
def test_services_share_it(tmp_path: Path, redis_url: str) -> None:
    """A token that one revokes is refused by the other."""
    settings = {"DATABASE_URL": redis_url, "SECRET_KEY": KEY, "WEB_CONCURRENCY": "2"}
    scopes = "token:issue token:introspect token:revoke"
    credential = cli(tmp_path, "client", "x", "--scope", scopes, "--ttl", "1d", **settings).stdout.strip()
    with (
        Service(tmp_path, settings, credential=credential) as here,
        Service(tmp_path, settings, credential=credential) as there,
    ):
        tokens = [here.issue(sub="42") for _ in range(2)]
        assert there.says_valid(tokens[0])
        assert here.call("POST", "/app/revoke", {"token": tokens[0]}).status == 200
        assert [there.says_valid(token) for token in tokens] == [False, True]


# A list that lost a part fails closed.


@pytest.mark.parametrize("key", [GROUPS, BUCKETS, AGES])
def test_a_list_that_lost_a_key_fails_closed(store: RedisStore, redis_server: Redis, key: str) -> None:
    """Deleted or evicted, for processes that run and for those that start."""
    store.revoke(JTI, EXP)
    store.advance("sub:a", 1, 1)
    redis_server.call("DEL", key)
    assert_all_fail(store, "lost a part")
    with pytest.raises(StoreError, match="lost a part"):
        RedisStore(redis_server.url)


def test_a_log_that_was_lost_makes_nothing_valid(store: RedisStore, redis_server: Redis) -> None:
    """A reader that is behind cannot tell its log from another list's. One that is up to date, or starts,
    knows everything from the rows."""
    behind = RedisStore(redis_server.url)
    with behind.snapshot() as snapshot:
        known = snapshot.point
    store.revoke(JTI, EXP)
    redis_server.call("DEL", LOG)
    assert_all_fail(behind, "older state")
    assert store.lookup(JTI, EXP, []).revoked
    store.revoke(OTHER, EXP)
    restarted = RedisStore(redis_server.url)
    with restarted.snapshot() as snapshot:
        assert snapshot.changes(known, 10) is None
        assert {row.name for row in snapshot.chunk(None, 10).rows} == {JTI, OTHER}
    for opened in (behind, restarted):
        opened.close()


def test_hours_that_were_lost_lie_behind_the_horizon(store: RedisStore, redis_server: Redis) -> None:
    """Tokens that expire in them are refused, and no others."""
    store.revoke(JTI, EXP)
    redis_server.call("DEL", f"{ROWS}{EXP // 3600}")
    assert store.lookup(OTHER, EXP, []).horizon > EXP
    assert store.use(OTHER, EXP, 1) is None
    assert store.use(OTHER, EXP + 3600, 1) == 1


def make_older(server: Redis) -> None:
    """As the previous version left it."""
    server.call("HSET", STATE, "version", 1)
    server.call("HDEL", STATE, "groups", "buckets")


def test_a_list_of_the_version_before_is_upgraded_once(store: RedisStore, redis_server: Redis) -> None:
    """By the first process that opens it. Programs of that version refuse it then, as this one refuses a
    later one."""
    for number in range(2000):
        store.revoke(str(number), 7200 * number)
    store.advance("sub:b", 1000, 1)
    store.advance("sub:a", EXP * 1000, 1000)
    while store.purge(3_600_000) == 1000:
        pass
    make_older(redis_server)
    assert_all_fail(store, "another version")
    for _ in range(2):
        opened = RedisStore(redis_server.url)
        assert opened.lookup("1999", 7200 * 1999, ["sub:a"]) == Entry(
            True, 0, 0, EXP * 1000, 3_600_000, EXP * 1000
        )
        opened.close()
    assert store.count() == 1501
    redis_server.call("HSET", STATE, "version", 3)
    with pytest.raises(StoreError, match="another version"):
        RedisStore(redis_server.url)


@pytest.mark.parametrize("lost", [(GROUPS,), (AGES,), (BUCKETS,), (GROUPS, AGES)])
def test_a_list_of_the_version_before_that_lost_a_key_is_not_upgraded(
    store: RedisStore, redis_server: Redis, lost: tuple[str, ...]
) -> None:
    """Its log shows it: every change that has not expired must be there."""
    store.revoke(JTI, EXP)
    store.advance("sub:a", EXP * 1000, 1000)
    for _ in range(1500):
        store.ping()
    make_older(redis_server)
    redis_server.call("DEL", *lost)
    for _ in range(2):
        with pytest.raises(StoreError, match="lost a part"):
            RedisStore(redis_server.url)


# The list's history runs one way.


def test_an_older_state_fails_closed(server: Redis) -> None:
    """As after a failover to a replica that lagged. Its number shows it, and nothing is changed on it."""
    store = RedisStore(server.url)
    older = dump(server)
    store.revoke(JTI, EXP)
    load(server, older)
    assert_all_fail(store, "older state")
    assert dump(server) == older
    store.close()
    store = RedisStore(server.url)
    store.revoke(JTI, EXP)
    store.close()


@pytest.mark.parametrize("more", [1, 2, 5])
def test_another_history_fails_closed(server: Redis, more: int) -> None:
    """If other processes changed the older state since, as often as was lost or more often, its marks show
    it."""
    store = RedisStore(server.url)
    older = dump(server)
    store.revoke(JTI, EXP)
    load(server, older)
    other = RedisStore(server.url)
    for number in range(more):
        other.revoke(str(number), EXP)
    assert_all_fail(store, "older state")
    other.revoke(JTI, EXP)
    for opened in (other, store):
        opened.close()


def test_moments_that_the_log_forgot_are_not_told(store: RedisStore, redis_server: Redis) -> None:
    """A reader that is so far behind reads the list anew."""
    with store.snapshot() as snapshot:
        known = snapshot.point
    for number in range(5):
        store.revoke(str(number), EXP)
    redis_server.call("XTRIM", LOG, "MAXLEN", 2)
    with store.snapshot() as snapshot:
        assert snapshot.changes(known, 10) is None
        assert snapshot.changes(snapshot.point, 10) == ([], snapshot.point)


def test_a_page_is_begun_anew_on_another_server(server: Redis) -> None:
    """It hashes in another way, so that a place in one is no place in the other."""
    store = RedisStore(server.url)
    names = {f"{number:060d}-long-enough-for-a-big-hash" for number in range(1000)}
    for name in names:
        store.revoke(name, EXP)
    key, found = None, set()
    for number in range(1000):
        if number in {2, 4}:
            server.restart()
        with store.snapshot() as snapshot:
            page = snapshot.chunk(key, 100)
        found |= {row.name for row in page.rows}
        key = page.next
        if key is None:
            break
    assert found == names
    store.close()


def test_a_gap_in_the_log_fails_closed(server: Redis) -> None:
    """The newest change that was seen is in it, or was long ago."""
    store, other = RedisStore(server.url), RedisStore(server.url)
    store.revoke(JTI, EXP)
    (entry,) = server.call("XREVRANGE", LOG, "+", "-", "COUNT", 1)
    other.revoke(OTHER, EXP)
    server.call("XDEL", LOG, entry[0])
    assert_all_fail(store, "older state")
    for opened in (other, store):
        opened.close()


def test_an_older_list_is_not_believed_for_its_changes(store: RedisStore, redis_server: Redis) -> None:
    """Other processes, which know of no newer list, change it more often than its log can show. The newer
    list is accepted again."""
    for number in range(3):
        store.revoke(str(number), EXP)
    newer = redis_server.call("HGET", STATE, "changes")
    redis_server.call("HINCRBY", STATE, "changes", -1)
    assert_all_fail(store, "older state")
    redis_server.call("XTRIM", LOG, "MAXLEN", 0)
    redis_server.call("HINCRBY", STATE, "changes", 100_000)
    assert_all_fail(store, "older state")
    redis_server.call("HSET", STATE, "changes", newer)
    assert store.lookup("2", EXP, []).revoked
    # One that was never refused may be far behind.
    redis_server.call("HINCRBY", STATE, "changes", 100_000)
    assert store.lookup("2", EXP, []).revoked


def test_what_others_change_is_history_too(redis_url: str) -> None:
    """Two stores take turns, and neither raises an error."""
    stores = [RedisStore(redis_url) for _ in range(2)]
    for number in range(50):
        stores[number % 2].revoke(str(number), EXP)
        assert stores[(number + 1) % 2].lookup(str(number), EXP, []).revoked
    for store in stores:
        store.close()


def test_values_that_are_none_are_our_own_error(store: RedisStore, redis_server: Redis) -> None:
    """Damage does not mean "not revoked"."""
    store.revoke(JTI, EXP)
    store.advance("sub:a", 1, 1)
    redis_server.call("HSET", f"{ROWS}{EXP // 3600}", f"{EXP}/{JTI}", "yes")
    redis_server.call("HSET", GROUPS, "sub:a", "x 1")
    for call in (
        lambda: store.lookup(JTI, EXP, []),
        lambda: store.use(JTI, EXP, 1),
        lambda: store.lookup(OTHER, EXP, ["sub:a"]),
    ):
        with pytest.raises(StoreError, match="damaged"):
            call()
    redis_server.call("HSET", STATE, "changes", "many")
    assert_all_fail(store, "damaged")


@pytest.mark.parametrize("garbled", [None, [], "x"])
@pytest.mark.parametrize("place", range(3, 8))
def test_a_reply_of_another_kind_is_our_own_error(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, place: int, garbled: object
) -> None:
    """And never "not revoked", at whatever place the reply was garbled."""
    store.revoke(JTI, EXP)
    run = store._link.run
    monkeypatch.setattr(
        store._link, "run", lambda *asked: [*(reply := run(*asked))[:place], garbled, *reply[place + 1 :]]
    )
    with pytest.raises(StoreError, match="cannot answer"):
        store.lookup(JTI, EXP, [])


def test_numbers_that_lua_cannot_count_are_refused(store: RedisStore) -> None:
    """Beyond 2^53, Lua would round it."""
    with pytest.raises(StoreError, match="too large"):
        store.advance("sub:a", 1 << 53, 1)
    assert store.advance("sub:a", (1 << 53) - 10, 1) == (1 << 53) - 10
    assert store.lookup(JTI, EXP, ["sub:a"]).generation == (1 << 53) - 10


# What the engine lets go by itself.


def test_the_engine_lets_rows_go_a_day_after_their_hour(store: RedisStore, redis_server: Redis) -> None:
    """By the expiry of their key."""
    store.revoke(JTI, EXP)
    bucket = EXP // 3600
    assert redis_server.call("EXPIRETIME", f"{ROWS}{bucket}") == (bucket + 1) * 3600 + KEEP


@pytest.mark.parametrize("how", ["lookup", "use", "rotate", "revoke", "page", "log", "purge"])
def test_what_the_engine_let_go_lies_behind_the_horizon(
    store: RedisStore, redis_server: Redis, how: str
) -> None:
    """Whatever its clock said then. The horizon stays, even if rows are written into that hour again."""
    with store.snapshot() as snapshot:
        known = snapshot.point
    store.revoke(JTI, EXP)
    store.revoke(OTHER, EXP + 100_000)
    ending = (EXP // 3600 + 1) * 3600
    redis_server.call("PEXPIRE", f"{ROWS}{EXP // 3600}", 1)
    time.sleep(0.01)
    if how == "lookup":
        assert store.lookup("c" * 22, EXP, []).horizon == ending
    elif how in ("use", "rotate"):
        assert getattr(store, how)(JTI, EXP, 1) is None
    elif how == "revoke":
        store.revoke("c" * 22, EXP)
    elif how == "purge":
        store.purge(EXP + 1)
    else:
        with store.snapshot() as snapshot:
            assert snapshot.horizon == 0
            snapshot.chunk(None, 10) if how == "page" else snapshot.changes(known, 10)
            assert snapshot.horizon == ending
    entry = store.lookup(JTI, EXP, [])
    assert not entry.revoked
    assert entry.horizon == ending
    assert store.lookup(OTHER, EXP + 100_000, []) == Entry(True, horizon=ending)


def test_a_purge_leaves_nothing_behind(store: RedisStore, redis_server: Redis) -> None:
    """Neither empty hours nor names of groups."""
    for number in range(3000):
        store.revoke(str(number), 1000 + number * 10)
    store.advance("sub:a", 1000, 10)
    assert [store.purge(20_000_000) for _ in range(4)] == [1000, 1000, 1000, 1]
    assert store.count() == 0
    for key in (BUCKETS, GROUPS, AGES):
        assert redis_server.call("EXISTS", key) == 0


def test_a_clock_of_the_engine_that_runs_ahead_keeps_rows_longer(
    store: RedisStore, redis_server: Redis
) -> None:
    """A row written after its time, by that clock, is not deleted at once."""
    store.revoke(JTI, 1000)
    assert redis_server.call("TTL", f"{ROWS}0") == -1
    assert store.lookup(JTI, 1000, []) == Entry(True)


# A server that hangs, dies and returns.


def test_a_server_that_hangs_is_given_up(server: Redis) -> None:
    """In about the time that was set, however often. Once the server continues, the list answers again."""
    store = RedisStore(server.url, timeout=0.3)
    store.revoke(JTI, EXP)
    server.signal(signal.SIGSTOP)
    for call in calls(store):
        started = time.monotonic()
        with pytest.raises(StoreError, match="no reply within"):
            call()
        assert time.monotonic() - started < HANG
    with pytest.raises(StoreError, match="no reply"):
        RedisStore(server.url, timeout=0.3)
    server.signal(signal.SIGCONT)
    # No reply that came too late is taken for another's.
    for number in range(10):
        assert not store.lookup(str(number), EXP, []).revoked
        assert store.lookup(JTI, EXP, []).revoked
    store.ping()
    store.close()


@pytest.mark.parametrize("how", ["plain", "sentinel", "cluster"])
def test_a_reply_that_comes_too_late_is_nobodys(tmp_path: Path, how: str) -> None:
    """It is not taken for the reply to the next call, which waits until the server continues."""
    options = ("cluster-enabled yes",) if how == "cluster" else ()
    with (
        Redis(tmp_path, *options) as server,
        Redis(tmp_path, f"sentinel monitor list 127.0.0.1 {server.port} 1", is_sentinel=True) as sentinel,
    ):
        if how == "cluster":
            server.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            server.wait_for("CLUSTER", "INFO", told="cluster_state:ok")
        urls = {
            "plain": server.url,
            "sentinel": f"redis+sentinel://127.0.0.1:{sentinel.port}/list",
            "cluster": f"redis+cluster://127.0.0.1:{server.port}",
        }
        create_list(urls[how])
        store = RedisStore(urls[how], timeout=0.5)
        store.revoke(JTI, EXP)
        server.signal(signal.SIGSTOP)
        with pytest.raises(StoreError):
            store.lookup(JTI, EXP, [])
        thread = threading.Timer(0.2, server.signal, (signal.SIGCONT,))
        thread.start()
        answers = []
        for _ in range(5):
            with suppress(StoreError):
                answers.append(store.lookup(OTHER, EXP, []).revoked)
        thread.join()
        assert answers
        assert not any(answers)
        store.close()


def test_many_threads_do_not_hang_longer(server: Redis) -> None:
    """They wait no longer for a connection than for a reply."""
    store = RedisStore(server.url, timeout=0.3)
    server.signal(signal.SIGSTOP)
    seconds: list[float] = []

    def look() -> None:
        started = time.monotonic()
        with pytest.raises(StoreError):
            store.lookup(JTI, EXP, [])
        seconds.append(time.monotonic() - started)

    threads = [threading.Thread(target=look) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.signal(signal.SIGCONT)
    assert len(seconds) == 30
    assert max(seconds) < 29 * 0.3  # one after the other
    store.close()


WRITER = """
import sys
from signer.errors import StoreError
from signer.stores import open_store
store = open_store(sys.argv[1])
for number in range(1_000_000):
    store.revoke(str(number), 4_000_000_000)
    print(number, flush=True)
"""


def test_nothing_acknowledged_is_lost_by_kill_9(server: Redis) -> None:
    """With appendfsync always. The store reconnects by itself."""
    store = RedisStore(server.url)
    command = [sys.executable, "-c", WRITER, server.url]
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as writer:
        assert writer.stdout
        told = [writer.stdout.readline() for _ in range(50)]
        server.kill()
        told += writer.stdout.readlines()
    with pytest.raises(StoreError, match="cannot answer"):
        store.lookup("0", EXP, [])
    server.start()
    assert len(told) >= 50
    assert all(store.lookup(number.strip(), EXP, []).revoked for number in told)
    store.revoke(JTI, EXP)
    store.close()


def test_a_change_after_a_restart_just_works(server: Redis) -> None:
    """Connections that broke meanwhile cause no error."""
    store = RedisStore(server.url)
    store.revoke(JTI, EXP)
    server.restart()
    store.revoke(OTHER, EXP)
    store.close()


def claim(url: str, barrier: Any, told: Any) -> None:
    store = RedisStore(url)
    barrier.wait(HANG)
    told.put([store.use(str(number), EXP, 1) for number in range(100)])
    store.close()


@pytest.mark.slow
def test_of_four_processes_one_wins(redis_url: str) -> None:
    """Each use of each token."""
    context = multiprocessing.get_context("spawn")
    barrier, told = context.Barrier(4), context.Queue()
    processes = [context.Process(target=claim, args=(redis_url, barrier, told)) for _ in range(4)]
    for process in processes:
        process.start()
    answers = [told.get(timeout=HANG) for _ in processes]
    for process in processes:
        process.join(HANG)
    for uses in zip(*answers, strict=True):
        assert sorted(uses, key=str) == [1, None, None, None]


# Replicas, sentinels, clusters.


def until_acknowledged(change: Callable[[], object]) -> None:
    """Repeatedly, because a replica may have much to take in."""
    for _ in range(9):
        with suppress(StoreError):
            change()
            return
    change()


def test_a_change_that_replicas_lack_is_not_acknowledged(
    server: Redis, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With ?replicas=1. The change may have been made, and can be repeated. Look-ups go on."""
    folder = tmp_path_factory.mktemp("replica")
    with Redis(folder, f"replicaof 127.0.0.1 {server.port}", "appendonly yes") as replica:
        replica.wait_for_master(server)
        store = RedisStore(f"{server.url}?replicas=1", timeout=1.5)
        until_acknowledged(lambda: store.revoke(JTI, EXP))
        assert replica.call("HGET", f"{ROWS}{EXP // 3600}", f"{EXP}/{JTI}") == "1 0 0"
        replica.signal(signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(StoreError, match="reached 0 replicas, and must reach 1"):
                store.revoke(OTHER, EXP)
        assert store.lookup(OTHER, EXP, []).revoked
        replica.signal(signal.SIGCONT)
        replica.wait_for_master(server)
        until_acknowledged(lambda: store.revoke(OTHER, EXP))
        store.close()


def test_a_cluster_holds_a_list(tmp_path: Path) -> None:
    """All of the list is on one node, which is found from any other node, even after the list moved."""
    cluster = ("cluster-enabled yes", "appendonly yes")
    with (
        Redis(tmp_path, "cluster-config-file a.conf", *cluster) as first,
        Redis(tmp_path, "cluster-config-file b.conf", "appenddirname b", *cluster) as second,
    ):
        first.call("CLUSTER", "MEET", "127.0.0.1", second.port, second.bus)
        slot = first.call("CLUSTER", "KEYSLOT", STATE)
        for node, start, end in ((first, 0, slot), (second, slot + 1, 16383)):
            node.call("CLUSTER", "ADDSLOTSRANGE", start, end)
        for node in (first, second):
            node.wait_for("CLUSTER", "INFO", told="cluster_state:ok")
        url = f"redis+cluster://127.0.0.1:{second.port},127.0.0.1:{first.port}"
        create_list(url)
        store = RedisStore(url)
        exercise(store)
        store.wait_for_change(5)
        waiter = threading.Timer(0.2, store.revoke, ("woken", EXP))
        waiter.start()
        store.wait_for_change(5)
        waiter.join()
        # To an empty node: the way there is found, and what is there is no list.
        identity = second.call("CLUSTER", "MYID")
        first.call("FLUSHALL")
        for node in (second, first):
            node.call("CLUSTER", "SETSLOT", slot, "NODE", identity)
        with pytest.raises(StoreError, match="create-list"):
            store.lookup(JTI, EXP, [])
        store.close()


class Shards(NamedTuple):
    """A cluster of three masters. The one that holds the list has a replica."""

    master: Redis
    replica: Redis
    url: str

    def fail_over(self) -> None:
        """kill -9 of the master; the others agree that it is gone, and the replica takes over."""
        self.master.kill()
        self.replica.wait_for("INFO", "replication", told="'role': 'master'")
        self.replica.wait_for("CLUSTER", "INFO", told="cluster_state:ok")


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[Shards]:
    with ExitStack() as stack:

        def node(name: str) -> Redis:
            (tmp_path / name).mkdir()
            options = ("cluster-enabled yes", "cluster-node-timeout 2000")
            return stack.enter_context(Redis(tmp_path / name, *DURABLE, *options))

        master, replica, second, third = map(node, ("master", "replica", "second", "third"))
        slot = master.call("CLUSTER", "KEYSLOT", STATE)
        # All nodes that have slots vote, so the others have some.
        for owner, start, end in ((master, slot, slot), (second, 0, slot - 1), (third, slot + 1, 16383)):
            owner.call("CLUSTER", "ADDSLOTSRANGE", start, end)
        for other in (replica, second, third):
            master.call("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus)
        for each in (master, replica, second, third):
            each.wait_for("CLUSTER", "INFO", told="cluster_known_nodes:4")
            each.wait_for("CLUSTER", "INFO", told="cluster_state:ok")
        replica.call("CLUSTER", "REPLICATE", master.call("CLUSTER", "MYID"))
        replica.wait_for_master(master)
        for each in (second, third):
            each.wait_for("CLUSTER", "NODES", told="slave")
        url = f"redis+cluster://127.0.0.1:{second.port},127.0.0.1:{third.port}"
        create_list(url)
        yield Shards(master, replica, url)


def until_answered(call: Callable[[], object]) -> None:
    """Repeatedly for a minute, in which only StoreError is raised."""
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline:
        with suppress(StoreError):
            call()
            return
        time.sleep(0.2)
    call()


@pytest.mark.slow
def test_a_cluster_fails_over_without_a_restart(shards: Shards) -> None:
    """A revocation acknowledged with ?replicas=1 is known to the replica that takes over. Changes are made
    there at once, and acknowledged with ?replicas=1 when the former master is back as a replica."""
    store, plain = RedisStore(f"{shards.url}?replicas=1", timeout=1), RedisStore(shards.url, timeout=1)
    revoked = [f"{number:022}" for number in range(200)]
    for jti in revoked:
        until_acknowledged(partial(store.revoke, jti, EXP))
    until_answered(partial(store.use, OTHER, EXP, 1))
    assert plain.lookup(JTI, EXP, []) == Entry(False, 0, 0, 0, 0)
    shards.fail_over()
    for opened in (store, plain):
        until_answered(partial(opened.lookup, JTI, EXP, []))
        assert all(opened.lookup(jti, EXP, []).revoked for jti in revoked)
    until_answered(partial(plain.revoke, JTI, EXP))
    assert plain.use(OTHER, EXP, 1) is None
    with pytest.raises(StoreError, match="reached 0 replicas, and must reach 1"):
        store.revoke("after", EXP)
    shards.master.start()
    until_answered(partial(store.revoke, "after", EXP))
    assert shards.master.call("INFO", "replication")["role"] == "slave"
    assert plain.lookup("after", EXP, []).revoked
    assert plain.lookup(JTI, EXP, []).revoked
    store.close()
    plain.close()


@pytest.mark.slow
def test_a_cluster_that_lost_a_change_by_a_failover_is_refused(shards: Shards) -> None:
    """Acknowledged without ?replicas, while the replica lagged. A process that saw it gets no answer until a
    restart."""
    careful, store = RedisStore(f"{shards.url}?replicas=1", timeout=1), RedisStore(shards.url, timeout=1)
    until_acknowledged(partial(careful.revoke, OTHER, EXP))
    careful.close()
    # It cannot log in, and so cannot follow.
    shards.replica.call("CONFIG", "SET", "masterauth", "wrong")
    shards.master.call("CLIENT", "KILL", "TYPE", "replica")
    shards.replica.wait_for("INFO", "replication", told="'master_link_status': 'down'")
    store.revoke(JTI, EXP)
    shards.fail_over()
    until_told(store, "went back to an older state")
    assert_all_fail(store, "went back to an older state")
    store.close()
    store = RedisStore(shards.url, timeout=1)
    assert store.lookup(OTHER, EXP, []).revoked
    assert not store.lookup(JTI, EXP, []).revoked
    store.close()


def until_told(store: RedisStore, text: str) -> None:
    """Until look-ups are refused for this reason; none is answered meanwhile."""
    deadline, told = time.monotonic() + HANG, ""
    while text not in told:
        assert time.monotonic() < deadline, told
        with pytest.raises(StoreError) as caught:
            store.lookup(JTI, EXP, [])
        told = str(caught.value)
        time.sleep(0.1)


def exercise(store: RedisStore) -> None:
    store.revoke(JTI, EXP)
    assert store.use(OTHER, EXP, 1) == 1
    store.advance("sub:a", 1, 1)
    store.purge(100)
    assert store.count() == 2
    with store.snapshot() as snapshot:
        assert len(snapshot.chunk(None, 10).rows) == 2
        told = snapshot.changes(snapshot.point, 10)
        assert told
        assert told.rows == []
    store.ping()


@pytest.mark.slow
def test_sentinels_lead_to_the_master(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """After a failover to the next master, no restart is needed: it has every acknowledged change. With
    min-replicas-to-write, the former master refuses as soon as its replica has left it."""
    folder = tmp_path_factory.mktemp("replica")
    options = (*DURABLE, "min-replicas-to-write 1")
    with (
        Redis(tmp_path, *options) as master,
        Redis(folder, f"replicaof 127.0.0.1 {master.port}", *options) as replica,
        Redis(
            tmp_path_factory.mktemp("sentinel"),
            f"sentinel monitor list 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds list 500",
            is_sentinel=True,
        ) as sentinel,
    ):
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/list/0?replicas=1"
        replica.wait_for_master(master)
        sentinel.wait_for("SENTINEL", "MASTER", "list", told="'num-slaves', '1'")
        create_list(url)
        store = RedisStore(url, timeout=1)
        exercise(store)
        deadline = time.monotonic() + HANG
        sentinel.wait_for("SENTINEL", "FAILOVER", "list", told="INPROG")
        replica.wait_for("INFO", "replication", told="'role': 'master'")
        while True:
            try:
                assert store.lookup(JTI, EXP, []).revoked
                store.revoke("after", EXP)
                break
            except StoreError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert replica.call("HGET", f"{ROWS}{EXP // 3600}", f"{EXP}/after") == "1 0 0"
        store.close()


# URLs and secrets.


def test_a_password_is_told_to_nobody_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In no message, log line or repr; nor is a wrong password."""
    caplog.set_level(logging.DEBUG)
    with Redis(tmp_path, "requirepass hush%hush") as server:
        url = f"redis://:hush%25hush@127.0.0.1:{server.port}/1"
        with pytest.raises(StoreError, match=f"127.0.0.1:{server.port}/1 is gone") as caught:
            open_store(url)
        texts = [str(caught.value)]
        create_list(url)
        store = RedisStore(url)
        texts += [repr(store), str(store), repr(vars(store)), repr(vars(store._link)["_redis"])]
        with pytest.raises(StoreError) as caught:
            open_store(url.replace("%25", ""))
        texts.append(str(caught.value))
        server.kill()
        with pytest.raises(StoreError) as caught:
            store.lookup(JTI, EXP, [])
        texts.append(str(caught.value))
        for text in (*texts, caplog.text):
            assert "hush" not in text
        store.close()


@pytest.mark.parametrize(
    "url",
    ["redis://:secret@[::1", "redis://:secret@h:99999/0", "redis://:secret@h:x", "redis+sentinel://:secret@h",
     "redis://:secret@h?password=secret", "redis://:secret@h#secret", "unix://:secret@", "redis://secret@h", "rediss+nothing://:secret@h"],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_not_repeated(url: str) -> None:
    """The message says how to write a URL."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_every_kind_of_url_is_understood() -> None:
    """Hosts, names, options. With TLS, the server's certificate is checked."""
    assert parse("redis://u%40:p%2F@h/3?replicas=2") == (
        "", [("h", 6379)], "", 2, {"username": "u@", "password": "p/", "db": 3}
    )  # fmt: skip
    assert parse("unix:///run/redis.sock?db=2").where == "/run/redis.sock/2"
    sentinel = parse("redis+sentinel://a:1,[::1]:2,c/name/4")
    assert (sentinel.hosts, sentinel.name) == ([("a", 1), ("::1", 2), ("c", 26379)], "name")
    assert sentinel.options["db"] == 4
    tls = parse("rediss+cluster://h?ssl_ca_certs=/ca.pem")
    assert tls.options["ssl_cert_reqs"] == "required"
    assert tls.options["ssl_check_hostname"]
    assert tls.options["ssl_ca_certs"] == "/ca.pem"


def test_a_socket_leads_to_a_list(tmp_path: Path) -> None:
    """unix:///path."""
    path = tmp_path / "s"
    with Redis(tmp_path, f"unixsocket {path}"):
        create_list(f"unix://{path}?db=2")
        store = RedisStore(f"unix://{path}?db=2")
        exercise(store)
        store.close()


def test_tls_checks_who_answers(tmp_path: Path) -> None:
    """rediss://, with the named authority, or with those of the system."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += [
        "-subj",
        "/CN=x",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run(made, check=True, capture_output=True)
    port = free_port()
    files = (f"tls-cert-file {cert}", f"tls-key-file {key}", f"tls-ca-cert-file {cert}")
    with Redis(tmp_path, f"tls-port {port}", "tls-auth-clients no", *files):
        url = f"rediss://127.0.0.1:{port}"
        with pytest.raises(StoreError, match="certificate verify failed"):
            create_list(url)
        create_list(f"{url}?ssl_ca_certs={cert}")
        with pytest.raises(StoreError, match="certificate verify failed"):
            open_store(f"rediss://localhost:{port}?ssl_ca_certs={cert}")
        store = RedisStore(f"{url}?ssl_ca_certs={cert}")
        exercise(store)
        store.close()


def test_a_missing_driver_is_one_line() -> None:
    """The driver is an extra."""
    program = "import sys; sys.modules['redis'] = None; import signer; signer.open_store('redis://h')"
    made = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=False
    )
    assert (
        "ConfigurationError: A list at a Redis server needs its driver: pip install 'signer-tokens[redis]'."
        in made.stderr
    )


# Waiting for others.


def test_whoever_waits_is_woken_by_a_change(store: RedisStore, redis_url: str) -> None:
    """At once, by any process. A change that was reported before it waited counts, too."""
    other = RedisStore(redis_url)
    store.wait_for_change(5)  # begins to listen
    started = time.monotonic()
    store.wait_for_change(0.3)
    assert time.monotonic() - started > 0.29
    changed: list[float] = []

    def change() -> None:
        time.sleep(0.2)
        changed.append(time.monotonic())
        other.revoke(JTI, EXP)

    thread = threading.Thread(target=change)
    thread.start()
    store.wait_for_change(2 * HANG)
    thread.join()
    assert time.monotonic() - changed[0] < HANG
    other.revoke(OTHER, EXP)
    other.revoke(OTHER, EXP)
    started = time.monotonic()
    store.wait_for_change(2 * HANG)
    assert time.monotonic() - started < HANG
    for _ in range(3):  # each of the changes may wake it once
        started = time.monotonic()
        store.wait_for_change(0.3)
        waited = time.monotonic() - started
    assert waited > 0.29
    other.close()


def test_whoever_cannot_listen_sleeps(server: Redis) -> None:
    """Even if the server dies meanwhile. Once it is back, changes are heard again."""
    store = RedisStore(server.url, timeout=0.3)
    store.wait_for_change(5)
    threading.Timer(0.1, server.kill).start()
    for _ in range(2):
        started = time.monotonic()
        store.wait_for_change(0.5)
        assert time.monotonic() - started > 0.49
    server.start()
    store.wait_for_change(5)
    thread = threading.Timer(0.2, store.revoke, (JTI, EXP))
    thread.start()
    started = time.monotonic()
    store.wait_for_change(2 * HANG)
    assert time.monotonic() - started < HANG
    thread.join()
    store.close()


def test_whoever_waits_hears_of_the_end(redis_url: str) -> None:
    """Closing does not wait for callers that wait."""
    store = RedisStore(redis_url)
    store.wait_for_change(5)
    thread = threading.Timer(0.2, store.close)
    thread.start()
    started = time.monotonic()
    with pytest.raises(StoreError, match="closed"):
        store.wait_for_change(2 * HANG)
    assert time.monotonic() - started < HANG
    with pytest.raises(StoreError, match="closed"):
        store.wait_for_change(0)
    thread.join()


def test_a_child_cannot_wait(store: RedisStore) -> None:
    """And it does not close its parent's connections."""
    child = os.fork()
    if child == 0:
        try:
            store.close()
            store.wait_for_change(0)
        except StoreError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    store.ping()
