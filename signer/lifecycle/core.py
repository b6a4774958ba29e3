"""What every part of a token's life works with."""

from collections.abc import Callable, Iterable

from msgspec import Struct

from ..errors import ScopeInsufficient, StoreRequired
from ..events import CountingHook, Hook, Hooks, Operation
from ..policy import GROUP_MARGIN
from ..stores.contract import Store
from ..tokens.claims import Claims
from ..tokens.codec import Codec
from ..tokens.keys import KeyRing
from ..tokens.values import Seconds, Ttl, converted
from .admission import Admission


class Core(Struct, frozen=True):
    """One codec, revocation list, clock (inside of `admission`) and set of hooks. Times are in seconds.

    The functions that take it are the parts of a Signer, and say the same as the methods of that name.
    """

    codec: Codec
    store: Store | None
    admission: Admission
    hooks: Hooks
    ttl: int
    max_ttl: int
    leeway: int
    #: The client's credential that authorises the changes; None where the caller needs no authorisation.
    credential: Claims | None = None

    def required_store(self) -> Store:
        """The list.

        Raises:
            StoreRequired: there is none.
        """
        if self.store is None:
            raise StoreRequired
        return self.store

    def begin(self, change: Operation) -> None:
        """Confirm the credential, then announce the change to the hooks. In this order, because an audit
        trail must not name a change that was not allowed.

        Raises:
            CredentialInvalid: the credential is not good now.
            SystemUnavailable: the list cannot answer, or a hook refuses the change.
        """
        if self.credential is not None:
            self.admission.confirm(self.credential)
        change.begin()

    def advance(self, group: str) -> None:
        """Start a new generation of a group: its tokens of older generations are refused from now on."""
        now_ms = int(self.admission.now() * 1000)
        self.required_store().advance(group, now_ms, self.max_ttl + GROUP_MARGIN)


def assembled(  # noqa: PLR0917 - in the order of Signer's
    keys: KeyRing | str | bytes,
    store: Store | None,
    ttl: int,
    max_ttl: int,
    leeway: int,
    grace: int,
    clock: Callable[[], float],
    hooks: Iterable[Hook | CountingHook],
) -> Core:
    """The core that the arguments of Signer make.

    Raises:
        KeyInvalid, RequestInvalid: as Signer.
    """
    codec = Codec(keys if isinstance(keys, KeyRing) else KeyRing(keys))
    max_ttl = converted(max_ttl, Ttl, "max_ttl")
    ttl = min(converted(ttl, Ttl, "ttl"), max_ttl)
    leeway = converted(leeway, Seconds, "leeway")
    grace = converted(grace, Seconds, "grace")
    admission = Admission(codec, store, max_ttl=max_ttl, leeway=leeway, grace=grace, clock=clock)
    return Core(codec, store, admission, Hooks(hooks), ttl, max_ttl, leeway)


def check_owner(claims: Claims, client_id: str | None) -> None:
    """Return only if the token is this client's, or the caller is nobody in particular (None).

    Raises:
        ScopeInsufficient.
    """
    if client_id is not None and claims.client_id != client_id:
        raise ScopeInsufficient("This is another client's token.")
