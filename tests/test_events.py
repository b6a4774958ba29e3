"""Events, and the hooks that are notified of them."""

import gc
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.clock import Clock
from support.service import KEY

from signer import Claims, Signer, Store, TokenError
from signer.errors import (
    AuditError,
    RequestInvalid,
    StoreError,
    StoreRequired,
    TokenRevoked,
    TokenRotated,
    TokenUsed,
)
from signer.events import CHANGES, NAMES, CountingHook, Event, Hook
from signer.stores.direct import DirectView
from signer.stores.memory import MemoryStore
from signer.stores.sqlite.store import SQLiteStore


class Recorder:
    """A hook that remembers events, and refuses those that it is told to refuse."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.told: list[tuple[str, Event]] = []

    def before(self, event: Event) -> None:
        self.told.append(("before", event))
        if event.name == self.refuses:
            raise AuditError("no")

    def after(self, event: Event) -> None:
        self.told.append(("after", event))

    @property
    def names(self) -> list[tuple[str, str, str]]:
        return [(when, event.name, event.outcome) for when, event in self.told]


class Failing(Recorder):
    """A hook with a bug."""

    def after(self, event: Event) -> None:
        raise ZeroDivisionError


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def signer(store: Store, clock: Clock, recorder: Recorder) -> Signer:
    return Signer(KEY, store, clock=clock, hooks=[recorder])


CALLS: dict[str, Callable[[Signer, str], object]] = {
    "issue": lambda signer, token: signer.issue(sub="42"),
    "consume": lambda signer, token: signer.consume(token),
    "rotate": lambda signer, token: signer.rotate(token),
    "revoke": lambda signer, token: signer.revoke(token),
    "purge": lambda signer, token: signer.purge(),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_change_is_told_before_it_is_made_and_after(signer: Signer, recorder: Recorder, name: str) -> None:
    """With the same outcome, if it succeeded."""
    token = signer.issue()
    recorder.told.clear()
    CALLS[name](signer, token)
    assert recorder.names == [("before", name, "ok"), ("after", name, "ok")]


@pytest.mark.parametrize("name", CALLS)
def test_a_change_that_a_hook_refuses_has_not_happened(store: Store, clock: Clock, name: str) -> None:
    """The caller gets the hook's error, and the list stays as it was."""
    token = Signer(KEY, store, clock=clock).issue()
    recorder = Recorder(name)
    signer = Signer(KEY, store, clock=clock, hooks=[recorder])
    rows = store.count()
    with pytest.raises(AuditError):
        CALLS[name](signer, token)
    assert store.count() == rows
    assert recorder.names == [("before", name, "ok"), ("after", name, "audit_unavailable")]
    assert Signer(KEY, store, clock=clock).validate(token)


@pytest.mark.parametrize(
    "revoke",
    [
        lambda signer: signer.revoke_subject("42"),
        lambda signer: signer.revoke_session("s"),
        lambda signer: signer.revoke_client("c"),
        lambda signer: signer.revoke_jti("A" * 22),
    ],
)
def test_revoking_many_is_one_event_that_names_them(
    signer: Signer, recorder: Recorder, revoke: Callable[[Signer], object]
) -> None:
    """If it is refused, the list stays as it was."""
    revoke(signer)
    assert recorder.names == [("before", "revoke", "ok"), ("after", "revoke", "ok")]
    event = recorder.told[0][1]
    assert [event.sub, event.sid, event.client_id, event.jti].count(None) == 3
    recorder.refuses = "revoke"
    token = signer.issue(sub="42", sid="s", client_id="c")
    with pytest.raises(AuditError):
        revoke(signer)
    assert signer.validate(token)


def test_a_validation_is_told_once_with_its_outcome(signer: Signer, recorder: Recorder, clock: Clock) -> None:
    """Valid or not; with the claims if the signature fits, and without if it does not."""
    token = signer.issue(sub="42", ttl=60, sid="s", client_id="c")
    claims = signer.validate(token)
    recorder.told.clear()
    signer.validate(token)
    signer.introspect(token)
    with pytest.raises(TokenError):
        signer.validate(token[:-1] + ("A" if token[-1] != "A" else "B"))
    clock.now += 60
    with pytest.raises(TokenError):
        signer.validate(token)
    assert recorder.names == [
        ("after", "validate", outcome) for outcome in ("ok", "ok", "token_signature_invalid", "token_expired")
    ]
    good, _, forged, expired = [event for _, event in recorder.told]
    assert good == Event(
        name="validate", jti=claims.jti, sub="42", purpose="access", client_id="c", sid="s", kid=claims.kid
    )
    assert (forged.jti, forged.kid) == (None, None)
    assert expired.jti == claims.jti


def test_a_race_that_is_lost_is_told_after(signer: Signer, recorder: Recorder) -> None:
    """A second use is refused before it begins. If the use is lost meanwhile, the change begins, and then
    fails."""
    token = signer.issue()
    signer.consume(token)
    recorder.told.clear()
    with pytest.raises(TokenUsed):
        signer.consume(token)
    assert recorder.names == [("after", "consume", "token_used")]


def test_a_list_that_fails_is_told_after(signer: Signer, recorder: Recorder, store: Store) -> None:
    """The change began, and was not made."""
    token = signer.issue()
    recorder.told.clear()
    store.close()
    with pytest.raises(StoreError):
        signer.revoke(token)
    assert recorder.names == [("before", "revoke", "ok"), ("after", "revoke", "store_unavailable")]


def test_theft_is_an_event_of_its_own(signer: Signer, recorder: Recorder, clock: Clock) -> None:
    """A token is traded again after the grace window. If a hook refuses the event, the session continues."""
    first = signer.issue(sub="42")
    second = signer.rotate(first).token
    clock.now += 60
    recorder.told.clear()
    recorder.refuses = "theft"
    with pytest.raises(AuditError):
        signer.rotate(first)
    assert signer.validate(second)
    recorder.refuses = ""
    recorder.told.clear()
    with pytest.raises(TokenRotated):
        signer.rotate(first)
    assert recorder.names == [
        ("before", "theft", "ok"),
        ("after", "theft", "ok"),
        ("after", "rotate", "token_rotated"),
    ]
    with pytest.raises(TokenRevoked):
        signer.validate(second)


def test_a_code_is_told_with_its_guesses(signer: Signer, recorder: Recorder) -> None:
    """Each guess before it is counted, and a wrong one after that, too."""
    token, code, _ = signer.issue_code(sub="42", purpose="login")
    recorder.told.clear()
    with pytest.raises(TokenError):
        signer.verify_code(token, f"{(int(code) + 1) % 1_000_000:06d}", purpose="login")
    signer.verify_code(token, code, purpose="login")
    assert recorder.names == [
        ("before", "verify_code", "ok"),
        ("after", "verify_code", "code_wrong"),
        ("before", "verify_code", "ok"),
        ("after", "verify_code", "ok"),
    ]


def test_a_purge_tells_its_rows(signer: Signer, recorder: Recorder, store: Store, clock: Clock) -> None:
    """All of its steps are one event; a purge that is stopped early counts the rows deleted so far."""
    for number in range(2500):
        store.revoke(str(number), 1)
    steps = signer.purge_steps()
    assert next(steps) == 1000
    steps.close()  # type: ignore[attr-defined]
    assert signer.purge() == 1500
    assert [(when, event.outcome, event.rows) for when, event in recorder.told] == [
        ("before", "ok", None),
        ("after", "ok", 1000),
        ("before", "ok", None),
        ("after", "ok", 1500),
    ]


def test_what_cannot_be_asked_is_told_too(signer: Signer, recorder: Recorder) -> None:
    """With its code, and it never begins."""
    with pytest.raises(RequestInvalid):
        signer.issue(data={1: 2})
    assert recorder.names == [("after", "issue", "request_invalid")]


def test_hooks_are_told_in_order_and_a_bug_has_a_name(store: Store, clock: Clock) -> None:
    """An error that is not ours is `internal_error`; every name is documented."""
    recorder = Recorder()
    signer = Signer(KEY, store, clock=clock, hooks=[recorder, recorder])
    signer.issue()
    assert [when for when, _ in recorder.told] == ["before", "before", "after", "after"]
    assert Signer(KEY, store, clock=clock, hooks=[Failing(), recorder]).issue()
    assert recorder.told[-1][0] == "after"
    recorder.told.clear()
    with pytest.raises(ZeroDivisionError), signer.hooks.operation("validate"):
        1 / 0  # noqa: B018 - it raises
    assert recorder.names == [("after", "validate", "internal_error")] * 2
    assert CHANGES < NAMES


def test_a_guess_that_a_hook_refuses_is_not_counted(store: Store, clock: Clock) -> None:
    """Otherwise retries while the trail fails would lock a subject out, and the answers would show which code
    is right."""
    recorder = Recorder("verify_code")
    signer = Signer(KEY, store, clock=clock, hooks=[recorder])
    token, code, _ = signer.issue_code(sub="42")
    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    for guess in (code, wrong) * 20:
        with pytest.raises(AuditError):
            signer.verify_code(token, guess)
    recorder.refuses = ""
    assert signer.verify_code(token, code).sub == "42"


def test_together_ends_are_told_at_the_end(store: Store, clock: Clock, recorder: Recorder) -> None:
    """Hooks are notified before each change, and of none as made before it was."""
    signer = Signer(KEY, store, clock=clock, hooks=[recorder])
    tokens = [signer.issue(), signer.issue()]
    recorder.told.clear()
    with signer.together():
        for token in tokens:
            signer.consume(token)
        assert recorder.names == [("before", "consume", "ok")] * 2
        assert store.lookup("", 0, ()).uses == 0
    assert recorder.names[2:] == [("after", "consume", "ok")] * 2


def test_together_all_have_failed_where_the_end_does(
    tmp_path: Path, clock: Clock, recorder: Recorder
) -> None:
    """The event of each says so; a change that was refused by itself stays refused."""
    with closing(SQLiteStore(tmp_path / "list.db")) as store:
        signer = Signer(KEY, store, clock=clock, hooks=[recorder])
        token, other = signer.issue(), signer.issue()
        recorder.told.clear()
        with suppress(StoreError), signer.together():
            signer.consume(token)
            with suppress(TokenUsed):
                signer.consume(token)
            signer.validate(other)
            (tmp_path / "list.db").rename(tmp_path / "away.db")
        (tmp_path / "away.db").rename(tmp_path / "list.db")
        assert [name for name in recorder.names if name[0] == "after"] == [
            ("after", "consume", "store_unavailable"), ("after", "consume", "token_used"), ("after", "validate", "ok"),
        ]  # fmt: skip


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_nothing_that_was_undone_is_told_as_made(
    store: Store, clock: Clock, recorder: Recorder, error: type[BaseException]
) -> None:
    """Whatever error ended it."""
    signer = Signer(KEY, store, clock=clock, hooks=[recorder])
    token = signer.issue()
    recorder.told.clear()
    with suppress(error), signer.together():
        signer.consume(token)
        raise error
    assert recorder.names == [("before", "consume", "ok"), ("after", "consume", "internal_error")]
    assert signer.consume(token).uses_left == 0


def test_a_list_that_makes_each_change_at_once_tells_it_at_once(clock: Clock, recorder: Recorder) -> None:
    """What was made stays made, and nothing that ends later can undo it."""
    signer = Signer(KEY, MemoryStore(), clock=clock, hooks=[recorder])
    token = signer.issue()
    recorder.told.clear()
    with suppress(ZeroDivisionError), signer.together():
        signer.consume(token)
        assert recorder.names == [("before", "consume", "ok"), ("after", "consume", "ok")]
        raise ZeroDivisionError
    assert len(recorder.told) == 2


def test_together_needs_a_list() -> None:
    """Without one, there is nothing to change."""
    with pytest.raises(StoreRequired), Signer(KEY).together():
        pass


def test_together_is_not_within_itself(tmp_path: Path) -> None:
    """The end of the inner block would not be durable."""
    with closing(SQLiteStore(tmp_path / "list.db")) as store:
        signer = Signer(KEY, store)
        with signer.together(), pytest.raises(StoreError, match="together already"), signer.together():
            pass
        signer.consume(signer.issue())


def test_together_a_chain_ends_with_the_token_that_was_traded_in_it(tmp_path: Path, clock: Clock) -> None:
    """A token is traded and then revoked, before either is durable: its successor is revoked, too."""
    with closing(SQLiteStore(tmp_path / "list.db")) as store:
        signer = Signer(KEY, store, clock=clock)
        token = signer.issue(sub="42")
        with signer.together():
            successor = signer.rotate(token).token
            signer.revoke(token)
        with pytest.raises(TokenRevoked):
            signer.validate(successor)


class Tally:
    """A hook that only counts."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str | None]] = Counter()
        self.rows = 0

    def count(self, name: str, outcome: str, kid: str | None, rows: int, times: int) -> None:
        self.counts[name, outcome, kid] += times
        self.rows += rows


class BrokenTally(Tally):
    """A hook that only counts, with a bug."""

    def count(self, name: str, outcome: str, kid: str | None, rows: int, times: int) -> None:
        raise ZeroDivisionError


@pytest.mark.parametrize("beside", [True, False], ids=["beside another hook", "alone"])
def test_a_hook_may_only_count(store: Store, clock: Clock, beside: bool, recorder: Recorder) -> None:
    """It counts what other hooks are notified of, for every call. Its bugs affect nothing else."""
    tally = Tally()
    hooks: list[Hook | CountingHook] = [BrokenTally(), tally, *[recorder] * beside]
    signer = Signer(KEY, store, clock=clock, hooks=hooks)
    token = signer.issue(sub="42")
    signer.validate(token)
    signer.consume(token)
    for bad in (token, token[:-1], f"{token[:-2]}xx", "x"):
        with suppress(TokenError):
            signer.introspect(bad)
    clock.now += 100 * 24 * 60 * 60
    with suppress(TokenError):
        signer.validate(token)
    signer.purge()
    kid = signer.keys.current.id
    assert tally.counts == {
        ("issue", "ok", kid): 1,
        ("validate", "ok", kid): 1,
        ("consume", "ok", kid): 1,
        ("validate", "token_used", kid): 1,
        ("validate", "token_malformed", None): 2,
        ("validate", "token_signature_invalid", None): 1,
        ("validate", "token_expired", kid): 1,
        ("purge", "ok", None): 1,
    }
    assert tally.rows == 1
    if beside:
        assert tally.counts == Counter(
            (event.name, event.outcome, event.kid) for when, event in recorder.told if when == "after"
        )


@pytest.mark.parametrize("only", ["before", "after"])
def test_a_hook_that_has_a_count_is_a_hook(store: Store, only: str) -> None:
    """It can refuse changes, or store them, and must not be mistaken for one that only counts; also if it
    lacks a method."""

    class Both(Recorder):
        def count(self, name: str, outcome: str, kid: str | None, rows: int, times: int) -> None:
            raise AssertionError("it is asked and told instead")

    both = Both(refuses="consume")
    signer = Signer(KEY, store, hooks=[both])
    with pytest.raises(AuditError):
        signer.consume(signer.issue())
    assert ("before", "consume", "ok") in both.names
    half = type(
        "Half", (), {only: getattr(Recorder, only), "count": Both.count, "refuses": "issue", "told": []}
    )()
    with pytest.raises((AuditError, AttributeError)):
        Signer(KEY, store, hooks=[half]).issue()


def test_changes_made_together_are_counted_when_they_are_durable(tmp_path: Path) -> None:
    """Once each, and as failed if all of them failed."""
    tally = Tally()
    with closing(SQLiteStore(tmp_path / "list.db")) as store:
        signer = Signer(KEY, store, hooks=[tally])
        tokens = [signer.issue() for _ in range(3)]
        kid = signer.keys.current.id
        with signer.together():
            for token in tokens:
                signer.revoke(token)
            assert ("revoke", "ok", kid) not in tally.counts
        assert tally.counts["revoke", "ok", kid] == 3


@pytest.mark.parametrize("purpose", [None, "access"])
def test_many_are_validated_as_each_would_be(signer: Signer, recorder: Recorder, purpose: str | None) -> None:
    """The same claims and refusals in their places, and the same events in that order."""
    good, used, other = signer.issue(sub="1"), signer.issue(sub="2"), signer.issue(purpose="other")
    signer.consume(used)
    tokens = [good, used, "x", other, good[:-1], good]
    recorder.told.clear()
    expected: list[Claims | str] = []
    for token in tokens:
        try:
            expected.append(signer.introspect(token) if purpose is None else signer.validate(token))
        except TokenError as error:
            expected.append(error.code)
    one_by_one = list(recorder.told)
    recorder.told.clear()
    found = signer.validate_each(tokens, purpose=purpose)
    assert [said.code if isinstance(said, TokenError) else said for said in found] == expected
    assert recorder.told == one_by_one
    assert len(one_by_one) == len(tokens)


class FailingList(MemoryStore):
    """A list that fails for one subject."""

    @property
    def view(self) -> DirectView:
        is_clear = super().view.is_clear

        def fails(claims: Claims, end: int) -> bool:
            if claims.sub == "gone":
                raise StoreError("It is gone.")
            return is_clear(claims, end)

        return DirectView(self.lookup, fails, is_local=True)


def test_many_are_validated_until_the_list_fails(recorder: Recorder) -> None:
    """Hooks are notified of the earlier tokens and of the one that failed; there is no answer for some of
    them only."""
    signer = Signer(KEY, FailingList(), hooks=[recorder])
    bare = Signer(KEY)
    tokens = [bare.issue(sub="1"), bare.issue(sub="gone"), bare.issue(sub="2")]
    with pytest.raises(StoreError):
        signer.validate_each(tokens)
    assert recorder.names == [("after", "validate", "ok"), ("after", "validate", "store_unavailable")]


def test_many_that_are_refused_leave_no_garbage(store: Store) -> None:
    """An error refers to its traceback, that to the frame, and the frame to all errors."""
    signer = Signer(KEY, store, hooks=[Tally()])
    bad = [f"{signer.issue()[:-2]}xx" for _ in range(20)]
    signer.validate_each(bad)
    gc.collect()
    gc.disable()
    try:
        signer.validate_each(bad)
        assert gc.collect() == 0
    finally:
        gc.enable()
