"""The OAuth endpoints: RFC 6749 (client_credentials), RFC 7662, RFC 7009 and RFC 8414."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response

from ...aio.changes import Writer
from ...aio.lookups import Lookups
from ...credentials import SERVICE_SCOPES
from ...errors import CredentialMissing, TokenError
from ...signer import Signer
from ...tokens.claims import scope_words
from ...tokens.values import IssueRequest
from ..access.callers import Caller, Guard
from ..access.hosts import AUTHORITY
from ..access.limits import ISSUE, Limits
from ..access.sessions import checked_session
from ..messages.answers import AccessToken, Answer, Ended, Inactive, Introspection, Metadata
from ..messages.bodies import Form, TokenForm, TokenRequestForm, read_form
from ..messages.problems import oauth_problem

F = TypeVar("F", bound=Form)
FormHandler = Callable[[HTTPRequest, Caller, F], Awaitable[Response]]

WELL_KNOWN = "/.well-known/oauth-authorization-server"
#: RFC 6749, section 5.1.
_NO_CACHE = {"pragma": "no-cache"}


class OAuth:
    """The OAuth endpoints.

    Args:
        signer: does the work.
        guard: says who calls.
        writer: makes the changes.
        limits: count expensive calls.
        lookups: runs validations that may have to wait for a network.
        issuer: the URL that identifies the service; "" for the one that a request was sent to.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        guard: Guard,
        writer: Writer,
        limits: Limits,
        lookups: Lookups[Signer],
        issuer: str = "",
    ) -> None:
        self._signer = signer
        self._guard = guard
        self._writer = writer
        self._limits = limits
        self._lookups = lookups
        self._issuer = issuer
        #: The paths of the metadata. An issuer's own path is appended (RFC 8414, section 3.1).
        self.metadata_paths = tuple(dict.fromkeys((WELL_KNOWN, WELL_KNOWN + urlsplit(issuer).path)))

    def endpoint(
        self, handler: FormHandler[F], form: type[F], scope: str
    ) -> Callable[[HTTPRequest], Awaitable[Response]]:
        """The function of a route. It reads the form first, because that may have the credential."""
        words = scope_words(scope)

        async def answer(request: HTTPRequest) -> Response:
            asked = await read_form(request, form)
            caller = await self._guard.admit(request.scope, words, asked)
            return await handler(request, caller, asked)

        return answer

    async def token(self, request: HTTPRequest, caller: Caller, form: TokenRequestForm) -> Response:
        """POST /oauth/token: a short-lived access token for the client itself (RFC 6749, section 4.4)."""
        if caller.client_id is None:
            raise CredentialMissing
        if form.grant_type != "client_credentials":
            return oauth_problem(
                400, "unsupported_grant_type", "The only grant type here is client_credentials."
            )
        held = caller.scopes - SERVICE_SCOPES
        words = scope_words(form.scope) if isinstance(form.scope, str) else held
        if not words or not words <= held:
            return oauth_problem(
                400, "invalid_scope", "Ask only for scopes that the credential can hand out."
            )
        scope = " ".join(sorted(words))
        # RFC 9068, section 2.2: if no user is involved, the subject is the client.
        await self._limits.count(ISSUE)
        asked = IssueRequest(sub=caller.client_id, scope=scope)
        token, claims = await self._writer.issue(caller.acting(self._signer).grant, asked, caller.client_id)
        body = AccessToken(access_token=token, expires_in=claims.exp - claims.iat, scope=scope)
        return Answer(body, headers=_NO_CACHE)

    async def introspect(self, request: HTTPRequest, caller: Caller, form: TokenForm) -> Response:
        """POST /oauth/introspect (RFC 7662). A token is active if a resource server can accept it repeatedly.
        A client's credential is not, nor is a token whose uses are counted."""
        try:
            claims = await self._lookups.run(checked_session, form.token)
        except TokenError:
            return Answer(Inactive())
        return Answer(Introspection.of(claims, self.issuer(request)))

    async def revoke(self, request: HTTPRequest, caller: Caller, form: TokenForm) -> Response:
        """POST /oauth/revoke (RFC 7009). A client can revoke its own tokens, and with `token:revoke` any."""
        may_revoke_any = caller.holds(frozenset({"token:revoke"}))
        if caller.client_id is None and not may_revoke_any:
            raise CredentialMissing
        owner = None if may_revoke_any else caller.client_id
        # RFC 7009, section 2.2: an invalid token is no error, because it is of no use anyway.
        with suppress(TokenError):
            await self._writer.run(caller.acting(self._signer).revoke, form.token, client_id=owner)
        return Answer(Ended())

    async def metadata(self, request: HTTPRequest) -> Response:
        """GET /.well-known/oauth-authorization-server (RFC 8414)."""
        issuer = self.issuer(request)
        metadata = Metadata(
            issuer=issuer,
            token_endpoint=f"{issuer}/oauth/token",
            introspection_endpoint=f"{issuer}/oauth/introspect",
            revocation_endpoint=f"{issuer}/oauth/revoke",
            service_documentation=f"{issuer}/docs",
        )
        return Answer(metadata)

    def issuer(self, request: HTTPRequest) -> str:
        """ISSUER, or the origin that the request was sent to.

        Raises:
            HTTPException: the request does not name exactly one origin.
        """
        if self._issuer:
            return self._issuer
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not AUTHORITY.fullmatch(hosts[0]):
            raise HTTPException(400, "Send exactly one Host header, with a name or an address.")
        return f"{request.url.scheme}://{hosts[0]}"
