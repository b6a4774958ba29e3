"""Callers, their credentials, and their scopes."""

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
    """A client and its scopes; or, without a credential, an anonymous caller.

    Attributes:
        credential: the claims of the client's credential, which was valid when the request began; None for an
            anonymous caller.
        scopes: what the caller is allowed to do.
        is_developer: whether this is the one caller of the development service, which can do everything and
            hand out every scope.
    """

    credential: Claims | None = None
    scopes: frozenset[str] = frozenset()
    is_developer: bool = False

    @property
    def client_id(self) -> str | None:
        """The client's name; None for an anonymous caller."""
        return None if self.credential is None else self.credential.client_id

    def acting(self, signer: Signer) -> Signer:
        """The Signer that makes changes for this caller; see Signer.on_behalf_of."""
        return signer if self.credential is None else signer.on_behalf_of(self.credential)

    def holds(self, words: frozenset[str]) -> bool:
        """Whether the caller has every one of these scopes."""
        return self.is_developer or words <= self.scopes

    def require(self, words: frozenset[str]) -> None:
        """Return if the caller has every one of these scopes.

        Raises:
            CredentialMissing: it has not, and sent no credential.
            ScopeInsufficient: its credential lacks one.
        """
        if self.holds(words):
            return
        if self.client_id is None:
            raise CredentialMissing
        raise ScopeInsufficient(
            f"The client credential lacks the scope {' '.join(sorted(words - self.scopes))}."
        )


DEVELOPER: Final = Caller(is_developer=True)
#: The developer's name in the log and in the audit trail. No client can have it: ids contain no colon.
_DEVELOPER_NAME: Final = "signer:development"
#: For requests whose credential can only be in a header.
NO_FORM: Final = Form()


class Guard:
    """Finds out who calls, and refuses callers that lack a scope.

    A credential is sent as `Authorization: Bearer …`; or as Basic, with the client id as user name and the
    credential as password; or in a form, as `client_secret` beside `client_id`. Both parts of Basic can be
    percent-encoded or not, because clients disagree on RFC 6749, section 2.3.1.

    Args:
        signer: checks credentials; its hooks are notified of every caller.
        anonymous: the caller that a request without a credential counts as.
        limits: count the credentials that are refused.
        lookups: runs checks that may have to wait for a network.
    """

    def __init__(self, signer: Signer, anonymous: Caller, limits: Limits, lookups: Lookups[Signer]) -> None:
        self._lookups = lookups
        self._signer = signer
        self._anonymous = anonymous
        self._limits = limits

    async def admit(self, scope: Scope, words: frozenset[str], form: Form = NO_FORM) -> Caller:
        """The caller of a request, who has these scopes.

        Args:
            scope: of the request; its headers may have the credential.
            words: the scopes that the caller needs.
            form: may have the credential instead.

        Raises:
            CredentialInvalid: the credential is not valid now, it is another client's, or there are several.
            RateLimited: the same, and the caller sent too many of these.
            CredentialMissing, ScopeInsufficient: the caller lacks a scope.
            RequestInvalid: both the header and the form have a credential (RFC 6749, section 2.3).
            SystemUnavailable: the credential cannot be checked now.
        """
        shown = header(scope, b"authorization")
        with self._signer.hooks.operation("authenticate") as operation:
            try:
                if shown or form.client_secret is not UNSET:
                    caller = await self._lookups.run(self._identified, shown, form, operation)
                else:
                    caller = self._anonymous  # there is nothing to look up
            except CredentialInvalid:
                await self._limits.count(FAILED)
                raise
            current().actor = _DEVELOPER_NAME if caller.is_developer else caller.client_id
            caller.require(words)
            return caller

    def _identified(self, signer: Signer, shown: list[bytes], form: Form, operation: Operation) -> Caller:
        if shown and form.client_secret is not UNSET:
            raise RequestInvalid(
                "Send the credential either in the header or in the form, not in both.", "client_secret"
            )
        if shown:
            client_id, credential = _from_header(shown)
        else:
            client_id, credential = form.client_id or "", str(form.client_secret)
        claims = _credential(signer, credential, operation)
        if client_id not in (None, claims.client_id) or form.client_id not in (UNSET, claims.client_id):
            raise CredentialInvalid
        return Caller(credential=claims, scopes=scope_words(claims.scope))


def _credential(signer: Signer, credential: str, operation: Operation) -> Claims:
    try:
        claims = signer.check(operation, credential, CLIENT_PURPOSE)
    except TokenError as error:
        raise CredentialInvalid from error
    # A caller is known by its client_id, and could be revoked by its sub: they must be the same.
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
