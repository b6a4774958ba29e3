"""The façade: every verb, each made by its part in lifecycle/."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from .events import CountingHook, Hook
from .lifecycle import chains, codes, issuing, revocation, uses
from .lifecycle.core import assembled
from .lifecycle.validation import Validator
from .policy import DEFAULT_GRACE, DEFAULT_LEEWAY, DEFAULT_MAX_TTL, DEFAULT_TTL
from .stores import names
from .stores.contract import Store
from .tokens.claims import DEFAULT_PURPOSE, Challenge, Claims, Issued, Use
from .tokens.keys import KeyRing
from .tokens.values import (
    CodeRequest,
    IssueRequest,
    Jti,
    Name,
    Purpose,
    Subject,
    check_public,
    converted,
    issue_request,
)


class Signer(Validator):
    """Issues, validates, revokes and consumes signed tokens.

    Args:
        keys: the key ring, or the one secret (at least 32 bytes; `python -m signer keygen`).
        store: the revocation list. Without one, tokens are checked by signature and age alone, and everything
            that needs a list raises StoreRequired. Where subjects, sessions or clients are revoked, tokens
            must be issued with the list, too, because it tells their generation.
        ttl: life of a token in seconds where none is asked for; `max_ttl` at most.
        max_ttl: the longest life, in seconds. Lowering it also shortens tokens that are out already. Programs
            that share a list must agree on it: revoking a subject is remembered that long. Raise it again
            only when the longest token issued before it was lowered has expired.
        leeway: seconds a token may come from the future, for clocks that disagree.
        grace: seconds in which a token that was rotated is still good, and rotating it again gives the same
            successor.
        clock: seconds since 1970, UTC.
        hooks: are notified of every call; see events.Hook. One that refuses a change prevents it.

    Raises:
        KeyInvalid: a key is missing, short or given twice.
        RequestInvalid: a time is not a whole number of seconds in range.

    Methods may be called from any thread. Those that take a `token` raise a subclass of TokenError where
    it is refused, and SystemUnavailable where list or clock cannot answer.
    """

    def __init__(
        self,
        keys: KeyRing | str | bytes,
        store: Store | None = None,
        *,
        ttl: int = DEFAULT_TTL,
        max_ttl: int = DEFAULT_MAX_TTL,
        leeway: int = DEFAULT_LEEWAY,
        grace: int = DEFAULT_GRACE,
        clock: Callable[[], float] = time.time,
        hooks: Iterable[Hook | CountingHook] = (),
    ) -> None:
        super().__init__(assembled(keys, store, ttl, max_ttl, leeway, grace, clock, hooks))

    def on_behalf_of(self, credential: Claims) -> "Signer":
        """A Signer for one client, whose credential was validated and says `credential`.

        Each change and each new token is refused with CredentialInvalid unless the credential is good at that
        moment, by the list itself and not by a copy: time has passed since the client was admitted. A token
        that is granted at the very moment at which its client is revoked is revoked with it.
        """
        # As copy() would, in a fifth of its time: the service makes one for each call.
        acting = object.__new__(type(self))
        acting.__dict__.update(self.__dict__, _core=replace(self._core, credential=credential))
        return acting

    def issue(
        self,
        *,
        purpose: str = DEFAULT_PURPOSE,
        sub: str | None = None,
        ttl: int | None = None,
        scope: str | None = None,
        aud: str | None = None,
        client_id: str | None = None,
        sid: str | None = None,
        data: Any = None,
        max_uses: int | None = None,
        bind: str | None = None,
    ) -> str:
        """A new token; see values.IssueRequest for the arguments.

        Raises:
            RequestInvalid: naming the argument that is not allowed.
            StoreRequired: `max_uses` without a list.
            SystemUnavailable: list or clock cannot answer.
        """
        request = issue_request(purpose, sub, ttl, scope, data, aud, sid, max_uses, bind)
        if self._is_watched:
            return self.grant(request, client_id).token
        return issuing.made(self._core, request, client_id)[0]

    def grant(self, request: IssueRequest, client_id: str | None = None) -> Issued:
        """The same for a request that was decoded, and so checked, already; with the new token's claims.

        Raises:
            As issue.
        """
        return issuing.grant(self._core, request, client_id)

    def consume(
        self,
        token: str,
        *,
        purpose: str = DEFAULT_PURPOSE,
        scope: str | None = None,
        aud: str | None = None,
        bind: str | None = None,
        max_age: int | None = None,
    ) -> Use:
        """Validate and use once, atomically across processes; a token without `max_uses` has one use.

        Raises:
            TokenUsed: another caller had the last use.
            As validate, and StoreRequired.
        """
        return uses.consume(self._core, token, purpose, scope, aud, bind, max_age)

    def rotate(
        self,
        token: str,
        *,
        purpose: str = DEFAULT_PURPOSE,
        aud: str | None = None,
        bind: str | None = None,
        session_ttl: int | None = None,
        client_id: str | None = None,
    ) -> Issued:
        """Trade a token for its successor, which says the same and lives as long as the token did.

        Within the grace window, a retry gives the same successor. After it, a second trade is taken for theft
        and ends the session: all tokens of this purpose and client with this `sid`, which is the token's own,
        or the id of the first token of the chain (RFC 9700, section 4.14.2).

        Args:
            purpose, aud, bind: as for validate. The successor is bound to the same state.
            session_ttl: seconds from `auth_time`, the issue of the first token, at which the chain ends;
                `max_ttl` at most. Pass the same number every time: near the end, another number makes another
                successor.
            client_id: trade only a token that this client issued.

        Raises:
            TokenRotated: the token was traded before the grace window. Its chain is revoked now.
            TokenExpired: also where the chain has reached its end.
            TokenNotRotatable: it has `max_uses`.
            RequestInvalid: the successor would be too long. The token is as it was.
            ScopeInsufficient: it is another client's.
            As validate, and StoreRequired.
        """
        return chains.rotate(self._core, token, purpose, aud, bind, session_ttl, client_id)

    def issue_code(
        self, *, sub: str, purpose: str = DEFAULT_PURPOSE, ttl: int | None = None, data: Any = None
    ) -> Challenge:
        """A code of six digits to send to its subject, and the token that must come back with it. Neither
        token nor list contains the code; see values.CodeRequest for the arguments.

        Raises:
            As issue, and StoreRequired.
        """
        request = {"sub": sub, "purpose": purpose, "ttl": ttl, "data": data}
        return self.grant_code(converted(request, CodeRequest))

    def grant_code(self, request: CodeRequest, client_id: str | None = None) -> Challenge:
        """The same for a request that was decoded, and so checked, already.

        Raises:
            As issue_code.
        """
        return codes.grant_code(self._core, request, client_id)

    def verify_code(self, token: str, code: str, *, purpose: str = DEFAULT_PURPOSE) -> Claims:
        """The claims of a challenge whose code this is, with the code's own purpose; that uses it up.

        A challenge takes 5 guesses, a subject 20 in any 60 minutes, whatever the number of challenges. Every
        guess is counted, atomically across processes, before it is compared, even if the list fails then.

        Raises:
            CodeWrong: with `attempts_left`.
            AttemptsExceeded: no guess is left, for the challenge or its subject. TokenUsed: it was answered.
            As validate, and StoreRequired.
        """
        return codes.verify_code(self._core, token, code, purpose)

    def purpose_key(self, purpose: str) -> str:
        """The key of one purpose as text, for a Verifier elsewhere. Its holder can check, and also make,
        tokens of this purpose, and of no other.

        Raises:
            RequestInvalid: no purpose, or one of the service's own.
        """
        check_public(converted(purpose, Purpose, "purpose"))
        return self.keys.export(purpose)

    def revoke(self, token: str, *, client_id: str | None = None) -> Claims:
        """Refuse this one token from now on; again is a no-op. Only a token that we signed gets a row. One
        that was rotated, or is a successor, takes its whole chain along; so does one whose row was purged
        already, as long as a successor might live. With `client_id` only a token of that client.

        Raises:
            ScopeInsufficient: it is another client's.
            TokenMalformed, TokenKeyUnknown, TokenSignatureInvalid, StoreRequired, SystemUnavailable.
        """
        return revocation.revoke(self._core, token, client_id)

    def revoke_jti(self, jti: str) -> None:
        """The same by the token's id, if nothing else was kept; its rows stay as long as a subject's. It ends
        a chain that this token began without a `sid`. Every other chain has one: see revoke_session.

        Raises:
            RequestInvalid: no token has such an id. StoreRequired, SystemUnavailable.
        """
        jti = converted(jti, Jti, "jti")
        revocation.revoke_groups(self._core, names.by_session(jti), names.by_jti(jti), jti=jti)

    def revoke_subject(self, sub: str) -> None:
        """Refuse every token of this subject issued until now, in one row; later ones are good at once.
        Client credentials are not a subject's: see revoke_client.

        Raises:
            RequestInvalid: no token has such a subject. StoreRequired, SystemUnavailable.
        """
        revocation.revoke_groups(self._core, names.by_subject(converted(sub, Subject, "sub")), sub=sub)

    def revoke_session(self, sid: str) -> None:
        """The same for every token of a session (`sid`)."""
        revocation.revoke_groups(self._core, names.by_session(converted(sid, Name, "sid")), sid=sid)

    def revoke_client(self, client_id: str) -> None:
        """The same for every credential of a client, and every token it issued."""
        group = names.by_client(converted(client_id, Name, "client_id"))
        revocation.revoke_groups(self._core, group, client_id=client_id)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Changes that this thread makes within it are made at its end, all at once and durable in one write,
        if the list can do so: each of many costs a fraction of that write. Acknowledge none before.

        Raises:
            StoreRequired. SystemUnavailable: at the end; none was made.
        """
        changes = self._core.required_store().together()
        if changes is None:
            yield
            return
        with self._hooks.ending_together(), changes, self._hooks.durable_together():
            yield

    def purge(self) -> int:
        """Delete the rows of tokens that have expired, in small steps; return how many.

        Raises:
            StoreRequired. SystemUnavailable: what was deleted until then remains deleted, rightly.
        """
        return revocation.purge(self._core)

    def purge_steps(self) -> Iterator[int]:
        """The same, one step of up to 1000 rows for each number; pause between them for other changes.

        Raises:
            As purge.
        """
        return revocation.purge_steps(self._core)
