"""Whether a token whose signature fits is good now: time, scope, binding and list."""

from collections.abc import Callable
from hmac import compare_digest
from typing import Final

from msgspec.structs import replace

from .claims import CLIENT_PURPOSE, MAX_TIME, Claims, check_scope, check_time
from .codec import Codec
from .errors import (
    ClockError,
    RequestInvalid,
    StoreRequired,
    TokenBindingWrong,
    TokenExpired,
    TokenRevoked,
    TokenRotated,
    TokenUsed,
)
from .requests import LONGEST_TTL, Binding, converted
from .stores.base import Store

#: 2020. A clock that reads less was never set.
_EARLIEST: Final = 1_577_836_800
#: So late that a token might expire after the last second there is.
_LATEST: Final = MAX_TIME - LONGEST_TTL
_BEHIND: Final = (
    "The list was purged by a clock that ran ahead of this one, so that it may lack rows of this token."
    " Set the clocks right; if this one is right, see the README: When a clock was wrong."
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
        self._max_ttl = max_ttl
        self._leeway = leeway
        self._grace = grace
        self._clock = clock

    def now(self) -> float:
        """Seconds since 1970.

        Raises:
            ClockError: it cannot be that time.
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

    def admit(
        self,
        claims: Claims,
        *,
        scope: str | None = None,
        bind: str | None = None,
        max_age: int | None = None,
    ) -> None:
        """Return only if the token is good now; see Signer.validate for arguments and errors."""
        now = self.now()
        # The cap holds here too, so that no token outlives the row that revoked its subject.
        check_time(claims, now, self._leeway, self._max_ttl)
        if max_age is not None and not now < started(claims) + seconds("max_age", max_age):
            raise TokenExpired
        if scope is not None:
            check_scope(claims, converted(scope, str, "scope"))
        self._check_binding(claims, bind)
        self._check_list(claims, now)

    def _check_binding(self, claims: Claims, bind: str | None) -> None:
        if claims.bnd is None and bind is None:
            return
        if claims.bnd is None or bind is None:
            raise TokenBindingWrong
        expected = self.binding(claims, converted(bind, Binding, "bind"))
        if not compare_digest(expected.encode(), claims.bnd.encode()):
            raise TokenBindingWrong

    def _check_list(self, claims: Claims, now: float) -> None:
        if self._store is None:
            if claims.max_uses is not None:
                raise StoreRequired
            return
        entry = self._store.lookup(row(claims), claims.exp, _groups(claims))
        # Its rows may be purged, by a clock that runs ahead of this one.
        self.check_horizon(min(claims.exp, claims.iat + self._max_ttl), entry.horizon)
        if entry.revoked or claims.gen < entry.generation:
            raise TokenRevoked
        if entry.uses >= (claims.max_uses or 1):
            raise TokenUsed
        # A second more, for the fraction that `rotated_at` lacks.
        if entry.rotated_at and now >= entry.rotated_at + self._grace + 1:
            raise TokenRotated

    def binding(self, claims: Claims, state: str) -> str:
        """The `bnd` claim under the key that signed the token, or is about to."""
        return self._codec.key(claims).binding(claims.jti, claims.purpose, state)

    def in_generation(self, claims: Claims) -> Claims:
        """The claims of a token about to be issued, with the generation of its groups.

        Raises:
            SystemUnavailable: the list cannot tell it.
        """
        groups = _shared_groups(claims)  # those of its own, new id are in no list
        if self._store is None or not groups:
            return claims
        entry = self._store.lookup(row(claims), claims.exp, groups)
        self.check_horizon(claims.exp, entry.horizon)
        return replace(claims, gen=entry.generation)


def started(claims: Claims) -> int:
    """When the chain of rotated tokens began that this one belongs to, or begins: `auth_time` or `iat`."""
    return claims.iat if claims.auth_time is None else claims.auth_time


def row(claims: Claims) -> str:
    """What names the token's row in the list, beside `exp`. The purpose stands in it, so that whoever has the
    key of one purpose cannot use up a token of another by making one with its id. No purpose holds "/"."""
    return f"{claims.purpose}/{claims.jti}"


def chain(claims: Claims) -> str:
    """The group of the chain of rotated tokens that this one belongs to, or begins: its session, which is
    named by its `sid`, or the id of the first token. A client's own: or it could end another's by a `sid`."""
    session = claims.sid or claims.jti
    return f"sid:{session}" if claims.client_id is None else f"chain:{claims.client_id}:{session}"


def _groups(claims: Claims) -> list[str]:
    """The names a token can be revoked by without being at hand. One without `sid` may have begun a chain
    whose `sid` is its id; see Signer.revoke_jti."""
    if claims.sid is not None:
        return [f"jti:{claims.jti}", *_shared_groups(claims)]
    own = [f"sid:{claims.jti}"] if claims.client_id is None else [f"sid:{claims.jti}", chain(claims)]
    return [*own, *_shared_groups(claims)]


def _shared_groups(claims: Claims) -> list[str]:
    # A user who calls himself like a client must not be able to log that client out.
    sub = None if claims.purpose == CLIENT_PURPOSE else claims.sub
    named = (("sub", sub), ("sid", claims.sid), ("client_id", claims.client_id))
    groups = [f"{kind}:{name}" for kind, name in named if name is not None]
    if claims.sid is not None and claims.client_id is not None:
        groups.append(chain(claims))
    return groups


def seconds(name: str, value: int, least: int = 0) -> int:
    """`value`, if it is a whole number of seconds that may be.

    Raises:
        RequestInvalid: naming `name`.
    """
    # bool is an int to Python, and NaN would win every comparison of the time rule.
    if type(value) is not int or not least <= value <= LONGEST_TTL:
        raise RequestInvalid(f"{name}: a whole number of seconds from {least} to {LONGEST_TTL}", name)
    return value
