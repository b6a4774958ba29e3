"""Checks every engine against the contract, signer.stores.contract.Store."""

import os
import string
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signer import Store, open_store
from signer.errors import StoreError
from signer.stores import Entry
from signer.stores.names import by_subject, groups, id_of_group, id_of_row, row
from signer.tokens.claims import Claims

JTI, OTHER = "a" * 22, "b" * 22
EXP = 1_800_000_000


def _url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URLs of empty lists of each kind; a new kind is one more line here."""
    urls: dict[str, Callable[[], str]] = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/list.db",
        "redis": lambda: str(request.getfixturevalue("redis_url")),
        "valkey": lambda: str(request.getfixturevalue("valkey_url")),
        "postgres": lambda: str(request.getfixturevalue("postgres_url")),
    }
    return urls[request.param]()


@pytest.fixture(params=["memory", "sqlite", "redis", "valkey", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """One list of each kind."""
    opened = open_store(_url(request, tmp_path))
    yield opened
    opened.close()


def test_an_empty_list_knows_nothing(store: Store) -> None:
    """Nothing is revoked until a caller revokes it."""
    assert store.lookup(JTI, EXP, []) == Entry(revoked=False, uses=0, generation=0, horizon=0)
    assert store.count() == 0
    store.ping()


def test_revoke_is_idempotent_and_of_one_token(store: Store) -> None:
    """The row is named by id and expiry together."""
    store.revoke(JTI, EXP)
    store.revoke(JTI, EXP)
    assert store.lookup(JTI, EXP, []).revoked
    assert not store.lookup(OTHER, EXP, []).revoked
    assert not store.lookup(JTI, EXP + 1, []).revoked
    assert store.count() == 1


def test_revoking_tells_what_is_known(store: Store) -> None:
    """About the token and its groups, at that moment."""
    assert store.revoke(JTI, EXP) == Entry(revoked=True)
    store.rotate(OTHER, EXP, 7)
    generation = store.advance("sub:a", 9, 100)
    newest = store.advance("sub:b", 9, 100)
    assert store.revoke(OTHER, EXP, ["sub:a", "sub:c"]) == Entry(
        True, 0, 7, generation, last_generation=newest
    )
    assert store.revoke(OTHER, EXP, []) == Entry(True, 0, 7, last_generation=newest)


def test_no_row_is_made_behind_the_horizon(store: Store) -> None:
    """No purge would look for such a row again, and such a token cannot be used anyway."""
    store.revoke(JTI, 99)
    store.purge(100, 0)
    count = store.count()
    assert store.revoke(OTHER, 99) == Entry(horizon=100)
    assert store.count() == count
    assert store.revoke(OTHER, 100) == Entry(revoked=True, horizon=100)


def test_use_counts_up_to_the_limit_and_no_further(store: Store) -> None:
    """None means that the use was refused and not counted."""
    assert [store.use(JTI, EXP, 2) for _ in range(4)] == [1, 2, None, None]
    assert store.lookup(JTI, EXP, []).uses == 2
    assert store.use(JTI, EXP, 3) == 3
    assert store.use(OTHER, EXP, 1) == 1
    assert [store.use("c" * 22, EXP, limit) for limit in (0, -1)] == [None, None]
    assert store.lookup("c" * 22, EXP, []).uses == 0


def test_rotating_tells_everybody_the_first_time(store: Store) -> None:
    """So that all callers make the same successor."""
    assert [store.rotate(JTI, EXP, now) for now in (100, 101, 99)] == [100, 100, 100]
    assert store.lookup(JTI, EXP, []) == Entry(rotated_at=100)
    assert store.rotate(OTHER, EXP, 101) == 101


def test_a_token_is_used_or_rotated_or_revoked(store: Store) -> None:
    """A used token has no successor, a rotated one cannot be used, and a revoked one neither."""
    store.use(JTI, EXP, 2)
    assert store.rotate(JTI, EXP, 100) is None
    store.rotate(OTHER, EXP, 100)
    assert store.use(OTHER, EXP, 2) is None
    store.revoke(OTHER, EXP)
    assert store.lookup(OTHER, EXP, []) == Entry(revoked=True, rotated_at=100)
    assert store.rotate(OTHER, EXP, 100) is None
    store.purge(EXP + 1)
    assert store.rotate(JTI, EXP, 100) is None


def test_a_use_is_not_granted_past_the_horizon(store: Store) -> None:
    """A purge between look-up and use may have deleted the count."""
    store.use(JTI, 100, 1)
    store.purge(101)
    assert store.use(JTI, 100, 1) is None


def test_a_revoked_token_cannot_be_used_and_keeps_its_count(store: Store) -> None:
    """Revoking and using share a row."""
    store.use(JTI, EXP, 5)
    store.revoke(JTI, EXP)
    assert store.use(JTI, EXP, 5) is None
    assert store.lookup(JTI, EXP, []) == Entry(revoked=True, uses=1)


def test_generations_grow_whatever_the_clock_does(store: Store) -> None:
    """Across groups, too: each is higher than every one given out before."""
    assert store.advance("sub:a", 1000, EXP) == 1000
    assert store.advance("sub:b", 500, EXP) == 1001
    assert store.advance("sub:a", 1001, EXP) == 1002
    assert store.advance("sub:a", 9000, EXP) == 9000
    assert store.lookup(JTI, EXP, ["sub:a"]).generation == 9000
    assert store.lookup(JTI, EXP, ["sub:b"]).generation == 1001
    assert store.lookup(JTI, EXP, ["sub:c"]).generation == 0


def test_a_token_has_the_highest_generation_of_its_groups(store: Store) -> None:
    """One look-up answers for the token and up to four groups."""
    for name, generation in (("sub:a", 10), ("sid:s", 30), ("client_id:c", 20), ("jti:j", 5)):
        store.advance(name, generation, EXP)
    assert store.lookup(JTI, EXP, ["jti:j", "sub:a", "sid:s", "client_id:c"]).generation == 32
    assert store.lookup(JTI, EXP, ["sub:a", "client_id:x"]).generation == 10


def test_generations_grow_past_a_purge(store: Store) -> None:
    """The row may go, but the list still knows that its number was given out."""
    store.advance("sub:a", 5000, 10)
    assert store.purge(16) == 1
    assert store.advance("sub:b", 1, EXP) == 5001


def test_advancing_never_shortens_a_row(store: Store) -> None:
    """If a clock steps back, a group must not be purged earlier."""
    store.advance("sub:a", 1000, 100)
    store.advance("sub:a", 1001, 50)
    assert store.purge(101) == 0
    assert store.lookup(JTI, EXP, ["sub:a"]).generation == 1001


def test_a_group_lives_from_its_generation_or_the_horizon_on(store: Store) -> None:
    """So a clock that is behind what the list has seen shortens the life of no row."""
    store.advance("sub:a", 500_000, 10)
    store.advance("sub:b", 1000, 10)
    assert store.purge(510) == 0
    store.purge(900)
    store.advance("sub:c", 600_000, 10)
    assert store.purge(910) == 0
    assert store.purge(911) == 1


def test_purge_takes_what_expired_before_and_nothing_else(store: Store) -> None:
    """Strictly before that second."""
    for exp in (9, 10, 11):
        store.revoke(JTI, exp)
        store.advance(f"sub:{exp}", exp, exp)
    assert store.purge(10) == 2
    assert store.count() == 4
    assert store.lookup(JTI, 10, []).revoked
    assert store.purge(10) == 0


def test_purge_takes_at_most_its_limit(store: Store) -> None:
    """So that no writer waits long, and the caller knows when nothing is left."""
    for number in range(25):
        store.revoke(f"{number:022d}", 5 + number % 3)
        store.advance(f"sub:{number}", 1, 5)
    assert [store.purge(100, limit=20) for _ in range(4)] == [20, 20, 10, 0]


def test_the_horizon_is_told_and_never_steps_back(store: Store) -> None:
    """It says about which tokens the list knows nothing any more."""
    store.purge(100)
    store.purge(50)
    assert store.lookup(JTI, EXP, []).horizon == 100


def test_a_list_is_not_carried_across_fork(store: Store) -> None:
    """SQLite's locks do not survive a fork (sqlite.org/howtocorrupt.html, 2.7), and a copy in memory hears of
    no change. The child is refused even if another thread holds the lock at the fork."""
    read, write = os.pipe()
    held = [
        getattr(store, name)
        for name in ("_lock", "_read_lock", "_copy_lock", "_write_lock")
        if hasattr(store, name)
    ]
    with ExitStack() as locked:
        for lock in held:
            locked.enter_context(lock)
        child = os.fork()
    if child == 0:
        try:
            for call in (lambda: store.lookup(JTI, EXP, []), lambda: store.revoke(JTI, EXP), store.ping):
                try:
                    call()
                except StoreError as error:
                    os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        assert told.read().count(b"fork()") == 3


def test_a_closed_list_answers_nothing(store: Store) -> None:
    """A closed list is not an empty one."""
    store.revoke(JTI, EXP)
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.lookup(JTI, EXP, []),
        lambda: store.revoke(JTI, EXP),
        lambda: store.use(JTI, EXP, 1),
        lambda: store.advance("sub:a", 1, EXP),
        lambda: store.purge(1),
        store.count,
        store.ping,
    ]
    for call in calls:
        with pytest.raises(StoreError):
            call()


def test_threads_share_it(store: Store) -> None:
    """Of 8 threads with 50 tries each, exactly as many as the limit get a number, and each number once."""
    barrier = threading.Barrier(8)

    def claim(_: int) -> list[int | None]:
        barrier.wait()
        return [store.use(JTI, EXP, 100) for _ in range(50)]

    with ThreadPoolExecutor(8) as pool:
        numbers = [number for part in pool.map(claim, range(8)) for number in part if number is not None]
    assert sorted(numbers) == list(range(1, 101))


def claims(jti: str = JTI, *, gen: int = 0, exp: int = EXP, **more: Any) -> Claims:
    return Claims(jti=jti, exp=exp, purpose="access", gen=gen, **more)


#: Lists that keep no index of their own: they say of no token that it is clear.
ASKED_ALWAYS = ("PostgresStore", "RedisStore")


def says_clear(store: Store, of: Claims, end: int = EXP) -> bool:
    """What the view says once its index has had time to be read."""
    return any(store.view.is_clear(of, end) for _ in range(3))


def is_clear(store: Store, of: Claims, end: int = EXP) -> bool:
    """The same. If the list itself is always asked, what the look-up says."""
    if type(store).__name__ not in ASKED_ALWAYS:
        return says_clear(store, of, end)
    assert not says_clear(store, of, end)
    entry = store.lookup(row(of), of.exp, groups(of))
    return entry.generation <= of.gen and entry.horizon <= end and entry[:3] == (False, 0, 0)


def test_a_token_that_is_in_no_list_is_clear(store: Store) -> None:
    """With any ids, and beside rows and groups of other tokens."""
    store.revoke(row(claims(OTHER)), EXP)
    store.advance(by_subject("bob"), 1_800_000_000_000, 10**6)
    assert is_clear(store, claims(sub="alice", sid="s", client_id="c"))


@pytest.mark.parametrize("how", ["revoke", "use", "rotate"])
def test_a_token_with_a_row_is_not_clear(store: Store, how: str) -> None:
    """From the moment at which the change has returned, whatever was asked before."""
    assert is_clear(store, claims())
    changes: dict[str, Callable[[], object]] = {
        "revoke": lambda: store.revoke(row(claims()), EXP),
        "use": lambda: store.use(row(claims()), EXP, 1),
        "rotate": lambda: store.rotate(row(claims()), EXP, 1),
    }
    changes[how]()
    assert not store.view.is_clear(claims(), EXP)
    assert is_clear(store, claims(OTHER))


@pytest.mark.parametrize(
    "member", [{"sub": "a/b:c"}, {"client_id": "c"}, {"sid": "s"}, {"sub": "x", "client_id": "c", "sid": "s"}]
)
def test_a_token_of_a_later_generation_is_clear_again(store: Store, member: dict[str, Any]) -> None:
    """For each of its groups, and for a chain that it began."""
    for group in groups(claims(**member)):
        before = claims(**member)
        generation = store.advance(group, 1_800_000_000_000, 10**6)
        assert not store.view.is_clear(before, EXP), group
        assert is_clear(store, claims(gen=generation, **member)), group


@pytest.mark.parametrize(
    ("strange", "members"),
    [
        ({"jti": f"x/{JTI}"}, {}),
        ({}, {"client_id": "x/c"}),
        ({}, {"sid": "x/s"}),
    ],
)
def test_an_id_with_a_slash_is_looked_up(
    store: Store, strange: dict[str, Any], members: dict[str, Any]
) -> None:
    """Whoever has a key can sign any id, even one that cannot be told from the end of a name."""
    token = claims(**strange, **members)
    store.advance(by_subject("anybody"), 1, EXP)
    assert not says_clear(store, token)


def test_a_closed_list_calls_nothing_clear(store: Store) -> None:
    """The caller learns that, from this or from the look-up after it."""
    assert is_clear(store, claims())
    store.close()
    with suppress(StoreError):
        assert not any(store.view.is_clear(claims(), EXP) for _ in range(3))


def test_nothing_behind_the_horizon_is_clear(store: Store) -> None:
    """Its rows may be purged; the look-up decides what that means."""
    assert is_clear(store, claims(exp=100), 100)
    store.purge(101)
    assert not store.view.is_clear(claims(exp=100), 100)
    assert is_clear(store, claims(exp=101), 101)


def test_a_purge_takes_nothing_from_what_remains(store: Store) -> None:
    """Two rows may have the same id: another purpose's, or the guesses at a challenge."""
    store.revoke(row(claims()), EXP)
    store.revoke(f"other/{JTI}", 100)
    store.revoke(f"other/{OTHER}", 100)
    store.purge(101)
    assert not store.view.is_clear(claims(), EXP)
    assert is_clear(store, claims(OTHER))


@given(
    st.builds(
        Claims,
        jti=st.text(string.ascii_letters + "-_", min_size=22, max_size=22),
        exp=st.just(EXP),
        purpose=st.from_regex(r"\A(?!kid\Z)[A-Za-z0-9][A-Za-z0-9._:-]{0,60}\Z")
        | st.sampled_from(["sub:x", "jti:", "sid:a"]),
        sub=st.none() | st.text(min_size=1),
        client_id=st.none() | st.from_regex(r"\A[A-Za-z0-9._~-]{1,64}\Z"),
        sid=st.none() | st.from_regex(r"\A[A-Za-z0-9._~-]{1,64}\Z"),
    )
)
def test_every_name_tells_an_id_of_its_token(token: Claims) -> None:
    """The index knows the name by that id. If it took out another id, it would overlook the row."""
    ids = {token.jti, token.sub, token.client_id, token.sid}
    assert id_of_row(row(token)) == token.jti
    assert {id_of_group(group) for group in groups(token)} <= ids


def test_together_is_all_or_nothing(store: Store) -> None:
    """If the list can do so: changes are visible within the group, and to no caller if it fails."""
    can = store.together() is not None
    with store.together() or nullcontext():
        assert store.use(JTI, EXP, 1) == 1
        assert store.use(JTI, EXP, 1) is None
        assert store.lookup(JTI, EXP, []).uses == 1
    assert store.lookup(JTI, EXP, []).uses == 1
    with suppress(ZeroDivisionError), store.together() or nullcontext():
        store.use(OTHER, EXP, 1)
        store.advance("sub:a", 1, EXP)
        raise ZeroDivisionError
    assert store.lookup(OTHER, EXP, ["sub:a"]) == (
        Entry() if can else Entry(uses=1, generation=1, last_generation=1)
    )
    store.revoke(OTHER, EXP)
    assert store.lookup(OTHER, EXP, []).revoked


def test_a_purge_within_is_made(store: Store) -> None:
    """Even if an earlier purge has already raised the horizon."""
    for number in range(3):
        store.revoke(f"access/{number:022}", 100)
    assert store.purge(200, limit=1) == 1
    with store.together() or nullcontext():
        assert store.purge(200) == 2
    assert store.count() == 0


@pytest.mark.parametrize("store", ["sqlite", "postgres"], indirect=True)
def test_where_one_fails_all_are_told_why(store: Store) -> None:
    """Changes after it, and those before it. Otherwise the callers would not learn that the disk is full."""
    together = store.together()
    assert together is not None
    with pytest.raises(StoreError, match=r"none was made.*surrogates"), together:  # noqa: PT012
        store.revoke(JTI, EXP)
        for name in ("\udcff", OTHER):
            with pytest.raises(StoreError, match="surrogates"):
                store.revoke(name, EXP)
    assert store.count() == 0


def test_what_others_do_meanwhile_is_not_in_it(store: Store) -> None:
    """They wait, and their changes stay, whatever happens to the group."""
    with ThreadPoolExecutor(1) as pool:
        with suppress(ZeroDivisionError), store.together() or nullcontext():
            other = pool.submit(store.revoke, OTHER, EXP)
            store.revoke(JTI, EXP)
            raise ZeroDivisionError
        other.result(10)
    assert store.lookup(OTHER, EXP, []).revoked


def test_the_longest_ids_can_be_revoked(store: Store) -> None:
    """A token made with a purpose's key by an attacker: 255 different characters of four bytes each."""
    ids = ["".join(chr(0x10000 + 97 * number + place) for place in range(255)) for number in range(3)]
    token = Claims(jti=ids[0], exp=EXP, purpose="p" * 64, sid=ids[1], client_id=ids[2])
    store.revoke(row(token), EXP, groups(token))
    for group in groups(token):
        store.advance(group, 9, EXP)
    assert store.lookup(row(token), EXP, groups(token)).revoked
    assert not store.view.is_clear(token, EXP)
