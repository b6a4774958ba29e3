"""The credential behind a change is checked when the change is made; a generation that was never given out is refused."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from support.clock import Clock, eventually
from support.service import KEY

from signer import KeyRing, Signer, Store, TokenError, open_store
from signer.credentials import issue_credential
from signer.errors import CredentialInvalid, TokenRevoked, TokenRotated
from signer.events import Event
from signer.stores import Entry
from signer.stores.copies.refresher import now
from signer.stores.direct import DirectView
from signer.stores.memory import MemoryStore
from signer.tokens.claims import Claims
from signer.tokens.codec import Codec
from signer.tokens.values import CodeRequest, IssueRequest

OLD = "an-old-key-that-leaked-and-is-a-fallback-now"
Change = Callable[[Signer, Signer], object]


def _token(signer: Signer, **asked: Any) -> str:
    return signer.issue(client_id="billing", **asked)


#: By a client, on tokens that the service issued for it before.
CHANGES: dict[str, Change] = {
    "grant": lambda acting, signer: acting.grant(IssueRequest(sub="42"), "billing"),
    "grant_code": lambda acting, signer: acting.grant_code(CodeRequest(sub="42"), "billing"),
    "rotate": lambda acting, signer: acting.rotate(_token(signer), client_id="billing"),
    "consume": lambda acting, signer: acting.consume(_token(signer)),
    "verify_code": lambda acting, signer: acting.verify_code(*signer.issue_code(sub="42")[:2]),
    "revoke": lambda acting, signer: acting.revoke(_token(signer)),
    "revoke_jti": lambda acting, signer: acting.revoke_jti("a" * 22),
    "revoke_subject": lambda acting, signer: acting.revoke_subject("42"),
    "revoke_session": lambda acting, signer: acting.revoke_session("s1"),
    "revoke_client": lambda acting, signer: acting.revoke_client("other"),
    "purge": lambda acting, signer: acting.purge(),
}
ENDS: dict[str, Callable[[Signer, Clock, str], object]] = {
    "client": lambda signer, clock, credential: signer.revoke_client("billing"),
    "credential": lambda signer, clock, credential: signer.revoke(credential),
    "jti": lambda signer, clock, credential: signer.revoke_jti(
        signer.validate(credential, purpose="signer:client").jti
    ),
    "time": lambda signer, clock, credential: later(clock, 7200),
}


@pytest.fixture(params=["sqlite", "memory", "postgres", "redis"])
def listed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A list of each kind."""
    urls = {"sqlite": f"sqlite:///{tmp_path}/list.db", "memory": "memory://"}
    url = urls.get(request.param) or request.getfixturevalue(f"{request.param}_url")
    store = open_store(url)
    yield store
    store.close()


def later(clock: Clock, seconds: int) -> None:
    """Advance it."""
    clock.now += seconds


def admitted(signer: Signer) -> tuple[str, Claims]:
    """A client's credential, and its claims when the client is admitted."""
    credential = issue_credential(signer, "billing", "token:issue read", 3600)
    return credential, signer.validate(credential, purpose="signer:client")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_client_that_was_revoked_since_it_was_let_in_changes_nothing(
    change: str, end: str, listed: Store, clock: Clock
) -> None:
    """Revoked by client, by token or by id, or expired; a client whose credential is good can still do it."""
    signer = Signer(KEY, listed, clock=clock)
    credential, claims = admitted(signer)
    CHANGES[change](signer.on_behalf_of(claims), signer)
    ENDS[end](signer, clock, credential)
    rows = listed.count()
    with pytest.raises(CredentialInvalid):
        CHANGES[change](signer.on_behalf_of(claims), signer)
    assert listed.count() == rows
    CHANGES[change](signer.on_behalf_of(admitted(signer)[1]), signer)


@pytest.mark.parametrize("subject", ["never-revoked", "revoked"])
def test_what_is_granted_while_its_client_is_revoked_is_revoked(
    subject: str, listed: Store, clock: Clock
) -> None:
    """At any moment of the revocation, the token is refused or was never issued."""
    signer = Signer(KEY, listed, clock=clock)

    class Revoking:
        """Revokes the client just before its token is handed out."""

        def before(self, event: Event) -> None:
            if event.name == "issue":
                signer.revoke_client("billing")

        def after(self, event: Event) -> None:
            pass

    busy = Signer(KEY, listed, clock=clock, hooks=[Revoking()])
    _, claims = admitted(signer)
    if subject == "revoked":
        signer.revoke_subject(subject)
    token = busy.on_behalf_of(claims).grant(IssueRequest(sub=subject), "billing").token
    with pytest.raises(TokenRevoked):
        signer.validate(token)


class Interrupted(MemoryStore):
    """Calls `then` once, after its next look-up."""

    then: Callable[[], object] | None = None

    @property
    def view(self) -> DirectView:
        return DirectView(self.lookup, super().view.is_clear, is_local=False)

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        entry = super().lookup(jti, exp, groups)
        then, self.then = self.then, None
        if then:
            then()
        return entry


def test_a_revocation_between_two_look_ups_is_not_overlooked(clock: Clock) -> None:
    """The generation of the new token is read first, and the client's credential is checked after that."""
    store = Interrupted()
    signer = Signer(KEY, store, clock=clock)
    _, claims = admitted(signer)
    signer.revoke_subject("42")  # so that one look-up does not do
    store.then = lambda: signer.revoke_client("billing")
    with pytest.raises(CredentialInvalid):
        signer.on_behalf_of(claims).grant(IssueRequest(sub="42"), "billing")


def test_theft_is_not_called_by_a_client_that_was_revoked(store: Store, clock: Clock) -> None:
    """It would end a session whose token it may have stolen."""
    signer = Signer(KEY, store, clock=clock)
    _, claims = admitted(signer)
    first = signer.issue(client_id="billing")
    second = signer.rotate(first).token
    later(clock, 60)
    signer.revoke_jti(claims.jti)
    with pytest.raises(CredentialInvalid):
        signer.on_behalf_of(claims).rotate(first, client_id="billing")
    assert signer.validate(second)


def test_a_trade_that_slept_past_the_grace_window_is_theft(clock: Clock) -> None:
    """It was admitted before another one came, and woke up when that one's grace was over."""
    store = Interrupted()
    signer = Signer(KEY, store, clock=clock)
    first = signer.issue()
    successors = []

    def overtake() -> None:
        successors.append(signer.rotate(first).token)
        later(clock, 60)

    store.then = overtake
    with pytest.raises(TokenRotated):
        signer.rotate(first)
    with pytest.raises(TokenRevoked):
        signer.validate(successors[0])


def forged(generation: int, clock: Clock) -> str:
    """A token made with a leaked key."""
    claims = Claims(jti="f" * 22, exp=int(clock()) + 3600, purpose="access", sub="42", gen=generation)
    return Codec(KeyRing(OLD)).encode(claims, int(clock()))


@pytest.mark.parametrize("is_revoked_before", [False, True])
@pytest.mark.parametrize("more", [1, 10**9, 2**53])
def test_a_generation_that_nobody_was_given_is_refused(
    more: int, is_revoked_before: bool, listed: Store, clock: Clock
) -> None:
    """Or its token could be traded for one of the new key that no revocation of a group ends."""
    signer = Signer(KeyRing(KEY, [OLD]), listed, clock=clock)
    newest = 0
    if is_revoked_before:
        signer.revoke_subject("somebody")
        newest = int(clock() * 1000)
    token = forged(min(newest + more, 2**53), clock)
    for call in (signer.validate, signer.consume, signer.rotate):
        with pytest.raises(TokenRevoked):
            call(token)


def test_a_group_ends_what_was_traded_for_a_forged_token(listed: Store, clock: Clock) -> None:
    """Its successor has no later generation than the list gave out when it was looked up."""
    signer = Signer(KeyRing(KEY, [OLD]), listed, clock=clock)
    signer.revoke_subject("somebody")
    newest = int(clock() * 1000)
    issued = signer.rotate(forged(newest, clock))
    assert issued.claims.gen <= newest
    signer.revoke_subject("42")
    with pytest.raises(TokenError):
        signer.validate(issued.token)


@pytest.mark.parametrize("staleness", [0, 60])
def test_a_copy_refuses_it_where_the_list_would(
    staleness: int, engine_url: str, clock: Clock, open_list: Callable[[str], Store]
) -> None:
    """Within a bound, later generations may have been given out that have not reached the copy."""
    there = Signer(KEY, open_list(engine_url), clock=clock)
    here = open_store(engine_url, staleness=staleness)
    try:
        signer = Signer(KeyRing(KEY, [OLD]), here, clock=clock)
        eventually(lambda: here.view.catch_up() is not None, 60)
        there.revoke_subject("42")
        token = there.issue(sub="42")
        came = now()
        assert staleness or here.view.catch_up()
        signer = signer if staleness else signer.as_of(came)
        assert signer.validate(token)
        with nullcontext() if staleness else pytest.raises(TokenRevoked):
            signer.validate(forged(int(clock() * 1000) + 1, clock))
        for generation in (int((clock() + 600) * 1000), 2**53):
            with pytest.raises(TokenRevoked):
                signer.validate(forged(generation, clock))
    finally:
        here.close()
