"""Codes of six digits."""

import re
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clock import Clock
from support.service import KEY, ROOT, environment

from signer import KeyRing, Signer, Store, open_store
from signer.errors import (
    AttemptsExceeded,
    CodeWrong,
    RequestInvalid,
    StoreError,
    StoreRequired,
    TokenExpired,
    TokenPurposeWrong,
    TokenRevoked,
    TokenUsed,
)
from signer.stores.memory import MemoryStore
from signer.tokens.values import CodeRequest

#: The first second of an hour.
HOUR_BEGINS = 1_800_003_600
GUESSER = """
import sys
sys.path.insert(0, "tests")
from lifecycle.test_codes import is_counted
from signer import Signer, open_store
key, url, now = sys.argv[1:]
signer = Signer(key, open_store(url), clock=lambda: float(now))
print("ready", flush=True)
sys.stdin.readline()
print(sum(is_counted(signer) for _ in range(15)))
"""


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06d}"


def is_counted(signer: Signer) -> bool:
    """Whether a guess for a subject, at a challenge of its own, is let in."""
    token, code, _ = signer.issue_code(sub="42")
    try:
        signer.verify_code(token, wrong(code))
    except CodeWrong:
        return True
    except AttemptsExceeded:
        return False
    raise AssertionError


def failing(*arguments: object) -> int:
    raise StoreError("a list that is gone")


@pytest.fixture(params=["sqlite", "redis", "valkey", "postgres"])
def list_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty list of each kind that processes share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/list.db"
    return str(request.getfixturevalue(f"{request.param}_url"))


class TestIssue:
    def test_the_code_is_nowhere_but_in_the_answer(self, signer: Signer) -> None:
        """Six digits that the token does not hold."""
        token, code, claims = signer.issue_code(sub="42", purpose="login", data={"to": "a@example.org"})
        assert re.fullmatch("[0-9]{6}", code)
        assert code not in str(signer.inspect(token))
        assert (claims.sub, claims.data, claims.exp - claims.iat) == ("42", {"to": "a@example.org"}, 600)
        assert claims.purpose == signer.verify_code(token, code, purpose="login").purpose == "login"

    def test_no_repr_shows_it(self, signer: Signer) -> None:
        """Nor a token: reprs end up in logs and tracebacks."""
        challenge = signer.issue_code(sub="42")
        assert repr(challenge) == "Challenge(…)"
        assert repr(signer.rotate(signer.issue())) == "Issued(…)"

    def test_codes_are_even(self, signer: Signer) -> None:
        """Each digit comes as often as any other, and challenges do not share codes."""
        codes = [signer.issue_code(sub="42").code for _ in range(2000)]
        assert len(set(codes)) > 1950
        for count in Counter("".join(codes)).values():
            assert 1000 < count < 1400

    def test_a_challenge_is_no_token(self, signer: Signer) -> None:
        """A challenge proves nothing: it is not valid for any purpose."""
        token = signer.issue_code(sub="42").token
        with pytest.raises(TokenPurposeWrong):
            signer.introspect(token)
        for call in (signer.validate, signer.consume):
            with pytest.raises(TokenPurposeWrong):
                call(token, purpose="signer:code:access")
        for purpose in ("access", "code"):
            with pytest.raises(TokenPurposeWrong):
                signer.validate(token, purpose=purpose)

    @pytest.mark.parametrize("request_", [{"sub": ""}, {"sub": None}, {"sub": "x", "purpose": "x" * 49}])
    def test_a_subject_is_needed(self, signer: Signer, request_: dict[str, str]) -> None:
        """Guesses are counted for it."""
        with pytest.raises(RequestInvalid):
            signer.issue_code(**request_)  # type: ignore[arg-type]

    def test_a_life_is_capped(self, store: Store) -> None:
        """The ten minutes give way to a shorter cap; what is asked for does not."""
        signer = Signer(KEY, store, max_ttl=60)
        claims = signer.issue_code(sub="42").claims
        assert claims.exp - claims.iat == 60
        with pytest.raises(RequestInvalid, match="ttl"):
            signer.issue_code(sub="42", ttl=61)


class TestVerify:
    def test_the_right_code_is_good_once(self, signer: Signer) -> None:
        """Success uses it up, for wrong codes too."""
        token, code, _ = signer.issue_code(sub="42", purpose="login")
        assert signer.verify_code(token, code, purpose="login").sub == "42"
        for guess in (code, wrong(code)):
            with pytest.raises(TokenUsed):
                signer.verify_code(token, guess, purpose="login")

    def test_five_guesses_and_no_more(self, signer: Signer) -> None:
        """The right code comes too late then."""
        token, code, _ = signer.issue_code(sub="42")
        for left in (4, 3, 2, 1, 0):
            with pytest.raises(CodeWrong) as caught:
                signer.verify_code(token, wrong(code))
            assert caught.value.attempts_left == left
        with pytest.raises(AttemptsExceeded):
            signer.verify_code(token, code)

    def test_a_subject_has_twenty_guesses_an_hour(self, signer: Signer, clock: Clock) -> None:
        """For any number of challenges and purposes; other subjects, and the same one at another client, are not affected."""
        for number in range(4):
            token, code, _ = signer.issue_code(sub="42", purpose=f"p{number}")
            for _ in range(5):
                with pytest.raises(CodeWrong):
                    signer.verify_code(token, wrong(code), purpose=f"p{number}")
        token, code, _ = signer.issue_code(sub="42", ttl=7200)
        with pytest.raises(AttemptsExceeded):
            signer.verify_code(token, code)
        elsewhere = signer.grant_code(CodeRequest(sub="42"), "app")
        assert signer.verify_code(elsewhere.token, elsewhere.code)
        other = signer.issue_code(sub="43")
        assert signer.verify_code(other.token, other.code)
        clock.now += 3600
        assert signer.verify_code(token, code)

    def test_twenty_guesses_are_not_forty_around_the_hour(self, signer: Signer, clock: Clock) -> None:
        """Counted by the clock's hours, twenty before the hour and twenty after it were let in within a second."""
        clock.now = HOUR_BEGINS - 1
        assert sum(is_counted(signer) for _ in range(25)) == 20
        clock.now = HOUR_BEGINS
        assert not any(is_counted(signer) for _ in range(5))
        clock.now = HOUR_BEGINS + 3598
        assert not is_counted(signer)
        clock.now = HOUR_BEGINS + 3599
        assert sum(is_counted(signer) for _ in range(25)) == 20

    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.floats(0, 5000), st.integers(1, 25)), max_size=12))
    def test_no_sixty_minutes_hold_more_than_twenty(self, steps: list[tuple[float, int]]) -> None:
        """And none is refused where they hold fewer, but for a part of a second: seconds are what is kept."""
        clock = Clock()
        signer = Signer(KEY, MemoryStore(), clock=clock)
        counted: list[float] = []
        for seconds, guesses in steps:
            clock.now += seconds
            for _ in range(guesses):
                latest = [when for when in counted if clock.now - when < 3600]
                if is_counted(signer):
                    assert len(latest) < 20
                    counted.append(clock.now)
                else:
                    assert len([when for when in counted if clock.now - when < 3601]) >= 20

    @settings(max_examples=60)
    @given(st.lists(st.tuples(st.floats(-4000, 4000), st.integers(1, 25)), max_size=12))
    def test_nor_where_clocks_disagree(self, steps: list[tuple[float, int]]) -> None:
        """Even by hours: each guess counts at the time of its own machine's clock."""
        clock = Clock()
        signer = Signer(KEY, MemoryStore(), clock=clock)
        counted: list[float] = []
        for seconds, guesses in steps:
            clock.now += seconds
            counted += [clock.now for _ in range(guesses) if is_counted(signer)]
        for begin in counted:
            assert len([when for when in counted if 0 <= when - begin < 3600]) <= 20

    def test_nor_where_many_guess_at_once(self, list_url: str) -> None:
        """On every kind of list: some whose clock has passed the hour, and some whose clock is about to."""

        def guess(seconds: int) -> int:
            with closing(open_store(list_url)) as store:
                signer = Signer(KEY, store, clock=lambda: HOUR_BEGINS + seconds)
                ready.wait(60)
                return sum(is_counted(signer) for _ in range(15))

        ready = Barrier(6)
        with ThreadPoolExecutor(6) as pool:
            counts = [*pool.map(guess, [-1, 0, -1, 1, -1, 0])]
        assert 0 < sum(counts) <= 20

    def test_nor_where_many_processes_guess(self, tmp_path: Path) -> None:
        """What the hour before has counted is not to be had again: seven, so thirteen of these."""
        url = f"sqlite:///{tmp_path}/list.db"
        with closing(open_store(url)) as store:
            before = Signer(KEY, store, clock=lambda: HOUR_BEGINS - 1)
            assert sum(is_counted(before) for _ in range(7)) == 7
        command = [sys.executable, "-c", GUESSER, KEY, url, str(HOUR_BEGINS)]
        running = [
            Popen(command, stdin=PIPE, stdout=PIPE, env=environment(), cwd=ROOT, text=True) for _ in range(4)
        ]
        for process in running:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        counts = [int(process.communicate("go\n", 60)[0]) for process in running]
        assert sum(counts) == 13

    def test_a_guess_whose_second_was_lost_counts_for_the_next_hour(
        self, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The list failed between the two, so the second of the guess is unknown."""
        signer = Signer(KEY, store, clock=clock)
        clock.now = HOUR_BEGINS - 3600
        with monkeypatch.context() as patched:
            patched.setattr(store, "rotate", failing)
            for _ in range(20):
                with pytest.raises(StoreError):
                    is_counted(signer)
        clock.now = HOUR_BEGINS + 3599
        assert not is_counted(signer)
        clock.now += 1
        assert is_counted(signer)

    def test_a_count_that_was_purged_is_not_taken_for_none(self, signer: Signer, clock: Clock) -> None:
        """By a clock that was hours ahead."""
        clock.now = HOUR_BEGINS - 1
        assert sum(is_counted(signer) for _ in range(20)) == 20
        clock.now += 3 * 3600
        signer.purge()
        clock.now -= 3 * 3600 - 1
        challenge = signer.issue_code(sub="42", ttl=20_000)
        with pytest.raises(AttemptsExceeded):
            signer.verify_code(challenge.token, challenge.code)

    def test_a_purge_by_a_clock_ahead_does_not_use_up_the_hour(self, signer: Signer, clock: Clock) -> None:
        """A guess in the last second of an hour found its count purged, and was one too many."""
        clock.now = (clock.now // 3600 + 1) * 3600 - 1
        clock.now += 310 + 30
        signer.purge()
        clock.now -= 310 + 30
        token, code, _ = signer.issue_code(sub="42")
        assert signer.verify_code(token, code)

    def test_guesses_at_a_dead_challenge_are_not_its_subjects(self, signer: Signer) -> None:
        """Otherwise the holder of a challenge could lock its subject out."""
        token, code, _ = signer.issue_code(sub="42")
        for _ in range(30):
            with pytest.raises((CodeWrong, AttemptsExceeded)):
                signer.verify_code(token, wrong(code))
        fresh = signer.issue_code(sub="42")
        assert signer.verify_code(fresh.token, fresh.code)

    def test_one_of_many_right_answers_wins(self, store: Store) -> None:
        """Four at once, with the right code each."""
        signer = Signer(KEY, store)
        token, code, _ = signer.issue_code(sub="42")

        def answer(_: int) -> bool:
            try:
                signer.verify_code(token, code)
            except (TokenUsed, AttemptsExceeded):
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(answer, range(4))) == 1

    @pytest.mark.parametrize("code", ["12345", "1234567", "12 345", "١٢٣٤٥٦", "123456\n", 123456, None])
    def test_what_is_no_code_counts_as_no_guess(self, signer: Signer, code: object) -> None:
        """A slip of the fingers."""
        token, right, _ = signer.issue_code(sub="42")
        for _ in range(6):
            with pytest.raises(RequestInvalid, match="code"):
                signer.verify_code(token, code)  # type: ignore[arg-type]
        assert signer.verify_code(token, right)

    def test_a_challenge_dies_like_a_token(self, signer: Signer, clock: Clock) -> None:
        """Of age, of its purpose, of revocation, and without a list nothing can be counted."""
        token, code, _ = signer.issue_code(sub="42")
        with pytest.raises(TokenPurposeWrong):
            signer.verify_code(token, code, purpose="other")
        with pytest.raises(StoreRequired):
            Signer(KEY).verify_code(token, code)
        signer.revoke_subject("42")
        with pytest.raises(TokenRevoked):
            signer.verify_code(token, code)
        token, code, _ = signer.issue_code(sub="42")
        clock.now += 600
        with pytest.raises(TokenExpired):
            signer.verify_code(token, code)

    def test_a_token_is_no_challenge(self, signer: Signer) -> None:
        """Not even one issued for the purpose of codes by the library."""
        with pytest.raises(TokenPurposeWrong):
            signer.verify_code(signer.issue(sub="42"), "000000")

    def test_it_survives_a_change_of_keys(self, store: Store) -> None:
        """The code is derived from the key that signed the challenge."""
        token, code, _ = Signer(KEY, store).issue_code(sub="42")
        assert Signer(KeyRing("n" * 40, [KEY]), store).verify_code(token, code)
