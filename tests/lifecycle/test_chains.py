"""Rotation: a chain of tokens that survives a retry, and ends after a theft."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.clock import Clock
from support.service import KEY

from signer import KeyRing, Signer, Store
from signer.errors import (
    RequestInvalid,
    ScopeInsufficient,
    StoreRequired,
    TokenBindingWrong,
    TokenExpired,
    TokenMalformed,
    TokenNotRotatable,
    TokenPurposeWrong,
    TokenRevoked,
    TokenRotated,
    TokenUsed,
)

#: Thirty seconds, and one for the fraction that whole seconds lack.
GRACE = 31


class TestSuccessor:
    def test_it_says_what_its_predecessor_said(self, signer: Signer, clock: Clock) -> None:
        """It lives as long, too; only id, times and session differ."""
        request = {
            "sub": "42",
            "scope": "read",
            "aud": "web",
            "sid": "s1",
            "data": {"a": 1},
            "client_id": "app",
        }
        token = signer.issue(**request, ttl=900)  # type: ignore[arg-type]
        clock.now += 600
        claims = signer.rotate(token, aud="web").claims
        assert {name: getattr(claims, name) for name in request} == request
        assert (claims.iat, claims.exp, claims.auth_time) == (clock.now, clock.now + 900, clock.now - 600)
        assert claims.jti != signer.inspect(token).unverified_claims.jti

    def test_what_is_returned_is_what_the_token_says(self, signer: Signer) -> None:
        """To the last member."""
        issued = signer.rotate(signer.issue(sub="42"))
        assert signer.validate(issued.token) == issued.claims

    def test_a_retry_gets_the_same_one(self, signer: Signer, clock: Clock) -> None:
        """To the letter, at any second of the grace window."""
        token = signer.issue(sub="42")
        first = signer.rotate(token)
        clock.now += GRACE - 1
        assert signer.rotate(token) == first
        assert signer.validate(first.token).sub == "42"

    def test_two_hundred_at_once_get_the_same_one(self, store: Store) -> None:
        """Nobody is logged out."""
        signer = Signer(KEY, store)
        token = signer.issue(sub="42", sid="s1")
        with ThreadPoolExecutor(20) as pool:
            answers = {issued.token for issued in pool.map(lambda _: signer.rotate(token), range(200))}
        (successor,) = answers
        assert signer.validate(successor).sid == "s1"
        assert signer.validate(token).sid == "s1"

    def test_it_is_the_same_on_another_machine_with_a_newer_key(
        self, tmp_path: Path, open_list: Callable[[str], Store], clock: Clock
    ) -> None:
        """The id is derived from the token's id, the signature from the current key."""
        url = f"sqlite:///{tmp_path}/list.db"
        old = Signer(KEY, open_list(url), clock=clock)
        new = Signer(KeyRing("n" * 40, [KEY]), open_list(url), clock=clock)
        token = old.issue(sub="42")
        first, second = old.rotate(token), new.rotate(token)
        assert (first.claims.jti, first.claims.exp) == (second.claims.jti, second.claims.exp)
        assert first.claims.kid != second.claims.kid
        new.revoke(first.token)
        with pytest.raises(TokenRevoked):
            new.validate(second.token)

    def test_it_is_bound_to_the_same_state(self, signer: Signer) -> None:
        """Which must be known to rotate, too."""
        token = signer.issue(bind="hash")
        with pytest.raises(TokenBindingWrong):
            signer.rotate(token)
        successor = signer.rotate(token, bind="hash").token
        assert signer.validate(successor, bind="hash")
        with pytest.raises(TokenBindingWrong):
            signer.validate(successor)


class TestTheft:
    def test_the_old_one_is_good_for_the_grace_window_only(self, signer: Signer, clock: Clock) -> None:
        """For requests under way; looking at it later has no effect on the session."""
        token = signer.issue()
        successor = signer.rotate(token).token
        clock.now += GRACE - 1
        assert signer.validate(token)
        clock.now += 1
        for _ in range(2):
            with pytest.raises(TokenRotated):
                signer.validate(token)
        assert signer.validate(successor)

    @pytest.mark.parametrize("sid", [None, "s1"])
    def test_rotating_it_again_later_ends_the_session(
        self, signer: Signer, clock: Clock, sid: str | None
    ) -> None:
        """Whether it was given a session id or not; the thief's and the owner's tokens alike."""
        token = signer.issue(sub="42", sid=sid)
        other = signer.issue(sub="42", sid="other")
        second = signer.rotate(token).token
        third = signer.rotate(second).token
        clock.now += GRACE
        with pytest.raises(TokenRotated):
            signer.rotate(token)
        for ended in (second, third):
            with pytest.raises(TokenRevoked):
                signer.validate(ended)
            with pytest.raises(TokenRevoked):
                signer.rotate(ended)
        assert signer.validate(other)

    def test_a_replay_after_expiry_is_a_theft_too(self, signer: Signer, clock: Clock) -> None:
        """The owner comes back to a token that the thief has traded and that has expired since."""
        token = signer.issue(ttl=900)
        clock.now += 800
        stolen = signer.rotate(token).token
        clock.now += 101
        with pytest.raises(TokenRotated):
            signer.rotate(token)
        with pytest.raises(TokenRevoked):
            signer.validate(stolen)

    def test_an_expired_token_that_was_not_traded_is_expired(self, signer: Signer, clock: Clock) -> None:
        """The same for a retry after its expiry, but within the grace window."""
        idle, late = signer.issue(ttl=900), signer.issue(ttl=900)
        clock.now += 890
        successor = signer.rotate(late).token
        clock.now += 11
        for token in (idle, late):
            with pytest.raises(TokenExpired):
                signer.rotate(token)
        assert signer.validate(successor)

    def test_the_session_can_begin_anew_at_once(self, signer: Signer, clock: Clock) -> None:
        """A login in the same second, under the same session id."""
        token = signer.issue(sid="s1")
        signer.rotate(token)
        clock.now += GRACE
        with pytest.raises(TokenRotated):
            signer.rotate(token)
        assert signer.validate(signer.issue(sid="s1"))

    def test_a_session_revoked_during_the_rotation_stays_revoked(
        self, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The successor has its predecessor's generation, not a new one."""
        signer = Signer(KEY, store, clock=clock)
        token = signer.issue(sub="42")
        rotate = type(store).rotate

        def revoked_meanwhile(self: Store, jti: str, exp: int, now: int) -> int | None:
            signer.revoke_subject("42")
            return rotate(self, jti, exp, now)

        monkeypatch.setattr(type(store), "rotate", revoked_meanwhile)
        with pytest.raises(TokenRevoked):
            signer.validate(signer.rotate(token).token)

    def test_a_retry_at_the_end_of_a_second_is_no_theft(self, store: Store, clock: Clock) -> None:
        """The list counts whole seconds."""
        signer = Signer(KEY, store, grace=1, clock=clock)
        token = signer.issue()
        clock.now += 0.95
        signer.rotate(token)
        clock.now += 0.1
        assert signer.rotate(token)

    @pytest.mark.parametrize("sid", [None, "s1"])
    @pytest.mark.parametrize("client_id", [None, "app"])
    def test_a_theft_ends_the_tokens_in_their_grace_window_too(
        self, store: Store, clock: Clock, sid: str | None, client_id: str | None
    ) -> None:
        """The first of a chain has no `sid`, or one: its id names the session then."""
        signer = Signer(KEY, store, grace=300, clock=clock)
        first = signer.issue(sid=sid, client_id=client_id)
        second = signer.rotate(first).token
        signer.revoke(second)
        for token in (first, second):
            with pytest.raises(TokenRevoked):
                signer.validate(token)

    def test_revoking_the_first_of_a_chain_long_after_it_expired(self, signer: Signer, clock: Clock) -> None:
        """Its row was purged, so the list does not know that it was rotated."""
        first = token = signer.issue(ttl=900)
        for _ in range(3):
            clock.now += 600
            token = signer.rotate(token).token
        signer.purge()
        signer.revoke(first)
        with pytest.raises(TokenRevoked):
            signer.validate(token)

    def test_revoking_by_id_ends_the_chain_that_token_began(self, signer: Signer) -> None:
        """A later part of a chain is named by its `sid`."""
        first = signer.rotate(signer.issue(client_id="app"))
        second = signer.rotate(first.token)
        signer.revoke_jti(first.claims.jti)
        assert signer.validate(second.token)
        assert first.claims.sid is not None
        signer.revoke_session(first.claims.sid)
        with pytest.raises(TokenRevoked):
            signer.validate(second.token)

    def test_a_client_cannot_end_another_ones_session(self, signer: Signer, clock: Clock) -> None:
        """By giving its own tokens the same `sid`, or the id of the other's first token."""
        other = signer.issue(client_id="a", sid="s1")
        nameless = signer.issue(client_id="a")
        for sid in ("s1", signer.inspect(nameless).unverified_claims.jti):
            mine = signer.issue(client_id="b", sid=sid)
            signer.revoke(signer.rotate(mine).token, client_id="b")
            clock.now += GRACE
            with pytest.raises(TokenRevoked):
                signer.rotate(mine)
        assert signer.validate(other)
        assert signer.validate(nameless)

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_revoking_one_of_a_chain_ends_the_chain(self, signer: Signer, which: int) -> None:
        """A logout with any of them: the predecessor is still in its grace window, the successor is new."""
        chain = [signer.issue(sub="42")]
        chain += [signer.rotate(chain[0]).token]
        chain += [signer.rotate(chain[1]).token]
        signer.revoke(chain[which])
        for token in chain[1:]:
            with pytest.raises(TokenRevoked):
                signer.validate(token)


class TestFailure:
    def test_a_successor_that_would_be_too_long_is_known_before(self, signer: Signer, clock: Clock) -> None:
        """The token is as it was, also after the grace window."""
        length = next(n for n in range(2950, 2700, -1) if fits(signer, n))
        token = signer.issue(data="x" * length)
        for _ in range(2):
            with pytest.raises(RequestInvalid, match="limit"):
                signer.rotate(token)
            clock.now += GRACE
        assert signer.validate(token)

    def test_machines_in_the_middle_of_a_key_change_agree(self, store: Store, clock: Clock) -> None:
        """Otherwise a chain would become two, and a theft would go unnoticed, because each signs with its own key."""
        a, b = (
            Signer(KeyRing(KEY, ["n" * 40]), store, clock=clock),
            Signer(KeyRing("n" * 40, [KEY]), store, clock=clock),
        )
        token = a.issue()
        one, two = a.rotate(token), b.rotate(token)
        assert one.claims.kid != two.claims.kid
        assert a.rotate(one.token).claims.jti == a.rotate(two.token).claims.jti

    @pytest.mark.parametrize("ahead", [1, 9])
    def test_a_first_token_of_a_clock_that_runs_ahead_is_rotated(
        self, signer: Signer, clock: Clock, ahead: int
    ) -> None:
        """Or of one that was set back since; every successor is good."""
        clock.now += ahead
        token = signer.issue()
        clock.now -= ahead
        for _ in range(3):
            token = signer.rotate(token).token
            assert signer.validate(token)
            clock.now += 1

    def test_a_stale_token_does_not_end_later_logins(self, signer: Signer, clock: Clock) -> None:
        """Under the same `sid`, after the chain was ended in any way."""
        ways = (
            signer.revoke,
            lambda token: signer.revoke_session("s1"),
            lambda token: signer.revoke_subject("42"),
        )
        for way in ways:
            stale = signer.issue(sub="42", sid="s1", ttl=900)
            successor = signer.rotate(stale).token
            way(successor)
            login = signer.issue(sub="42", sid="s1", ttl=3600)
            for _ in range(2):
                signer.revoke(successor)
                signer.revoke(stale)
                with pytest.raises(TokenRevoked):
                    signer.rotate(stale)
            clock.now += 900
            with pytest.raises(TokenExpired):
                signer.rotate(stale)
            assert signer.validate(login)

    def test_a_token_revoked_by_its_id_still_takes_its_chain_along(self, signer: Signer) -> None:
        """When it is revoked as a whole afterwards."""
        first = signer.rotate(signer.issue(sid="s1"))
        second = signer.rotate(first.token).token
        signer.revoke_jti(first.claims.jti)
        assert signer.validate(second)
        signer.revoke(first.token)
        with pytest.raises(TokenRevoked):
            signer.validate(second)

    def test_an_expired_replay_needs_the_state_too(self, signer: Signer, clock: Clock) -> None:
        """A thief of the bound token alone could not have used it."""
        token = signer.issue(bind="hash", ttl=900)
        successor = signer.rotate(token, bind="hash").token
        clock.now += 901
        with pytest.raises(TokenBindingWrong):
            signer.rotate(token)
        with pytest.raises(TokenExpired):
            signer.validate(successor, bind="hash")

    def test_a_lower_cap_ends_chains_that_are_out(self, store: Store, clock: Clock) -> None:
        """So that no token outlives the row that would have ended it."""
        token = Signer(KEY, store, clock=clock).issue(ttl=900)
        clock.now += 800
        successor = Signer(KEY, store, clock=clock).rotate(token).token
        with pytest.raises(TokenExpired):
            Signer(KEY, store, max_ttl=800, clock=clock).validate(successor)

    def test_a_chain_cannot_begin_in_the_future(self, signer: Signer) -> None:
        """Otherwise an attacker who had a key once could make one that ends in the year 9999."""
        codec = signer._core.codec
        claims = replace(signer.validate(signer.issue()), iat=0, kid="", auth_time=253_402_300_000)
        with pytest.raises(TokenMalformed):
            signer.rotate(codec.encode(claims, int(signer._core.admission.now())))


def fits(signer: Signer, length: int) -> bool:
    try:
        signer.issue(data="x" * length)
    except RequestInvalid:
        return False
    return True


class TestEnd:
    def test_the_first_issue_bounds_the_chain(self, store: Store, clock: Clock) -> None:
        """By `max_ttl` however often it is rotated; the last token ends with it."""
        signer = Signer(KEY, store, ttl=600, max_ttl=1500, clock=clock)
        token, start = signer.issue(), clock.now
        for _ in range(2):
            clock.now += 590
            token = signer.rotate(token).token
        assert signer.inspect(token).unverified_claims.exp == start + 1500
        clock.now = start + 1499
        token = signer.rotate(token).token
        assert signer.inspect(token).unverified_claims.exp == start + 1500
        clock.now += 1
        with pytest.raises(TokenExpired):
            signer.rotate(token)

    def test_a_session_ttl_bounds_it_further(self, signer: Signer, clock: Clock) -> None:
        """From auth_time; at its end, rotation is refused though the token is good."""
        token = signer.issue(ttl=600)
        clock.now += 300
        token = signer.rotate(token, session_ttl=700).token
        assert signer.inspect(token).unverified_claims.exp == clock.now + 400
        token = signer.issue(ttl=600)
        clock.now += 300
        with pytest.raises(TokenExpired):
            signer.rotate(token, session_ttl=300)
        assert signer.validate(token)

    @pytest.mark.parametrize("value", [0, -1, 1.5, True, False, "60", ""])
    def test_a_session_ttl_is_a_number_of_seconds(self, signer: Signer, value: object) -> None:
        """Whole and positive."""
        with pytest.raises(RequestInvalid, match="session_ttl"):
            signer.rotate(signer.issue(), session_ttl=value)  # type: ignore[arg-type]


class TestAge:
    def test_a_chain_is_as_old_as_its_first_token(self, signer: Signer, clock: Clock) -> None:
        """Or rotating would turn an old session into a fresh login (OpenID Connect Core, max_age)."""
        token = signer.issue()
        clock.now += 100
        token = signer.rotate(token).token
        assert signer.validate(token, max_age=101)
        with pytest.raises(TokenExpired):
            signer.validate(token, max_age=100)


class TestRefused:
    def test_a_token_with_max_uses(self, signer: Signer) -> None:
        """Its count would begin anew; a challenge's guesses too."""
        with pytest.raises(TokenNotRotatable):
            signer.rotate(signer.issue(max_uses=3))
        with pytest.raises(TokenPurposeWrong):
            signer.rotate(signer.issue_code(sub="42").token, purpose="signer:code:access")

    def test_a_token_that_was_consumed(self, signer: Signer) -> None:
        """Or a single use could be had twice."""
        token = signer.issue()
        signer.consume(token)
        with pytest.raises(TokenUsed):
            signer.rotate(token)

    def test_consuming_a_token_that_was_rotated(self, signer: Signer) -> None:
        """Its successor has the one use."""
        token = signer.issue()
        successor = signer.rotate(token).token
        with pytest.raises(TokenUsed):
            signer.consume(token)
        assert signer.consume(successor).uses_left == 0

    def test_another_purpose_another_client_and_no_list(self, signer: Signer) -> None:
        """Before anything is written."""
        token = signer.issue(purpose="session", client_id="app")
        with pytest.raises(TokenPurposeWrong):
            signer.rotate(token)
        with pytest.raises(ScopeInsufficient):
            signer.rotate(token, purpose="session", client_id="other")
        with pytest.raises(StoreRequired):
            Signer(KEY).rotate(token)
        assert signer.rotate(token, purpose="session", client_id="app")
