"""Codes of six digits."""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from clock import Clock
from service import KEY

from signer import KeyRing, Signer, Store
from signer.errors import (
    AttemptsExceeded,
    CodeWrong,
    RequestInvalid,
    StoreRequired,
    TokenExpired,
    TokenPurposeWrong,
    TokenRevoked,
    TokenUsed,
)
from signer.requests import CodeRequest


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06d}"


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
        """Whoever holds one has proved nothing: it is not valid, for no purpose."""
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
        """Whatever the number of challenges and purposes; others are not held up, nor is it at another client."""
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

    def test_a_purge_by_a_clock_ahead_does_not_use_up_the_hour(self, signer: Signer, clock: Clock) -> None:
        """A guess in the last second of an hour found its count purged, and was one too many."""
        clock.now = (clock.now // 3600 + 1) * 3600 - 1
        clock.now += 310 + 30
        signer.purge()
        clock.now -= 310 + 30
        token, code, _ = signer.issue_code(sub="42")
        assert signer.verify_code(token, code)

    def test_guesses_at_a_dead_challenge_are_not_its_subjects(self, signer: Signer) -> None:
        """Or whoever holds one could lock its subject out."""
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
        """The code comes of the key that signed the challenge."""
        token, code, _ = Signer(KEY, store).issue_code(sub="42")
        assert Signer(KeyRing("n" * 40, [KEY]), store).verify_code(token, code)
