"""The façade of the library."""

import math
from typing import Any

import pytest
from support.clock import Clock
from support.service import KEY

from signer import KeyRing, Signer, Store, generate_key
from signer.errors import (
    ClockError,
    RequestInvalid,
    StoreRequired,
    TokenBindingWrong,
    TokenError,
    TokenExpired,
    TokenKeyUnknown,
    TokenMalformed,
    TokenNotYetValid,
    TokenPurposeWrong,
    TokenRevoked,
    TokenScopeInsufficient,
    TokenSignatureInvalid,
    TokenUsed,
)
from signer.policy import PURGE_MARGIN

DAY = 24 * 60 * 60


class TestIssue:
    def test_a_token_carries_what_was_asked_for(self, signer: Signer, clock: Clock) -> None:
        """Claims come back under the field's names, times in whole seconds."""
        clock.now += 0.75
        token = signer.issue(
            purpose="reset",
            sub="42",
            ttl=900,
            scope="read",
            aud="web",
            client_id="cli",
            sid="s1",
            data={"a": 1},
        )
        claims = signer.validate(token, purpose="reset", aud="web")
        assert (claims.purpose, claims.sub, claims.scope, claims.aud) == ("reset", "42", "read", "web")
        assert (claims.client_id, claims.sid, claims.data) == ("cli", "s1", {"a": 1})
        assert (claims.iat, claims.exp) == (1_800_000_000, 1_800_000_900)

    @pytest.mark.parametrize("client_id", [7, ["cli"], {"a": 1}, b"cli", "", "a b"])
    def test_a_client_id_that_none_can_be_is_refused(self, signer: Signer, client_id: Any) -> None:
        """Of any type, cached already or not."""
        signer.issue(client_id="cli")
        with pytest.raises(RequestInvalid, match="client_id"):
            signer.issue(client_id=client_id)

    def test_every_token_has_an_id_of_its_own_and_an_end(self, signer: Signer) -> None:
        """jti is 128 random bits; the default life is an hour."""
        seen = [signer.validate(signer.issue()) for _ in range(100)]
        assert len({claims.jti for claims in seen}) == 100
        assert {claims.exp - claims.iat for claims in seen} == {3600}

    def test_a_life_is_capped(self, store: Store) -> None:
        """No caller can issue a token that lives for ever."""
        with pytest.raises(RequestInvalid, match="TOKEN_MAX_TTL_MINUTES"):
            Signer(KEY, store, max_ttl=60).issue(ttl=61)
        claims = Signer(KEY, store, max_ttl=60).validate(Signer(KEY, store, max_ttl=60).issue())
        assert claims.exp - claims.iat == 60

    def test_a_token_is_safe_in_a_url(self, signer: Signer) -> None:
        """Nothing in it needs percent-encoding."""
        token = signer.issue(sub="ä@example.org", data="ÿ" * 50)
        assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


class TestValidate:
    def test_a_token_of_another_purpose_is_refused(self, signer: Signer) -> None:
        """The purpose is part of the signing key, and there is a default on both sides."""
        token = signer.issue(purpose="email")
        with pytest.raises(TokenPurposeWrong):
            signer.validate(token, purpose="reset")
        with pytest.raises(TokenPurposeWrong):
            signer.validate(token)

    def test_a_key_of_another_service_is_refused(self, signer: Signer) -> None:
        """An unknown key id is another error than a forged signature."""
        with pytest.raises(TokenKeyUnknown):
            signer.validate(Signer(generate_key()).issue())

    def test_a_forged_payload_is_refused(self, signer: Signer) -> None:
        """Another token's signature does not fit."""
        first, second = signer.issue(sub="a").split("."), signer.issue(sub="b").split(".")
        with pytest.raises(TokenSignatureInvalid):
            signer.validate(".".join([*first[:3], second[3]]))

    @pytest.mark.parametrize("token", [None, 5, b"sgt_", ["x"], {}, "", "sgt_", "\ud800", "x" * 10**6])
    def test_anything_else_is_malformed(self, signer: Signer, token: Any) -> None:
        """Any input raises only errors of ours."""
        for method in (signer.validate, signer.introspect, signer.consume, signer.revoke, signer.inspect):
            with pytest.raises(TokenMalformed):
                method(token)

    @pytest.mark.parametrize("purpose", [None, 1, [], "", "kid", "\ud800", "a b"])
    def test_a_purpose_that_no_token_has_is_refused(self, signer: Signer, purpose: Any) -> None:
        """It is a mistake of the caller, and the error says so."""
        for method in (signer.validate, signer.consume):
            with pytest.raises(RequestInvalid, match="purpose"):
                method(signer.issue(), purpose=purpose)

    def test_a_scope_that_is_no_text_is_refused(self, signer: Signer) -> None:
        """A list is not a scope."""
        with pytest.raises(RequestInvalid, match="scope"):
            signer.validate(signer.issue(scope="read"), scope=["read"])  # type: ignore[arg-type]

    def test_leeway_forgives_a_clock_that_runs_behind(self, signer: Signer, clock: Clock) -> None:
        """10 seconds into the past by default, and not one more."""
        token = signer.issue()
        clock.now -= 10
        signer.validate(token)
        clock.now -= 1
        with pytest.raises(TokenNotYetValid):
            signer.validate(token)

    def test_a_token_ends_at_exp(self, signer: Signer, clock: Clock) -> None:
        """Leeway prolongs nothing."""
        token = signer.issue(ttl=60)
        clock.now += 59
        signer.validate(token)
        clock.now += 1
        with pytest.raises(TokenExpired):
            signer.validate(token)

    @pytest.mark.parametrize("max_age", [math.nan, True, -1, 1.5, "60"])
    def test_an_age_that_is_no_number_of_seconds_is_refused(self, signer: Signer, max_age: Any) -> None:
        """max_age=NaN would let everything pass."""
        with pytest.raises(RequestInvalid, match="max_age"):
            signer.validate(signer.issue(), max_age=max_age)

    def test_a_lower_cap_shortens_tokens_that_are_out(self, store: Store, clock: Clock) -> None:
        """So that no token outlives the row that revoked its subject."""
        token = Signer(KEY, store, clock=clock).issue(ttl=DAY)
        clock.now += 61
        with pytest.raises(TokenExpired):
            Signer(KEY, store, max_ttl=60, clock=clock).validate(token)

    def test_scope_is_checked_where_asked(self, signer: Signer) -> None:
        """Insufficient scope is an error of its own."""
        token = signer.issue(scope="read")
        signer.validate(token, scope="read")
        with pytest.raises(TokenScopeInsufficient):
            signer.validate(token, scope="read write")

    @pytest.mark.parametrize("now", [0, 1_500_000_000, math.nan, math.inf, -math.inf, 1e20, 253_300_000_000])
    def test_a_clock_that_cannot_be_right_refuses(self, signer: Signer, clock: Clock, now: float) -> None:
        """With no age to check there is no "valid"."""
        token = signer.issue()
        clock.now = now
        for call in (signer.issue, lambda: signer.validate(token), signer.purge, signer.ping):
            with pytest.raises(ClockError):
                call()
        signer.revoke(token)  # refusing needs no clock


class TestIntrospect:
    def test_the_purpose_is_told_not_asked(self, signer: Signer) -> None:
        """A caller that cannot know the purpose reads it from the answer."""
        assert signer.introspect(signer.issue(purpose="email", aud="web")).purpose == "email"

    def test_a_purpose_that_is_claimed_but_not_signed_is_refused(self, signer: Signer) -> None:
        """The claim picks the key, and the signature then does not fit."""
        email, reset = signer.issue(purpose="email"), signer.issue(purpose="reset")
        with pytest.raises(TokenSignatureInvalid):
            signer.introspect(".".join([*email.split(".")[:3], reset.split(".")[3]]))

    def test_what_is_dead_is_dead_here_too(self, signer: Signer, clock: Clock) -> None:
        """Time, list and binding apply as in validate."""
        revoked, bound, old = signer.issue(), signer.issue(bind="x"), signer.issue(ttl=1)
        signer.revoke(revoked)
        clock.now += 1
        for token in (revoked, bound, old):
            with pytest.raises(TokenError):
                signer.introspect(token)


class TestBinding:
    def test_a_bound_token_dies_with_its_state(self, signer: Signer) -> None:
        """A reset link dies the moment the password changes, with nothing stored."""
        token = signer.issue(purpose="reset", sub="42", bind="hash-1")
        signer.validate(token, purpose="reset", bind="hash-1")
        with pytest.raises(TokenBindingWrong):
            signer.validate(token, purpose="reset", bind="hash-2")

    def test_a_missing_state_is_refused_either_way(self, signer: Signer) -> None:
        """No state for a bound token, or a state for a token that is bound to none."""
        with pytest.raises(TokenBindingWrong):
            signer.validate(signer.issue(bind="x"))
        with pytest.raises(TokenBindingWrong):
            signer.validate(signer.issue(), bind="x")

    def test_equal_states_bind_differently(self, signer: Signer) -> None:
        """`bnd` does not reveal that two users share a password hash."""
        first, second = (signer.validate(signer.issue(bind="x"), bind="x").bnd for _ in range(2))
        assert first != second
        assert first is not None
        assert len(first) * 6 >= 128

    def test_a_binding_survives_key_rotation(self, store: Store) -> None:
        """It is made with the key that signed."""
        new = generate_key()
        token = Signer(KEY, store).issue(bind="x")
        Signer(KeyRing(new, [KEY]), store).validate(token, bind="x")


class TestKeys:
    def test_fallbacks_verify_and_never_sign(self, store: Store) -> None:
        """Rotation: old tokens stay good, new ones are signed with the new key."""
        new = generate_key()
        old_signer, rotated = Signer(KEY, store), Signer(KeyRing(new, [KEY]), store)
        rotated.validate(old_signer.issue())
        with pytest.raises(TokenKeyUnknown):
            old_signer.validate(rotated.issue())
        with pytest.raises(TokenKeyUnknown):
            Signer(new, store).validate(old_signer.issue())


class TestRevoke:
    def test_a_revoked_token_is_refused_by_its_id(self, signer: Signer) -> None:
        """Revoking twice is no error; other tokens remain valid."""
        token, other = signer.issue(), signer.issue()
        signer.revoke(token)
        signer.revoke(token)
        with pytest.raises(TokenRevoked):
            signer.validate(token)
        signer.validate(other)

    def test_strangers_cannot_fill_the_list(self, signer: Signer, store: Store) -> None:
        """Only what we signed gets a row, and only while it could be valid."""
        for token in (Signer(generate_key()).issue(), signer.issue()[:-1] + "!", "x"):
            with pytest.raises(TokenError):
                signer.revoke(token)
        assert store.count() == 0

    def test_an_expired_token_needs_no_row(self, signer: Signer, store: Store, clock: Clock) -> None:
        """Revoking an expired token is a no-op, once its row could be purged and no successor can live."""
        counted, token = signer.issue(ttl=60, max_uses=1), signer.issue(ttl=60)
        clock.now += 60 + 10 + PURGE_MARGIN + 1
        signer.purge()
        signer.revoke(counted)
        assert store.count() == 0
        clock.now += 90 * DAY
        signer.purge()
        signer.revoke(token)
        assert store.count() == 0

    def test_a_clock_that_ran_ahead_does_not_lose_a_revocation(self, signer: Signer, clock: Clock) -> None:
        """An acknowledged revocation still holds after the clock was corrected."""
        token = signer.issue(ttl=3600)
        clock.now += 3600 + 400
        signer.revoke(token)
        clock.now -= 3600 + 400 - 60
        with pytest.raises(TokenRevoked):
            signer.validate(token)

    def test_a_token_is_revoked_by_its_id_alone(self, signer: Signer, clock: Clock) -> None:
        """For callers that kept only the id."""
        token, other = signer.issue(ttl=DAY), signer.issue(ttl=DAY)
        signer.revoke_jti(signer.validate(token).jti)
        for _ in range(2):
            with pytest.raises(TokenRevoked):
                signer.validate(token)
            signer.validate(other)
            clock.now += DAY - 1
            signer.purge()

    @pytest.mark.parametrize("jti", ["", "x", "x" * 22 + "\n", "x" * 21 + "!", 1, None])
    def test_an_id_that_no_token_can_have_is_refused(self, signer: Signer, jti: Any) -> None:
        """22 characters of base64url."""
        with pytest.raises(RequestInvalid, match="jti"):
            signer.revoke_jti(jti)

    @pytest.mark.parametrize(
        ("claim", "method"),
        [("sub", "revoke_subject"), ("sid", "revoke_session"), ("client_id", "revoke_client")],
    )
    def test_all_tokens_of_one_name_die_by_one_row(
        self, signer: Signer, store: Store, claim: str, method: str
    ) -> None:
        """Tokens of others remain valid, and so is one issued afterwards in the same instant."""
        mine: dict[str, Any] = {claim: "alice"}
        others: dict[str, Any] = {claim: "bob"}
        tokens = [signer.issue(**mine) for _ in range(50)]
        other = signer.issue(**others)
        getattr(signer, method)("alice")
        assert store.count() == 1
        for token in tokens:
            with pytest.raises(TokenRevoked):
                signer.validate(token)
        signer.validate(other)
        signer.validate(signer.issue(**mine))

    def test_groups_of_different_kinds_do_not_mix(self, signer: Signer) -> None:
        """A subject with the name of a session does not end that session."""
        token = signer.issue(sid="alice", client_id="alice")
        signer.revoke_subject("alice")
        signer.validate(token)

    def test_a_user_cannot_log_out_a_client(self, signer: Signer) -> None:
        """A credential belongs to its client_id, not to a subject of the same name."""
        credential = signer.issue(purpose="signer:client", sub="billing", client_id="billing")
        signer.revoke_subject("billing")
        signer.validate(credential, purpose="signer:client")
        signer.revoke_client("billing")
        with pytest.raises(TokenRevoked):
            signer.validate(credential, purpose="signer:client")

    def test_generations_never_step_back(self, signer: Signer, clock: Clock) -> None:
        """Also if the clock steps back an hour between two revocations."""
        signer.revoke_subject("alice")
        token = signer.issue(sub="alice")
        clock.now -= 3
        signer.revoke_subject("alice")
        with pytest.raises(TokenRevoked):
            signer.validate(token)

    def test_a_generation_outlives_every_token_it_ended(self, store: Store, clock: Clock) -> None:
        """Purging at any time never brings a token back."""
        signer = Signer(KEY, store, max_ttl=DAY, clock=clock)
        token = signer.issue(sub="alice", ttl=DAY)
        signer.revoke_subject("alice")
        for _ in range(60):
            clock.now += DAY / 24
            signer.purge()
            with pytest.raises(TokenError):
                signer.validate(token)
        assert store.count() == 0

    def test_no_clock_within_the_leeway_sees_a_revoked_token_again(self, store: Store) -> None:
        """Issued by a clock that runs ahead, revoked by one that is right, purged by one ahead at the first
        moment the row may go, and asked by one behind."""
        now, leeway, life = 1_800_000_000, 300, 10_000

        def at(time: float) -> Signer:
            return Signer(KEY, store, max_ttl=life, leeway=leeway, clock=lambda: time)

        ahead = at(now + leeway)
        token = ahead.issue(sub="alice", ttl=life)
        at(now).revoke_subject("alice")
        for later in range(life - 300, life + 3 * leeway, 50):
            at(now + later + leeway).purge()
            with pytest.raises((TokenError, ClockError)):
                at(now + later - leeway).validate(token)

    @pytest.mark.parametrize(("issued", "revoked"), [(0, -3600), (3600, 0), (3600, -3600)])
    def test_a_clock_wrong_by_an_hour_does_not_end_a_revocation_early(
        self, store: Store, issued: int, revoked: int
    ) -> None:
        """Issued by a clock ahead, or revoked by one behind; then purged and checked by a correct one."""
        now = 1_800_000_000
        token = Signer(KEY, store, clock=lambda: now + issued).issue(sub="alice", ttl=90 * DAY)
        jti = Signer(KEY).inspect(token).unverified_claims.jti
        Signer(KEY, store, clock=lambda: now + revoked).revoke_subject("alice")
        Signer(KEY, store, clock=lambda: now + revoked).revoke_jti(jti)
        for later in range(90 * DAY - 4000, 90 * DAY + 3600, 300):
            right = Signer(KEY, store, clock=lambda later=later: now + later)  # type: ignore[misc]
            right.purge()
            with pytest.raises(TokenError):
                right.validate(token)

    def test_a_row_outlives_its_token_by_leeway_and_margin(self, store: Store) -> None:
        """By the leeway that is configured."""
        now = 1_800_000_000
        token = Signer(KEY, store, clock=lambda: now).issue(ttl=60)
        Signer(KEY, store, clock=lambda: now).revoke(token)
        last = now + 60 + 200 + PURGE_MARGIN
        assert Signer(KEY, store, leeway=200, clock=lambda: last).purge() == 0
        assert Signer(KEY, store, leeway=200, clock=lambda: last + 1).purge() == 1


class TestConsume:
    def test_a_token_is_used_once(self, signer: Signer) -> None:
        """Without max_uses there is one use; afterwards it validates no more."""
        token = signer.issue()
        assert signer.consume(token).uses_left == 0
        for method in (signer.consume, signer.validate, signer.introspect):
            with pytest.raises(TokenUsed):
                method(token)

    def test_max_uses_counts_down(self, signer: Signer) -> None:
        """Between uses the token is valid."""
        token = signer.issue(max_uses=3)
        for left in (2, 1, 0):
            signer.validate(token)
            assert signer.consume(token).uses_left == left
        with pytest.raises(TokenUsed):
            signer.consume(token)

    def test_what_does_not_validate_is_not_used(self, signer: Signer, store: Store) -> None:
        """A refused use leaves no trace."""
        token = signer.issue(purpose="confirm", bind="x")
        with pytest.raises(TokenPurposeWrong):
            signer.consume(token)
        with pytest.raises(TokenBindingWrong):
            signer.consume(token, purpose="confirm", bind="y")
        assert store.count() == 0
        assert signer.consume(token, purpose="confirm", bind="x").claims.purpose == "confirm"

    def test_a_revoked_token_has_no_uses(self, signer: Signer) -> None:
        """A token that is both is reported as revoked."""
        token = signer.issue(max_uses=5)
        signer.consume(token)
        signer.revoke(token)
        with pytest.raises(TokenRevoked):
            signer.consume(token)


class TestPurge:
    def test_only_what_expired_goes(self, signer: Signer, store: Store, clock: Clock) -> None:
        """Rows outlive their token by leeway and a margin, and then go."""
        short, long = signer.issue(ttl=60), signer.issue(ttl=DAY)
        signer.revoke(short)
        signer.revoke(long)
        clock.now += 60 + 10 + PURGE_MARGIN
        assert signer.purge() == 0
        clock.now += 1
        assert signer.purge() == 1
        assert store.count() == 1
        with pytest.raises(TokenRevoked):
            signer.validate(long)

    def test_a_clock_that_stepped_back_reopens_nothing(self, signer: Signer, clock: Clock) -> None:
        """Purged by a clock an hour ahead, checked by a correct one: refused, although the row is gone."""
        used, revoked, subject = signer.issue(), signer.issue(), signer.issue(sub="alice")
        signer.consume(used)
        signer.revoke(revoked)
        signer.revoke_subject("alice")
        clock.now += 400 * DAY
        signer.purge()
        clock.now -= 400 * DAY
        for token in (used, revoked, subject):
            with pytest.raises(ClockError):
                signer.validate(token)
        with pytest.raises(ClockError):
            signer.issue(sub="alice")
        with pytest.raises(ClockError):
            signer.ping()

    def test_a_token_cut_short_by_a_lower_cap_is_not_reopened_either(
        self, store: Store, clock: Clock
    ) -> None:
        """The row of its subject lives as long as the cap, so the horizon is compared with the cap, too."""
        token = Signer(KEY, store, clock=clock).issue(sub="alice", ttl=90 * DAY)
        capped = Signer(KEY, store, max_ttl=DAY, clock=clock)
        capped.revoke_subject("alice")
        clock.now += 3 * DAY
        assert capped.purge() == 1
        clock.now -= 3 * DAY - 60
        with pytest.raises(ClockError):
            capped.validate(token)

    def test_many_rows_go_in_steps(self, signer: Signer, store: Store, clock: Clock) -> None:
        """More rows than one step deletes, groups among them."""
        for number in range(1500):
            store.revoke(f"{number:022d}", int(clock.now) + 1)
        for number in range(10):
            signer.revoke_session(f"s{number}")
        clock.now += 200 * DAY
        assert signer.purge() == 1510
        assert store.count() == 0


class TestWithoutStore:
    def test_signature_and_age_are_checked(self, clock: Clock) -> None:
        """What needs no list works without one."""
        signer = Signer(KEY, clock=clock)
        token = signer.issue(sub="alice", bind="x")
        assert signer.validate(token, bind="x").sub == "alice"
        clock.now += 3600
        with pytest.raises(TokenExpired):
            signer.validate(token, bind="x")

    def test_what_needs_a_list_says_so(self) -> None:
        """A call that could not keep its promise raises."""
        signer = Signer(KEY)
        token = signer.issue()
        for call in (
            lambda: signer.revoke(token),
            lambda: signer.consume(token),
            lambda: signer.revoke_subject("alice"),
            signer.purge,
            lambda: signer.issue(max_uses=2),
        ):
            with pytest.raises(StoreRequired, match="open_store"):
                call()

    def test_a_token_with_limited_uses_is_not_called_valid(self, signer: Signer) -> None:
        """Only the list knows how many are left."""
        with pytest.raises(StoreRequired):
            Signer(KEY, clock=lambda: 1_800_000_000).validate(signer.issue(max_uses=1))


def test_inspect_says_what_a_text_says_of_itself(signer: Signer) -> None:
    """Unverified, and named so: a forged token is inspected like any other."""
    token = signer.issue(sub="alice")
    assert signer.inspect(token).unverified_claims.sub == "alice"
    assert signer.inspect(token[:-1] + ("A" if token[-1] != "A" else "B")).unverified_claims.sub == "alice"
