"""Who calls, and what they may do."""

from base64 import b64decode
from typing import Final
from urllib.parse import unquote

from msgspec import UNSET, Struct
from starlette.types import Scope

from ...aio.lookups import Lookups
from ...errors import CredentialInvalid, CredentialMissing, RequestInvalid, ScopeInsufficient, TokenError
from ...events import Operation
from ...signer import Signer
from ...tokens.claims import CLIENT_PURPOSE, Claims, scope_words
from ..messages.bodies import Form
from ..telemetry.calls import current, header
from .limits import FAILED, Limits


class Caller(Struct, frozen=True, kw_only=True):
    """A client, or nobody in particular (`credential` None), and the scopes it holds."""

    #: What its credential says, which was good when the client was let in.
    credential: Claims | None = None
    scopes: frozenset[str] = frozenset()
    #: The development service's one caller: may do everything and hand out every scope.
    is_developer: bool = False

    @property
    def client_id(self) -> str | None:
        """The client's name; None for nobody in particular."""
        return None if self.credential is None else self.credential.client_id

    def acting(self, signer: Signer) -> Signer:
        """The Signer that makes this caller's changes; see Signer.on_behalf_of."""
        return signer if self.credential is None else signer.on_behalf_of(self.credential)

    def holds(self, words: frozenset[str]) -> bool:
        """Whether the caller has every one of these scopes."""
        return self.is_developer or words <= self.scopes

    def require(self, words: frozenset[str]) -> None:
        """Return if the caller holds every one of these scopes.

        Raises:
            CredentialMissing: it does not, and showed no credential that could.
            ScopeInsufficient: it does not.
        """
        if self.holds(words):
            return
        if self.client_id is None:
            raise CredentialMissing
        raise ScopeInsufficient(
            f"The client credential lacks the scope {' '.join(sorted(words - self.scopes))}."
        )


DEVELOPER: Final = Caller(is_developer=True)
#: In log and audit trail; no client's id can hold a colon.
_DEVELOPER_NAME: Final = "signer:development"
#: Of requests whose credential can stand in the header only.
NO_FORM: Final = Form()


class Guard:
    """Lets whoever may do it pass.

    A credential comes as `Authorization: Bearer …`, or as Basic with the client id as user and the
    credential as password, each percent-encoded or not (RFC 6749, section 2.3.1, which clients disagree on),
    or as a form's `client_secret` beside its `client_id`.

    Args:
        signer: checks credentials; its hooks are told of every caller.
        anonymous: who a caller without a credential is.
        limits: count the credentials that are refused.
        lookups: runs what may wait for a network.
    """

    def __init__(self, signer: Signer, anonymous: Caller, limits: Limits, lookups: Lookups[Signer]) -> None:
        self._lookups = lookups
        self._signer = signer
        self._anonymous = anonymous
        self._limits = limits

    async def admit(self, scope: Scope, words: frozenset[str], form: Form = NO_FORM) -> Caller:
        """The caller that the credential in a request's headers or form names, who holds these scopes.

        Raises:
            CredentialInvalid: it is not valid now, or another client's, or there are several headers.
            RateLimited: it is not, and there were too many of these.
            CredentialMissing, ScopeInsufficient: the caller lacks a scope.
            RequestInvalid: it comes in header and form (RFC 6749, section 2.3).
            SystemUnavailable: it cannot be checked.
        """
        shown = header(scope, b"authorization")
        with self._signer.hooks.operation("authenticate") as told:
            try:
                if shown or form.client_secret is not UNSET:
                    caller = await self._lookups.run(self._identified, shown, form, told)
                else:
                    caller = self._anonymous  # nothing is to be looked up
            except CredentialInvalid:
                await self._limits.count(FAILED)
                raise
            current().actor = _DEVELOPER_NAME if caller.is_developer else caller.client_id
            caller.require(words)
            return caller

    def _identified(self, signer: Signer, shown: list[bytes], form: Form, told: Operation) -> Caller:
        if shown and form.client_secret is not UNSET:
            raise RequestInvalid("Send the credential once: as a header or in the form.", "client_secret")
        if shown:
            client_id, credential = _from_header(shown)
        else:
            client_id, credential = form.client_id or "", str(form.client_secret)
        claims = _credential(signer, credential, told)
        if client_id not in (None, claims.client_id) or form.client_id not in (UNSET, claims.client_id):
            raise CredentialInvalid
        return Caller(credential=claims, scopes=scope_words(claims.scope))


def _credential(signer: Signer, credential: str, told: Operation) -> Claims:
    try:
        claims = signer.check(told, credential, CLIENT_PURPOSE)
    except TokenError as error:
        raise CredentialInvalid from error
    # Known by the one name and revoked by the other: they must be the same.
    if claims.client_id is None or claims.client_id != claims.sub:
        raise CredentialInvalid
    return claims


def _from_header(values: list[bytes]) -> tuple[str | None, str]:
    if len(values) > 1:
        raise CredentialInvalid
    scheme, _, value = values[0].decode("latin-1").partition(" ")
    match scheme.lower():
        case "bearer":
            return None, value.strip()
        case "basic":
            client_id, _, credential = _basic(value.strip()).partition(":")
            return unquote(client_id), unquote(credential)
        case _:
            raise CredentialInvalid


def _basic(value: str) -> str:
    try:
        return b64decode(value, validate=True).decode("ascii", errors="replace")
    except ValueError:
        raise CredentialInvalid from None
