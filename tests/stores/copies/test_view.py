"""A copy of a list on another machine: that it is fresh, or says nothing."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.clock import HANG, eventually
from support.postgres import Postgres
from support.redis_server import Redis
from support.service import KEY

from signer import Signer, Store, open_store
from signer.errors import ClockError, StoreError, SystemUnavailable, TokenError, TokenRevoked
from signer.policy import UNHEARD
from signer.stores.contract import Entry, Row
from signer.stores.copies import loader, refresher
from signer.stores.copies.full import NO_COPY, FullCopy
from signer.stores.copies.view import CopyView
from signer.stores.direct import DirectView
from signer.stores.names import by_subject, groups, row
from signer.stores.opening import create_list
from signer.tokens.claims import Claims

EXP = 4_000_000_000
BOUND = 1.0


def claims(number: int = 0, **more: Any) -> Claims:
    return Claims(jti=f"{number:022}", exp=EXP, purpose="access", **more)


@pytest.fixture
def lists(engine_url: str) -> Iterator[Callable[..., Store]]:
    """Opens one list several times, as several processes would."""
    opened: list[Store] = []

    def open_one(staleness: float | None = BOUND) -> Store:
        opened.append(open_store(engine_url, staleness=staleness))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def knows(store: Store, of: Claims) -> bool:
    """Whether a fresh copy has something against this token."""
    try:
        return not store.view.is_clear(of, EXP)
    except StoreError:
        return False


CHANGES: dict[str, tuple[Callable[[Store], object], Entry]] = {
    "revoke": (lambda store: store.revoke(row(claims()), EXP), Entry(revoked=True)),
    "use": (lambda store: store.use(row(claims()), EXP, 2), Entry(uses=1)),
    "rotate": (lambda store: store.rotate(row(claims()), EXP, 7), Entry(rotated_at=7)),
    "advance": (lambda store: store.advance(by_subject("alice"), 9, EXP), Entry(generation=9)),
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_another_node_does_is_known_within_the_bound(lists: Callable[..., Store], how: str) -> None:
    """And long before the bound, because the engine notifies its readers."""
    here, there = lists(100 * HANG), lists()
    token = claims(sub="alice")
    assert here.view.is_clear(token, EXP)
    change, entry = CHANGES[how]
    change(there)
    eventually(lambda: knows(here, token))
    known = entry._replace(last_generation=entry.generation, unheard=UNHEARD)
    assert here.view.recall(row(token), EXP, groups(token)) == known
    assert here.view.is_clear(claims(1, sub="bob"), EXP)


def test_it_asks_the_list_nothing_for_a_validation(lists: Callable[..., Store]) -> None:
    """Whether the token is listed or not."""
    store = lists()
    signer = Signer(KEY, store)
    good, bad = Signer(KEY).issue(sub="alice"), Signer(KEY).issue()
    signer.revoke(bad)
    eventually(lambda: knows(store, Signer(KEY).validate(bad)))
    asked: list[str] = []
    store.lookup = lambda *args: asked.append("lookup")  # type: ignore[method-assign,assignment]
    assert signer.validate(good).sub == "alice"
    with pytest.raises(TokenRevoked):
        signer.validate(bad)
    assert asked == []


def test_uses_and_new_tokens_ask_the_list(
    lists: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that is slightly behind would grant uses of a revoked token, and issue tokens that are refused
    at once."""
    here, there = lists(60.0), lists()
    with deaf(here, monkeypatch):
        token = Signer(KEY, here).issue(sub="alice", max_uses=1)
        Signer(KEY, there).revoke_subject("alice")
        assert Signer(KEY, here).validate(token).sub == "alice"  # the copy is behind, which the bound allows
        with pytest.raises(TokenRevoked):
            Signer(KEY, here).consume(token)
        with pytest.raises(TokenError):
            Signer(KEY, here).rotate(token)
        later = Signer(KEY, here).issue(sub="alice")
        assert Signer(KEY, lists(0)).validate(later).sub == "alice"


def behind() -> refresher.Progress:
    time.sleep(0.01)
    return refresher.Progress(None, is_whole=False)


@contextmanager
def deaf(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While this lasts, the copy takes in no changes."""
    assert isinstance(store.view, CopyView)
    with monkeypatch.context() as patch:
        patch.setattr(store.view._refresher, "_step", behind)
        time.sleep(1.2)
        yield


def test_a_copy_that_is_too_old_says_nothing(
    lists: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """About any token. Once it is fresh again, it answers again."""
    store = lists(BOUND)
    with deaf(store, monkeypatch):
        for call in (lambda: store.view.is_clear(claims(), EXP), lambda: store.view.recall("x", EXP, ())):
            with pytest.raises(StoreError, match="REVOCATION_STALENESS_SECONDS"):
                call()
        freshness = store.view.freshness
        assert freshness
        assert freshness.age > BOUND
    eventually(lambda: not (store.view.freshness and store.view.freshness.age > BOUND))
    assert store.view.is_clear(claims(), EXP)


def test_a_copy_begins_whole(lists: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if that takes many steps; until then the list is asked."""
    monkeypatch.setattr(loader, "STEP", 7)
    there = lists(0)
    for number in range(50):
        there.revoke(row(claims(number)), EXP)
    here = lists()
    assert not any(here.view.is_clear(claims(number), EXP) for number in range(50))
    assert here.view.recall(row(claims(7)), EXP, ()).revoked
    eventually(lambda: here.view.is_prompt)
    assert not any(here.view.is_clear(claims(number), EXP) for number in range(50))
    assert here.view.is_clear(claims(50), EXP)


def test_a_list_too_large_for_a_copy_is_asked(
    lists: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every time. Once the list has shrunk, there is a copy again."""
    monkeypatch.setattr(loader, "MAX_ROWS", 20)
    monkeypatch.setattr(loader, "REST", 0.3)
    there, here = lists(0), lists()
    for number in range(30):
        there.revoke(row(claims(number)), EXP if number else 100)
    eventually(lambda: not here.view.is_prompt)
    for number in range(1, 30):
        assert not here.view.is_clear(claims(number), EXP)
        assert here.view.recall(row(claims(number)), EXP, ()).revoked
    assert not here.view.recall(row(claims(31)), EXP, ()).revoked
    monkeypatch.setattr(loader, "MAX_ROWS", 1000)
    eventually(lambda: here.view.is_prompt)
    assert not here.view.is_clear(claims(7), EXP)
    assert here.view.is_clear(claims(31), EXP)


def test_what_is_purged_leaves_the_copy(lists: Callable[..., Store]) -> None:
    """And no token that expired before the horizon is clear."""
    store = lists()
    there = lists(0)
    there.revoke("access/x", 100)
    there.revoke("access/y", 8000)
    there.purge(7500)
    kept = store.view
    assert isinstance(kept, CopyView)
    eventually(lambda: kept._refresher.copy.horizon == 7500)
    assert len(kept._refresher.copy) == 1
    assert not store.view.is_clear(claims(), 7499)
    assert store.view.is_clear(claims(), 7500)


def test_nothing_is_clear_in_no_copy() -> None:
    """And nothing can be looked up in it."""
    assert not NO_COPY.is_clear(claims(), EXP)
    with pytest.raises(ClockError):
        Signer(KEY, Looked(NO_COPY)).validate(Signer(KEY).issue())  # type: ignore[arg-type]


class Looked:
    """A list that has only what a validation asks."""

    def __init__(self, copy: FullCopy) -> None:
        self.view = DirectView(copy.lookup, copy.is_clear, is_local=True)


def test_the_same_row_again_is_what_it_is_now() -> None:
    """A group never goes back to an earlier generation."""
    copy = FullCopy()
    for entry in (
        Row("access/x", EXP, uses=1),
        Row("access/x", EXP, uses=2),
        Row("sub:a", EXP, 9),
        Row("sub:a", EXP, 8),
    ):
        copy.add(entry)
    assert copy.lookup("access/x", EXP, ["sub:a"]) == Entry(uses=2, generation=9, last_generation=9)
    assert len(copy) == 2


class Server:
    """An engine that can be killed and stopped."""

    def __init__(self, server: Postgres | Redis) -> None:
        self._server = server
        self.url = server.url
        self.kill, self.start, self.signal = server.kill, server.start, server.signal


@pytest.fixture(params=["postgres", "redis"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if request.param == "postgres":
        server = Postgres("fsync=on")
        yield Server(server)
        server.remove()
        return
    with Redis(tmp_path, "appendonly yes", "appendfsync always") as running:
        create_list(running.url)
        yield Server(running)


def outcomes(calls: Sequence[Callable[[], object]]) -> list[bool]:
    answered = []
    for call in calls:
        try:
            call()
        except SystemUnavailable:
            answered.append(False)
        else:
            answered.append(True)
    return answered


@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.slow
def test_it_outlives_its_engine_for_as_long_as_the_bound(engine: Server, how: str) -> None:
    """After that it refuses, and recovers by itself. Changes that were acknowledged before are kept."""
    with closing(open_store(engine.url, staleness=2.0)) as store:
        signer = Signer(KEY, store)
        bad, good = Signer(KEY).issue(), Signer(KEY).issue()
        signer.revoke(bad)
        eventually(lambda: knows(store, Signer(KEY).validate(bad)))
        if how == "killed":
            engine.kill()
        else:
            engine.signal(signal.SIGSTOP)
        with pytest.raises(TokenRevoked):
            signer.validate(bad)
        assert signer.validate(good)
        eventually(lambda: outcomes([lambda: signer.validate(good)]) == [False])
        # Another token, because a change that was sent to an engine that hangs may or may not be made.
        other = Signer(KEY).issue()
        assert outcomes([lambda: signer.revoke(other), lambda: signer.validate(good)]) == [False, False]
        if how == "killed":
            engine.start()
        else:
            engine.signal(signal.SIGCONT)
        eventually(lambda: outcomes([lambda: signer.validate(good)]) == [True])
        with pytest.raises(TokenRevoked):
            signer.validate(bad)


def test_a_copy_is_not_carried_across_fork(lists: Callable[..., Store]) -> None:
    """In the child, no thread keeps it fresh."""
    store = lists(60.0)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            store.view.is_clear(claims(), EXP)
        except StoreError as error:
            os.write(write, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"fork" in os.read(read, 1000)
    os.close(read)
    os.close(write)


def test_it_waits_longer_after_each_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to a second, and with a random part, so that not all processes return at the same moment."""
    monkeypatch.setattr(refresher.Refresher, "__init__", lambda self: None)
    pauses = [[refresher.Refresher()._pause(failures) for _ in range(50)] for failures in (1, 3, 9, 100_000)]  # type: ignore[call-arg]
    assert [max(some) <= most for some, most in zip(pauses, (0.04, 0.16, 1, 1), strict=True)] == [True] * 4
    assert min(pauses[-1]) >= 0.5
    assert all(len(set(some)) > 40 for some in pauses)


class Steps:
    """The steps of a Refresher, given one by one."""

    def __init__(self, *steps: Callable[[], FullCopy | None]) -> None:
        self._steps = list(steps)

    def __call__(self) -> refresher.Progress:
        copy = (self._steps.pop(0) if self._steps else FullCopy)()
        return refresher.Progress(copy, copy is not None)

    def followed(self, staleness: float = 60.0) -> refresher.Refresher:
        return refresher.Refresher(self, lambda seconds: time.sleep(0.01), staleness, lambda: None)


def fails(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


def slowly() -> FullCopy:
    time.sleep(0.2)
    return FullCopy()


def test_a_copy_is_as_old_as_the_question() -> None:
    """Not as the answer, because the list may have changed while the answer was on its way."""
    with closing(Steps(slowly, slowly, slowly).followed()) as kept:
        assert kept.freshness.age >= 0.2


def test_a_copy_that_takes_longer_than_its_bound_is_none() -> None:
    """However often it is refreshed."""
    with closing(Steps(*[slowly] * 100).followed(0.1)) as kept:
        for _ in range(20):
            with pytest.raises(StoreError):
                kept.copy.lookup("x", EXP, ())
            time.sleep(0.02)


def test_whatever_goes_wrong_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """If the thread ended, the copy would never be refreshed again."""
    last = FullCopy()
    steps = Steps(FullCopy, fails(StoreError("no")), fails(ZeroDivisionError()), lambda: None, lambda: last)
    with closing(steps.followed()) as kept:
        eventually(lambda: kept.copy is last or not steps._steps)
    assert "The list cannot be followed: no" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_copy_that_is_too_old_says_why() -> None:
    """It gives the latest error; or, without an error, that the list is too slow."""
    with closing(Steps(FullCopy, *[fails(StoreError("It went back."))] * 1000).followed(0.1)) as kept:
        eventually(lambda: _refusal(kept) != "")
        assert _refusal(kept).endswith("(REVOCATION_STALENESS_SECONDS). It went back.")
    with closing(Steps(*[slowly] * 100).followed(0.1)) as kept:
        eventually(lambda: _refusal(kept) != "")
        assert "does not answer fast enough" in _refusal(kept)


def _refusal(kept: refresher.Refresher) -> str:
    try:
        kept.copy.lookup("x", EXP, ())
    except StoreError as error:
        return str(error)
    return ""


def test_a_list_that_cannot_be_read_at_the_start_is_an_error() -> None:
    """There is no copy to begin with."""
    with pytest.raises(StoreError, match="no"):
        Steps(fails(StoreError("no"))).followed()


def test_without_a_bound_the_list_is_asked(lists: Callable[..., Store]) -> None:
    """By every caller that has not caught up. However fresh the copy is, it does not answer."""
    here, there = lists(0), lists(None)
    token = claims()
    assert not here.view.is_prompt
    assert not here.view.is_clear(token, EXP)
    there.revoke(row(token), EXP)
    assert here.view.recall(row(token), EXP, ()).revoked


def test_a_copy_that_caught_up_knows_all_there_was(lists: Callable[..., Store]) -> None:
    """Everything up to the moment of the question. For that moment, the list is not asked again."""
    here, there = lists(0), lists(None)
    for number in range(20):
        there.revoke(row(claims(number)), EXP)
        moment = refresher.now()
        caught_up = here.view.catch_up()
        assert caught_up is not None
        assert caught_up >= moment
        assert not here.view.at(moment).is_clear(claims(number), EXP)
        assert here.view.at(moment).is_clear(claims(number + 1), EXP)
    asked: list[str] = []
    here.lookup = lambda *args: asked.append("lookup") or Entry()  # type: ignore[method-assign,func-returns-value]
    assert here.view.at(moment).recall(row(claims(0)), EXP, ()).revoked
    assert asked == []
    with pytest.raises(StoreError, match="no such copy"):
        here.view.at(refresher.now()).recall(row(claims(0)), EXP, ())
    assert asked == []


def test_catching_up_fails_where_the_list_does(engine: Server) -> None:
    """And nothing is answered until it recovers."""
    with closing(open_store(engine.url, staleness=0)) as store:
        engine.kill()
        moment = refresher.now()
        with pytest.raises(StoreError):
            store.view.catch_up()
        with pytest.raises(StoreError):
            store.view.at(moment).recall("x", EXP, ())


def test_a_child_of_a_fork_is_told_so_whatever_was_under_way() -> None:
    """The thread that held the lock does not exist in the child."""
    with closing(Steps(FullCopy, *[slowly] * 50).followed()) as kept:
        time.sleep(0.1)  # in the middle of a step
        if (child := os.fork()) == 0:
            try:
                kept.catch_up()
            except StoreError as error:
                os._exit(0 if "fork" in str(error) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


def test_who_catches_up_does_not_wait_for_a_whole_list(
    lists: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns that there is no copy yet, and asks the list."""
    there, here = lists(None), lists(0)
    for number in range(30):
        there.revoke(row(claims(number)), EXP)
    eventually(lambda: here.view.catch_up() is not None)
    monkeypatch.setattr(loader, "STEP", 1)
    assert isinstance(here.view, CopyView)
    here.view._loader._begin()
    assert here.view.catch_up() is None
    assert here.view.recall(row(claims(3)), EXP, ()).revoked
    eventually(lambda: here.view.catch_up() is not None)


def test_a_list_that_outgrows_its_copy_is_asked_at_once(
    lists: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No caller is refused while the copy, which is too small, is loaded anew."""
    monkeypatch.setattr(loader, "MAX_ROWS", 20)
    monkeypatch.setattr(loader, "STEP", 1)
    there, here = lists(None), lists(10.0)
    answered = []
    for number in range(40):
        there.revoke(row(claims(number)), EXP)
        answered += outcomes([lambda: here.view.is_clear(claims(99), EXP) or here.view.recall("x", EXP, ())])
        time.sleep(0.03)
    assert all(answered)
    assert not here.view.is_prompt
    assert here.view.recall(row(claims(39)), EXP, ()).revoked


@pytest.mark.parametrize("bound", [0, 60.0])
def test_where_nothing_may_wait_a_copy_that_goes_is_an_error(
    lists: Callable[..., Store], bound: float
) -> None:
    """If the list were asked for one call, the event loop would stand still for all."""
    here = lists(bound)
    moment = refresher.now()
    eventually(lambda: here.view.catch_up() is not None)
    assert isinstance(here.view, CopyView)
    pinned = here.view.at(moment)
    assert pinned.is_clear(claims(), EXP)
    here.view._refresher._fresh = (refresher.now(), NO_COPY)
    asked: list[str] = []
    here.lookup = lambda *args: asked.append("lookup") or Entry()  # type: ignore[method-assign,func-returns-value]
    for call in (lambda: pinned.is_clear(claims(), EXP), lambda: pinned.recall("x", EXP, ())):
        with pytest.raises(StoreError, match="no such copy"):
            call()
    assert asked == []


def test_a_copy_that_is_loaded_holds_nobody_up() -> None:
    """Callers that want to catch up learn at once that there is none, and leave the lock to the loading
    thread."""

    def step() -> refresher.Progress:
        time.sleep(0.005)
        return refresher.Progress(NO_COPY, is_whole=False)

    with closing(refresher.Refresher(step, time.sleep, 0, lambda: None)) as kept:
        began = time.monotonic()
        assert [kept.catch_up() for _ in range(1000)] == [None] * 1000
        assert time.monotonic() - began < 4  # a step each would take 5


def test_groups_that_expired_leave_the_copy() -> None:
    """Hour by hour, as tokens do. The groups that are left still count."""
    copy = FullCopy()
    for number in range(100):
        copy.add(Row(f"sub:{number}", 3600 * number, generation=9))
        copy.add(Row(f"access/{number:022}", 3600 * number, revoked=True))
    copy.horizon = 3600 * 90 + 7
    assert len(copy) == 20
    assert copy.lookup("x", 0, ["sub:10"]).generation == 0
    assert copy.lookup("x", 0, ["sub:95"]).generation == 9
    assert not copy.is_clear(claims(7, sub="95"), EXP)
    assert copy.is_clear(claims(7, sub="10"), EXP)
