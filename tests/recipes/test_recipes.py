"""The recipes that use the library: each in normal use, and under attack."""

import ast
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from recipes import (
    api_keys,
    confirmation,
    continuous_validation,
    email_verification,
    guests,
    password_reset,
    quotas,
    rotation,
    second_factor,
    sessions,
)
from support.clock import Clock
from support.service import KEY

from signer import Signer, Store
from signer.errors import (
    StoreError,
    TokenExpired,
    TokenNotRotatable,
    TokenPurposeWrong,
    TokenRevoked,
    TokenRotated,
    TokenScopeInsufficient,
)

ALICE, MALLORY = "alice@example.org", "mallory@example.org"


class Outbox:
    """What was sent, in order."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, ...]] = []

    def __call__(self, *message: str) -> None:
        self.sent.append(message)

    @property
    def link(self) -> dict[str, str]:
        """The token in the link of the last message."""
        address = self.sent[-1][-1].split()[-1]
        return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


@pytest.fixture
def outbox() -> Outbox:
    """An empty outbox."""
    return Outbox()


def other_digit(code: str) -> str:
    """A code that is not this one."""
    return f"{(int(code) + 1) % 1_000_000:06d}"


class TestPasswordReset:
    @pytest.fixture
    def users(self) -> dict[str, password_reset.User]:
        """Two users; neither has set a password yet."""
        return {"1": password_reset.User("1", ALICE, "!"), "2": password_reset.User("2", MALLORY, "!")}

    def asked(self, signer: Signer, users: dict[str, password_reset.User], email: str) -> str:
        """The token that was mailed to this address."""
        outbox = Outbox()
        password_reset.ask(signer, users, email, outbox)
        assert outbox.sent[0][0] == email
        return outbox.link["token"]

    def test_the_link_sets_the_password_and_ends_the_sessions(
        self, signer: Signer, users: dict[str, password_reset.User]
    ) -> None:
        """Only of that user; a log-in afterwards works."""
        session, other = signer.issue(sub="1"), signer.issue(sub="2")
        token = self.asked(signer, users, ALICE)
        assert password_reset.set_password(signer, users, "1", token, "new")
        assert [user.password_hash for user in users.values()] == ["new", "!"]
        with pytest.raises(TokenRevoked):
            signer.validate(session)
        assert signer.validate(other)
        assert signer.validate(signer.issue(sub="1"))

    def test_it_is_good_once_and_for_its_user(
        self, signer: Signer, users: dict[str, password_reset.User]
    ) -> None:
        """Even if both users have the same hash. An attempt with the wrong user does not use it up."""
        token = self.asked(signer, users, MALLORY)
        assert not password_reset.set_password(signer, users, "1", token, "stolen")
        assert not password_reset.set_password(signer, users, "3", token, "stolen")
        assert password_reset.set_password(signer, users, "2", token, "new")
        users["2"].password_hash = "!"
        assert not password_reset.set_password(signer, users, "2", token, "again")
        assert users["1"].password_hash == "!"

    def test_a_new_password_kills_every_link(
        self, signer: Signer, users: dict[str, password_reset.User]
    ) -> None:
        """All that were sent before, whether the password was changed by a link or in another way."""
        first, second = self.asked(signer, users, ALICE), self.asked(signer, users, ALICE)
        assert password_reset.set_password(signer, users, "1", second, "new")
        assert not password_reset.set_password(signer, users, "1", first, "stolen")
        third = self.asked(signer, users, ALICE)
        users["1"].password_hash = "set in the profile"
        assert not password_reset.set_password(signer, users, "1", third, "stolen")

    def test_it_dies_of_age_and_is_for_nothing_else(
        self, signer: Signer, clock: Clock, users: dict[str, password_reset.User]
    ) -> None:
        """After a quarter of an hour. A session is no link, and a link is no session."""
        token = self.asked(signer, users, ALICE)
        session = signer.issue(sub="1", bind="1 !")
        assert not password_reset.set_password(signer, users, "1", session, "stolen")
        with pytest.raises(TokenPurposeWrong):
            signer.validate(token, bind="1 !")
        clock.now += 900
        assert not password_reset.set_password(signer, users, "1", token, "late")

    def test_an_unknown_address_gets_no_mail(
        self, signer: Signer, users: dict[str, password_reset.User], outbox: Outbox
    ) -> None:
        """And nothing is raised that the page could show."""
        password_reset.ask(signer, users, "nobody@example.org", outbox)
        assert outbox.sent == []

    def test_of_twenty_at_once_one_sets_the_password(
        self, signer: Signer, users: dict[str, password_reset.User]
    ) -> None:
        """The list decides, not the order of the threads."""
        token = self.asked(signer, users, ALICE)
        with ThreadPoolExecutor(20) as pool:
            won = [
                pool.submit(password_reset.set_password, signer, users, "1", token, f"new {i}")
                for i in range(20)
            ]
        (winner,) = [i for i, answer in enumerate(won) if answer.result()]
        assert users["1"].password_hash == f"new {winner}"


class TestEmailVerification:
    def test_the_address_is_the_users_when_it_is_confirmed(self, signer: Signer, outbox: Outbox) -> None:
        """The mail goes there and nowhere else. A second click is refused, also for an address that the user
        had before."""
        user = email_verification.User("1")
        email_verification.ask(signer, user, ALICE, outbox)
        assert (outbox.sent[0][0], user.email) == (ALICE, "")
        for _ in range(2):
            assert email_verification.confirm(signer, user, outbox.link["token"])
            assert user.email == ALICE
            assert not email_verification.confirm(signer, user, outbox.link["token"])
            email_verification.ask(signer, user, ALICE, outbox)

    def test_a_link_confirms_the_address_it_was_mailed_to(self, signer: Signer, outbox: Outbox) -> None:
        """Whatever address was asked for later; the later link is then refused."""
        user = email_verification.User("1")
        email_verification.ask(signer, user, MALLORY, outbox)
        own = outbox.link["token"]
        email_verification.ask(signer, user, ALICE, outbox)
        assert email_verification.confirm(signer, user, own)
        assert user.email == MALLORY
        assert not email_verification.confirm(signer, user, outbox.link["token"])
        assert user.email == MALLORY

    def test_nobody_confirms_in_a_strangers_account(self, signer: Signer, outbox: Outbox) -> None:
        """A stranger signed up with this address; the reader of its mail is logged in to her own account."""
        stranger, alice = email_verification.User("1"), email_verification.User("2")
        email_verification.ask(signer, stranger, ALICE, outbox)
        assert not email_verification.confirm(signer, alice, outbox.link["token"])
        assert stranger.email == alice.email == ""

    def test_it_dies_of_age_and_needs_its_purpose(self, signer: Signer, clock: Clock, outbox: Outbox) -> None:
        """After a day. A token with the same data and another purpose is refused."""
        user = email_verification.User("1")
        other = signer.issue(sub="1", data={"email": ALICE}, bind="1 ")
        assert not email_verification.confirm(signer, user, other)
        email_verification.ask(signer, user, ALICE, outbox)
        clock.now += 24 * 60 * 60
        assert not email_verification.confirm(signer, user, outbox.link["token"])


class TestSecondFactor:
    def begun(self, signer: Signer, user: str = "1") -> tuple[str, str]:
        """A challenge, and the code that was sent."""
        outbox = Outbox()
        challenge = second_factor.begin(signer, user, outbox)
        return challenge, outbox.sent[0][0].split()[2].rstrip(".")

    def test_the_code_makes_a_session(self, signer: Signer) -> None:
        """For the user to whom it was sent, once, and with the spaces that people type."""
        challenge, code = self.begun(signer)
        session, said = second_factor.finish(signer, challenge, f" {code}\n")
        assert (sessions.user_of(signer, session), said) == ("1", "")
        assert second_factor.finish(signer, challenge, code) == ("", "Log in again.")

    def test_a_challenge_is_no_session(self, signer: Signer) -> None:
        """The password alone gives no session."""
        challenge, _ = self.begun(signer)
        assert sessions.user_of(signer, challenge) is None

    def test_guesses_are_few(self, signer: Signer) -> None:
        """A text that cannot be a code does not count. After the fifth guess even the right code is
        refused."""
        challenge, code = self.begun(signer)
        for typed in ("", "12345", "abcdef", "١٢٣٤٥٦", "1" * 5000):
            assert second_factor.finish(signer, challenge, typed) == ("", "A code has six digits.")
        for left in (4, 3, 2, 1, 0):
            said = f"That is not the code. Attempts left: {left}."
            assert second_factor.finish(signer, challenge, other_digit(code)) == ("", said)
        session, said = second_factor.finish(signer, challenge, code)
        assert (session, said[:8]) == ("", "Too many")

    def test_new_challenges_bring_no_new_guesses_for_ever(self, signer: Signer, clock: Clock) -> None:
        """Twenty an hour for the user. Other users are not locked out, and the hour passes."""
        for _ in range(4):
            challenge, code = self.begun(signer)
            for _ in range(5):
                second_factor.finish(signer, challenge, other_digit(code))
        assert second_factor.finish(signer, *self.begun(signer))[0] == ""
        assert second_factor.finish(signer, *self.begun(signer, "2"))[0]
        clock.now += 3600
        assert second_factor.finish(signer, *self.begun(signer))[0]

    def test_a_code_is_for_its_challenge_its_purpose_and_its_time(self, signer: Signer, clock: Clock) -> None:
        """Five minutes. The code of another user, or of a payment, logs nobody in."""
        mine, my_code = self.begun(signer, "2")
        theirs, code = self.begun(signer)
        if my_code != code:
            assert second_factor.finish(signer, theirs, my_code)[0] == ""
        payment = signer.issue_code(sub="1", purpose="payment")
        assert second_factor.finish(signer, payment.token, payment.code) == ("", "Log in again.")
        clock.now += 300
        assert second_factor.finish(signer, mine, my_code) == ("", "Log in again.")

    def test_a_new_password_ends_the_log_in_under_way(self, signer: Signer) -> None:
        """It began with the old password."""
        challenge, code = self.begun(signer)
        signer.revoke_subject("1")
        assert second_factor.finish(signer, challenge, code) == ("", "Log in again.")


class TestAPIKeys:
    def made(self, signer: Signer, notes: dict[str, api_keys.Note], owner: str = "1") -> tuple[str, str]:
        """A key for reading, and its id."""
        key = api_keys.create(
            signer, notes, owner, "backup", scopes={"read"}, held={"read", "write", "admin"}
        )
        return key, list(notes)[-1]

    def test_a_key_does_what_it_is_for(self, signer: Signer) -> None:
        """And no table holds it."""
        notes: dict[str, api_keys.Note] = {}
        key, jti = self.made(signer, notes)
        assert api_keys.check(signer, key, "read").sub == "1"
        with pytest.raises(TokenScopeInsufficient):
            api_keys.check(signer, key, "write")
        assert notes[jti].label == "backup"
        assert key not in str(notes)

    @pytest.mark.parametrize("scopes", [{"admin"}, {"read", "admin"}, {"write"}])
    def test_a_key_cannot_do_more_than_its_owner_or_than_keys_do(
        self, signer: Signer, scopes: set[str]
    ) -> None:
        """No key is made then."""
        notes: dict[str, api_keys.Note] = {}
        with pytest.raises(PermissionError):
            api_keys.create(signer, notes, "1", "x", scopes=scopes, held={"read", "admin"})
        assert notes == {}

    def test_deleting_one_ends_that_one(self, signer: Signer) -> None:
        """Not its neighbour, and not that of another user, whose id is no secret."""
        notes: dict[str, api_keys.Note] = {}
        one, one_id = self.made(signer, notes)
        two, _ = self.made(signer, notes)
        theirs, their_id = self.made(signer, notes, "2")
        assert api_keys.delete(signer, notes, "1", one_id)
        assert not api_keys.delete(signer, notes, "1", their_id)
        assert not api_keys.delete(signer, notes, "1", one_id)
        with pytest.raises(TokenRevoked):
            api_keys.check(signer, one, "read")
        assert api_keys.check(signer, two, "read").sub == "1"
        assert api_keys.check(signer, theirs, "read").sub == "2"

    def test_a_key_is_no_session_and_a_session_no_key(self, signer: Signer) -> None:
        """Their purposes differ."""
        key, _ = self.made(signer, {})
        assert sessions.user_of(signer, key) is None
        with pytest.raises(TokenPurposeWrong):
            api_keys.check(signer, signer.issue(sub="1", scope="read"), "read")

    def test_it_lives_a_day(self, signer: Signer, clock: Clock) -> None:
        """As the list of keys says."""
        notes: dict[str, api_keys.Note] = {}
        key, jti = self.made(signer, notes)
        clock.now += 24 * 60 * 60 - 1
        assert api_keys.check(signer, key, "read")
        clock.now += 1
        assert notes[jti].expires_at == clock.now
        with pytest.raises(TokenExpired):
            api_keys.check(signer, key, "read")


class TestQuotas:
    def test_each_call_is_counted_and_the_last_one_is_the_last(self, signer: Signer) -> None:
        """The customer sees how many are left."""
        token = quotas.grant(signer, "1", 2)
        answers = [quotas.answer(signer, token, lambda: "done") for _ in range(3)]
        assert [(status, headers["X-Calls-Left"]) for status, headers, _ in answers] == [
            (200, "1"),
            (200, "0"),
            (429, "0"),
        ]
        assert answers[0][2] == "done"

    def test_of_a_hundred_at_once_exactly_ten_get_through(self, signer: Signer) -> None:
        """And the work is done exactly as often."""
        token, done = quotas.grant(signer, "1", 10), []

        def work() -> str:
            done.append(1)
            return ""

        with ThreadPoolExecutor(20) as pool:
            statuses = list(pool.map(lambda _: quotas.answer(signer, token, work)[0], range(100)))
        assert (statuses.count(200), statuses.count(429), len(done)) == (10, 90, 10)

    def test_the_count_cannot_be_begun_anew(self, signer: Signer) -> None:
        """Neither by rotation nor as another kind of token."""
        token = quotas.grant(signer, "1", 1)
        with pytest.raises(TokenNotRotatable):
            signer.rotate(token, purpose="quota")
        assert sessions.user_of(signer, token) is None
        assert quotas.answer(signer, signer.issue(sub="1", max_uses=1000), str)[0] == 401

    def test_it_ends_with_its_day_or_when_it_is_revoked(self, signer: Signer, clock: Clock) -> None:
        """Whatever is left of it; then no work is done."""
        late, revoked = quotas.grant(signer, "1", 9), quotas.grant(signer, "1", 9)
        signer.revoke(revoked)

        def work() -> str:
            raise AssertionError("work for nothing")

        assert quotas.answer(signer, revoked, work)[0] == 401
        clock.now += 24 * 60 * 60
        assert quotas.answer(signer, late, work)[0] == 401

    def test_a_list_that_is_down_lets_no_call_through(self, signer: Signer, store: Store) -> None:
        """The list's error becomes a 503, and the call is not free."""
        token = quotas.grant(signer, "1", 9)
        store.close()
        with pytest.raises(StoreError):
            quotas.answer(signer, token, str)


class TestSessions:
    def token(self, cookie: str) -> str:
        """The value that a Set-Cookie sets, as every browser reads it."""
        pair, *attributes = cookie.split("; ")
        assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} < set(attributes)
        name, _, value = pair.partition("=")
        assert name == "__Host-session"
        return value

    def test_logging_out_ends_the_token_and_not_just_the_cookie(self, signer: Signer) -> None:
        """A copy of it is refused, too; another browser stays logged in."""
        here, there = (self.token(sessions.log_in(signer, "1")) for _ in range(2))
        assert sessions.user_of(signer, here) == "1"
        cookie = sessions.log_out(signer, here)
        assert self.token(cookie) == ""
        assert "Max-Age=0" in cookie
        assert sessions.user_of(signer, here) is None
        assert sessions.user_of(signer, there) == "1"

    def test_logging_out_twice_or_with_rubbish_is_no_error(self, signer: Signer) -> None:
        """The session has ended, as the caller wanted."""
        token = self.token(sessions.log_in(signer, "1"))
        for text in (token, token, "", "rubbish"):
            assert self.token(sessions.log_out(signer, text)) == ""

    def test_everywhere_is_everywhere(self, signer: Signer) -> None:
        """For one user. The next log-in works at the same instant."""
        mine = [self.token(sessions.log_in(signer, "1")) for _ in range(3)]
        theirs = self.token(sessions.log_in(signer, "2"))
        sessions.log_out_everywhere(signer, "1")
        assert [sessions.user_of(signer, token) for token in mine] == [None] * 3
        assert sessions.user_of(signer, theirs) == "2"
        assert sessions.user_of(signer, self.token(sessions.log_in(signer, "1"))) == "1"

    def test_a_new_password_leaves_one_session(self, signer: Signer) -> None:
        """The new one."""
        thief = self.token(sessions.log_in(signer, "1"))
        mine = self.token(sessions.password_changed(signer, "1"))
        assert (sessions.user_of(signer, thief), sessions.user_of(signer, mine)) == (None, "1")

    def test_a_session_ends_by_itself_and_is_a_session(self, signer: Signer, clock: Clock) -> None:
        """After twelve hours. A token of another purpose is no session."""
        token = self.token(sessions.log_in(signer, "1"))
        assert sessions.user_of(signer, signer.issue(purpose="reset", sub="1")) is None
        clock.now += sessions.LIFE
        assert sessions.user_of(signer, token) is None

    def test_a_log_out_that_could_not_be_written_says_so(self, signer: Signer, store: Store) -> None:
        """The answer never claims an end that did not happen, and nobody is let in."""
        token = self.token(sessions.log_in(signer, "1"))
        store.close()
        with pytest.raises(StoreError):
            sessions.log_out(signer, token)
        with pytest.raises(StoreError):
            sessions.user_of(signer, token)


class TestConfirmation:
    @pytest.fixture
    def payment(self) -> confirmation.Payment:
        """A payment that waits for its confirmation."""
        return confirmation.Payment("7", "1", "account 17", 1250)

    def test_it_is_paid_as_it_was_shown_once(
        self, signer: Signer, payment: confirmation.Payment, outbox: Outbox
    ) -> None:
        """A double click pays once."""
        confirmation.ask(signer, payment, outbox)
        assert outbox.sent[0][0].startswith("Pay 12.50 to account 17? ")
        paid: list[confirmation.Payment] = []
        token = outbox.link["token"]
        with ThreadPoolExecutor(20) as pool:
            answers = list(
                pool.map(lambda _: confirmation.confirm(signer, payment, token, paid.append), range(40))
            )
        assert (answers.count(True), paid) == (1, [payment])

    @pytest.mark.parametrize(
        ("field", "value"), [("cents", 125000), ("payee", "account 18"), ("user", "2"), ("id", "8")]
    )
    def test_any_other_payment_is_refused(
        self, signer: Signer, payment: confirmation.Payment, outbox: Outbox, field: str, value: object
    ) -> None:
        """Whatever was changed after it was shown. If the change is undone, it can still be confirmed."""
        confirmation.ask(signer, payment, outbox)
        paid: list[confirmation.Payment] = []
        shown = getattr(payment, field)
        setattr(payment, field, value)
        assert not confirmation.confirm(signer, payment, outbox.link["token"], paid.append)
        assert paid == []
        setattr(payment, field, shown)
        assert confirmation.confirm(signer, payment, outbox.link["token"], paid.append)

    def test_nothing_slides_from_one_field_into_the_next(self, signer: Signer, outbox: Outbox) -> None:
        """Two payments that read the same when their fields are joined are different."""
        shown = confirmation.Payment("7", "1", "A 10", 1)
        confirmation.ask(signer, shown, outbox)
        other = confirmation.Payment("7", "1 A", "10", 1)
        assert not confirmation.confirm(signer, other, outbox.link["token"], lambda _: None)

    def test_five_minutes_and_no_other_token(
        self, signer: Signer, payment: confirmation.Payment, clock: Clock, outbox: Outbox
    ) -> None:
        """A session is no confirmation, even if it is bound to the same payment."""
        confirmation.ask(signer, payment, outbox)
        session = signer.issue(sub="1", bind=confirmation._shown(payment))
        paid: list[confirmation.Payment] = []
        assert not confirmation.confirm(signer, payment, session, paid.append)
        clock.now += 300
        assert not confirmation.confirm(signer, payment, outbox.link["token"], paid.append)
        assert paid == []

    def test_a_payment_that_failed_is_asked_for_again(
        self, signer: Signer, payment: confirmation.Payment, outbox: Outbox
    ) -> None:
        """A payment that is not made can be repeated; one that is made twice cannot be undone."""

        def fail(payment: confirmation.Payment) -> None:
            raise OSError("the bank is closed")

        confirmation.ask(signer, payment, outbox)
        token = outbox.link["token"]
        with pytest.raises(OSError, match="closed"):
            confirmation.confirm(signer, payment, token, fail)
        assert not confirmation.confirm(signer, payment, token, lambda _: None)
        confirmation.ask(signer, payment, outbox)
        assert confirmation.confirm(signer, payment, outbox.link["token"], lambda _: None)


class TestGuests:
    def token(self, link: str) -> str:
        """The token in the link."""
        return parse_qs(urlsplit(link).query)["token"][0]

    def test_a_link_opens_its_document_to_read(self, signer: Signer) -> None:
        """As often as the guest likes, and for nothing else."""
        token = self.token(guests.share(signer, "d1"))
        assert [guests.document_of(signer, token) for _ in range(2)] == ["d1", "d1"]
        assert guests.document_of(signer, token, "write") is None

    def test_a_guest_is_no_user(self, signer: Signer) -> None:
        """Nor is a user's token a link, whatever its claims are."""
        token = self.token(guests.share(signer, "d1"))
        assert sessions.user_of(signer, token) is None
        assert signer.validate(token, purpose="guest").sub is None
        forged = signer.issue(purpose="access", sub="1", scope="read", data={"document": "d1"})
        assert guests.document_of(signer, forged) is None

    def test_closing_a_document_ends_all_its_links(self, signer: Signer) -> None:
        """Links of other documents, and later ones, stay valid."""
        mine = [self.token(guests.share(signer, "d1")) for _ in range(3)]
        other = self.token(guests.share(signer, "d2"))
        guests.close(signer, "d1")
        assert [guests.document_of(signer, token) for token in mine] == [None] * 3
        assert guests.document_of(signer, other) == "d2"
        assert guests.document_of(signer, self.token(guests.share(signer, "d1"))) == "d1"

    def test_it_lasts_a_week(self, signer: Signer, clock: Clock) -> None:
        """To the second."""
        token = self.token(guests.share(signer, "d1"))
        clock.now += 7 * 24 * 60 * 60 - 1
        assert guests.document_of(signer, token) == "d1"
        clock.now += 1
        assert guests.document_of(signer, token) is None


class TestContinuousValidation:
    def test_a_stream_ends_with_the_session(self, signer: Signer) -> None:
        """The message that came after the log-out is not delivered."""
        token = signer.issue(sub="1")
        stream = continuous_validation.stream(signer, token, ["one", "two", "three"])
        assert [next(stream), next(stream)] == ["one", "two"]
        signer.revoke(token)
        with pytest.raises(TokenRevoked):
            next(stream)

    def test_a_revocation_while_it_waits_counts(self, signer: Signer) -> None:
        """It checks when there is a message, not before it waits for one."""
        token = signer.issue(sub="1")

        def messages() -> list[str]:
            signer.revoke_subject("1")
            return ["secret"]

        stream = continuous_validation.stream(signer, token, (text for _ in "1" for text in messages()))
        with pytest.raises(TokenRevoked):
            next(stream)

    def test_what_is_dangerous_wants_a_fresh_log_in(self, signer: Signer, clock: Clock) -> None:
        """A session of six minutes is valid, but not recent enough; a new one is."""
        token = signer.issue(sub="1")
        assert continuous_validation.require_recent_login(signer, token).sub == "1"
        clock.now += 300
        assert signer.validate(token)
        with pytest.raises(TokenExpired):
            continuous_validation.require_recent_login(signer, token)
        fresh = signer.issue(sub="1")
        assert continuous_validation.require_recent_login(signer, fresh).sub == "1"

    def test_rotating_a_session_makes_no_fresh_log_in(self, signer: Signer, clock: Clock) -> None:
        """Its successor is as old as the log-in: accepted until five minutes after that, and not a second
        longer."""
        token = signer.issue(sub="1")
        for _ in range(2):
            clock.now += 149
            token = signer.rotate(token).token
        clock.now += 1
        assert continuous_validation.require_recent_login(signer, token).sub == "1"
        clock.now += 1
        assert signer.validate(token).iat == clock.now - 2
        with pytest.raises(TokenExpired):
            continuous_validation.require_recent_login(signer, token)


class TestRotation:
    def admitted(self, signer: Signer, clock: Clock, token: str) -> str:
        """The token in the browser after this request."""
        claims, successor = rotation.admit(signer, token, clock.now)
        assert claims.sub == "1"
        return successor or token

    def test_a_token_is_replaced_past_half_its_life(self, signer: Signer, clock: Clock) -> None:
        """Not earlier. A user who comes now and then stays logged in until the session ends."""
        token = rotation.log_in(signer, "1")
        clock.now += rotation.LIFE / 2 - 1
        assert self.admitted(signer, clock, token) == token
        clock.now += 1
        seen = [token, token := self.admitted(signer, clock, token)]
        for _ in range(18):
            clock.now += 600
            seen.append(token := self.admitted(signer, clock, token))
        assert len(set(seen)) == 20

    def test_two_tabs_and_a_lost_answer_are_no_theft(self, signer: Signer, clock: Clock) -> None:
        """All get the same successor, within the grace period."""
        token = rotation.log_in(signer, "1")
        clock.now += 600
        with ThreadPoolExecutor(20) as pool:
            given = set(pool.map(lambda _: self.admitted(signer, clock, token), range(100)))
        clock.now += 30.9
        given.add(self.admitted(signer, clock, token))
        assert len(given) == 1
        assert self.admitted(signer, clock, given.pop())

    def test_a_stolen_token_ends_the_session(self, signer: Signer, clock: Clock) -> None:
        """The second of thief and owner ends it for both; the owner can log in again."""
        stolen = rotation.log_in(signer, "1")
        clock.now += 600
        successor = self.admitted(signer, clock, stolen)
        clock.now += 31
        assert self.admitted(signer, clock, successor) == successor
        with pytest.raises(TokenRotated):
            rotation.admit(signer, stolen, clock.now)
        with pytest.raises(TokenRevoked):
            rotation.admit(signer, successor, clock.now)
        assert self.admitted(signer, clock, rotation.log_in(signer, "1"))

    def test_no_session_is_for_ever(self, signer: Signer, clock: Clock) -> None:
        """It ends twelve hours after the log-in, whatever the user does."""
        token, end = rotation.log_in(signer, "1"), clock.now + rotation.SESSION_LIFE
        while clock.now + 500 < end:
            clock.now += 500
            token = self.admitted(signer, clock, token)
        clock.now = end
        with pytest.raises(TokenExpired):
            rotation.admit(signer, token, clock.now)

    def test_it_reads_the_clock_by_itself(self, store: Store) -> None:
        """An application does not pass the time."""
        signer = Signer(KEY, store)
        claims, successor = rotation.admit(signer, rotation.log_in(signer, "1"))
        assert (claims.sub, successor) == ("1", None)


HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("*.py") if not path.name.startswith("test_"))


def test_the_table_has_every_recipe() -> None:
    """Each recipe once, and no file that does not exist."""
    assert (
        sorted(re.findall(r"^\|.*?\]\((\w+\.py)\) \|", (HERE / "README.md").read_text(), re.MULTILINE))
        == FILES
    )


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_says_what_it_avoids(name: str) -> None:
    """In a few lines at its beginning."""
    docstring = ast.get_docstring(ast.parse((HERE / name).read_text())) or ""
    assert "\n\nIt avoids " in docstring
    assert 3 <= len(docstring.splitlines()) <= 8
