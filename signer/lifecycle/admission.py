"""Whether a token whose signature fits is good now, by time, scope, binding and list; and the generation that
a new token is issued in."""

from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import Final

from msgspec.structs import replace

from ..errors import (
    ClockError,
    CredentialInvalid,
    StoreRequired,
    TokenAudienceWrong,
    TokenBindingWrong,
    TokenError,
    TokenRevoked,
    TokenRotated,
    TokenUsed,
)
from ..events import Operation
from ..policy import LONGEST_TTL
from ..stores import names
from ..stores.contract import Entry, Store
from ..tokens.claims import CODE_PREFIX, MAX_TIME, Claims, check_proof, check_scope, check_time, started
from ..tokens.codec import Codec
from ..tokens.values import Binding, Seconds, converted

_Lookup = Callable[[str, int, Sequence[str]], Entry]
#: The year 2020. A clock that shows less was never set.
_EARLIEST: Final = 1_577_836_800.0
#: After this, a token could expire after the last second that can be written.
_LATEST: Final = float(MAX_TIME - LONGEST_TTL)
_BEHIND: Final = (
    "The list was purged by a clock ahead of this one, so it may lack rows of this token. Set the clocks"
    " right; if this one is right, see the guide, Incidents: A clock was wrong."
)


class Admission:
    """The checks that every token passes, on one codec, list and clock.

    `store` may be None; `max_ttl`, `leeway` and `grace` are seconds; see signer.Signer.
    """

    def __init__(
        self,
        codec: Codec,
        store: Store | None,
        *,
        max_ttl: int,
        leeway: int,
        grace: int,
        clock: Callable[[], float],
    ) -> None:
        self._codec = codec
        self._store = store
        self._view = None if store is None else store.view
        self._max_ttl = max_ttl
        self._leeway = leeway
        self._grace = grace
        self._clock = clock

    def as_of(self, moment: float) -> "Admission":
        """The same checks for calls that may not wait; see stores.contract.View.at."""
        pinned = object.__new__(type(self))
        view = self._view and self._view.at(moment)
        pinned.__dict__.update(self.__dict__, _view=view)
        return pinned

    def now(self) -> float:
        """Seconds since 1970.

        Raises:
            ClockError: the clock is wrong by years.
        """
        now = self._clock()
        # Written so that NaN fails too.
        if not _EARLIEST < now < _LATEST:
            raise ClockError
        return now

    def check_horizon(self, now: float, horizon: int) -> None:
        """Return only if the list was never purged by a clock that ran further ahead.

        Raises:
            ClockError.
        """
        if now < horizon:
            raise ClockError(_BEHIND)

    def check(  # noqa: PLR0917 - by place: names would take a part of the whole that counts
        self,
        within: Operation | None,
        token: str,
        purpose: str | None,
        scope: str | None = None,
        aud: str | None = None,
        bind: str | None = None,
        max_age: int | None = None,
        is_change: bool = False,
    ) -> Claims:
        """The claims of a token that is good now; with `purpose` None of whatever purpose. `within` is the
        operation that this is a part of. A change asks the list itself, however fresh a copy may be.

        Raises:
            As Signer.validate.
        """
        claims = self._codec.decode(token, purpose)
        if within is not None:
            within.about(claims)
        if claims.purpose.startswith(CODE_PREFIX):
            check_proof(claims)
        if claims.aud != aud and (purpose is not None or aud is not None):
            raise TokenAudienceWrong
        self.admit(claims, scope, bind, max_age, is_change)
        return claims

    def admit(
        self,
        claims: Claims,
        scope: str | None = None,
        bind: str | None = None,
        max_age: int | None = None,
        is_change: bool = False,
    ) -> int:
        """Return only if the token is good now; see Signer.validate for arguments and errors. For a change
        the list itself is asked, however fresh its copy may be.

        Returns:
            The highest generation of its groups when the list was asked. A later revocation has a later one.
        """
        now = self._clock()
        if not _EARLIEST < now < _LATEST:
            raise ClockError
        # Before the time: an expired token can reveal a theft, but only a caller who knows the state learns
        # that.
        if claims.bnd is not None or bind is not None:
            self._check_binding(claims, bind)
        # The cap holds here, too, so that no token outlives the row that revoked its subject.
        oldest = self._max_ttl
        if max_age is not None:
            oldest = min(converted(max_age, Seconds, "max_age"), oldest)
        end = check_time(claims, now, self._leeway, oldest)
        if scope is not None:
            check_scope(claims, converted(scope, str, "scope"))
        view = self._view
        if view is None:
            if claims.max_uses is not None:
                raise StoreRequired
        elif is_change and self._store is not None and not view.is_local:
            return self._check_list(self._store.lookup, claims, now)
        elif not view.is_clear(claims, end):
            return self._check_list(view.recall, claims, now)
        return claims.gen

    def is_rotated(self, claims: Claims) -> bool:
        """Whether the token, expired or not, was traded for its successor before the grace window, and has
        not been revoked since.

        Raises:
            SystemUnavailable: the list cannot answer.
        """
        if self._store is None:
            return False
        entry = self._store.lookup(names.row(claims), claims.exp, names.groups(claims))
        now = self.now()
        return self.is_past_grace(entry.rotated_at, now) and not _is_revoked(claims, entry, now)

    def _check_binding(self, claims: Claims, bind: str | None) -> None:
        if claims.bnd is None or bind is None:
            raise TokenBindingWrong
        expected = self.binding(claims, converted(bind, Binding, "bind"))
        if not compare_digest(expected.encode(), claims.bnd.encode()):
            raise TokenBindingWrong

    def _check_list(self, lookup: _Lookup, claims: Claims, now: float) -> int:
        entry = lookup(names.row(claims), claims.exp, names.groups(claims))
        self._check_entry(claims, entry, now)
        return entry.generation

    def _check_entry(self, claims: Claims, entry: Entry, now: float) -> None:
        # Its rows may have been purged, by a clock ahead of this one.
        self.check_horizon(min(claims.exp, started(claims) + self._max_ttl), entry.horizon)
        if _is_revoked(claims, entry, now):
            raise TokenRevoked
        if entry.uses >= (claims.max_uses or 1):
            raise TokenUsed
        if self.is_past_grace(entry.rotated_at, now):
            raise TokenRotated

    def is_past_grace(self, rotated_at: int, now: float) -> bool:
        """Whether a token that was traded at second `rotated_at` (0: was not) is not good any more."""
        # One second more, because `rotated_at` lacks the fraction.
        return rotated_at > 0 and now >= rotated_at + self._grace + 1

    def binding(self, claims: Claims, state: str) -> str:
        """The `bnd` claim under the key that signed the token, or is about to."""
        return self._codec.key(claims).binding(claims.jti, claims.purpose, state)

    def confirm(self, credential: Claims, entry: Entry | None = None) -> None:
        """Return only if a client's credential is good now, by the list itself. `entry` is what the list
        said of it, if it was asked already.

        Raises:
            CredentialInvalid: it is not, even if it was when its caller was admitted.
            SystemUnavailable: the list cannot answer.
        """
        try:
            if entry is None:
                self.admit(credential, is_change=True)
            else:
                now = self.now()
                check_time(credential, now, self._leeway, self._max_ttl)
                self._check_entry(credential, entry, now)
        except TokenError as error:
            raise CredentialInvalid from error

    def in_generation(self, claims: Claims, credential: Claims | None = None) -> Claims:
        """The claims of a token about to be issued, with the generation of its groups.

        Where a client's credential authorises it, that is confirmed no earlier than the generation is read:
        revoking the client before that moment refuses the token, and revoking it later ends the token.

        Raises:
            CredentialInvalid: the credential is not good now.
            SystemUnavailable: the list cannot answer.
        """
        store, view = self._store, self._view
        if store is None or view is None or (view.is_local and view.is_clear(claims, claims.exp)):
            if credential is not None:
                self.confirm(credential)
            return claims
        # Without the groups of its own id, which is new and in no list.
        row, groups = claims, names.shared_groups(claims)
        if credential is not None:  # in the same look-up, which may cross a network
            row, groups = credential, list({*groups, *names.groups(credential)})
        entry = store.lookup(names.row(row), row.exp, groups)
        self.check_horizon(claims.exp, entry.horizon)
        if credential is not None:
            # A later generation may be that of the new token's subject only, so the credential is looked up
            # alone.
            self.confirm(credential, entry if entry.generation <= credential.gen else None)
        return replace(claims, gen=entry.generation)


def _is_revoked(claims: Claims, entry: Entry, now: float) -> bool:
    # A generation after the list's last was never given out: a holder of a key invented it, or the list lost
    # the revocation that gave it out.
    last = entry.last_generation
    if entry.unheard:
        # A generation is the millisecond in which it was given out, or one more than the generation before
        # it.
        last = max(last, int(now * 1000)) + entry.unheard
    return entry.revoked or not entry.generation <= claims.gen <= last
