"""The façade: a codec, a list and a clock put together."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from hmac import compare_digest
from os import urandom
from typing import Any

from msgspec.structs import replace

from .errors import (
    CodeWrong,
    RequestInvalid,
    ScopeInsufficient,
    SignerError,
    StoreRequired,
    TokenAudienceWrong,
    TokenError,
    TokenExpired,
    TokenNotRotatable,
    TokenRotated,
    TokenUsed,
)
from .events import BUG, OK, CountingHook, Hook, Hooks, Operation
from .lifecycle.admission import Admission
from .lifecycle.chains import may_have_kin, successor
from .lifecycle.codes import count_attempt
from .policy import (
    CODE_TTL,
    DEFAULT_GRACE,
    DEFAULT_LEEWAY,
    DEFAULT_MAX_TTL,
    DEFAULT_TTL,
    GROUP_MARGIN,
    PURGE_MARGIN,
    PURGE_PAUSE,
    PURGE_STEP,
)
from .stores import names
from .stores.contract import Store
from .tokens.claims import (
    CODE_PREFIX,
    DEFAULT_PURPOSE,
    Challenge,
    Claims,
    Issued,
    Unverified,
    Use,
    check_audience,
    check_proof,
    started,
)
from .tokens.codec import Codec
from .tokens.keys import Key, KeyRing, base64url
from .tokens.values import (
    Code,
    CodePurpose,
    CodeRequest,
    IssueRequest,
    Jti,
    Name,
    Purpose,
    Seconds,
    Subject,
    Ttl,
    check_data,
    check_public,
    converted,
    plain_request,
)


class Signer:
    """Issues, validates, revokes and consumes signed tokens.

    Args:
        keys: the key ring, or the one secret (at least 32 bytes; `python -m signer keygen`).
        store: the list of what was revoked or used. Without one, tokens are checked by signature and
            age alone, and everything that needs a list raises StoreRequired. Where subjects, sessions or
            clients are revoked, tokens must be issued with the list, too: it tells their generation.
        ttl: life of a token in seconds where none is asked for; `max_ttl` at the most.
        max_ttl: the longest life, in seconds. Lowering it also shortens tokens that are out already.
            Programs that share a list must agree on it: revoking a subject is remembered that long.
            Raise it again only when the longest token issued before it was lowered has expired.
        leeway: seconds a token may come from the future, for clocks that disagree.
        grace: seconds in which a token that was rotated is still good, and rotating it again gives the same
            successor.
        clock: seconds since 1970, UTC.
        hooks: who is told of every call; see events.Hook. One that refuses a change is heeded.

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
        self._hooks = Hooks(hooks)
        self._is_watched = bool(self._hooks)
        self._codec = Codec(keys if isinstance(keys, KeyRing) else KeyRing(keys))
        self._store = store
        self._max_ttl: int = converted(max_ttl, Ttl, "max_ttl")
        self._ttl: int = min(converted(ttl, Ttl, "ttl"), self._max_ttl)
        self._leeway: int = converted(leeway, Seconds, "leeway")
        self._admission = Admission(
            self._codec,
            store,
            max_ttl=self._max_ttl,
            leeway=self._leeway,
            grace=converted(grace, Seconds, "grace"),
            clock=clock,
        )
        #: What authorises the changes; None where the caller needs no leave.
        self._credential: Claims | None = None

    def on_behalf_of(self, credential: Claims) -> "Signer":
        """A Signer for one client, whose credential was validated and says `credential`.

        Each change and each new token is refused with CredentialInvalid unless the credential is good when
        the change is made, by the list itself and not by a copy of it: since the client was let in, its body
        was awaited, and other changes were. A token that is granted at the very moment at which its client
        is revoked is revoked with it.
        """
        # As copy() would, in a fifth of its time: the service makes one for each call.
        acting = object.__new__(type(self))
        acting.__dict__.update(self.__dict__, _credential=credential)
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
        """A new token; see requests.IssueRequest for the arguments.

        Raises:
            RequestInvalid: naming the argument that cannot be.
            StoreRequired: `max_uses` without a list.
            SystemUnavailable: list or clock cannot answer.
        """
        request = None
        if aud is None and sid is None and max_uses is None and bind is None:
            request = plain_request(purpose, sub, ttl, scope, data)
        if request is None:
            asked = {
                "purpose": purpose,
                "sub": sub,
                "ttl": ttl,
                "scope": scope,
                "aud": aud,
                "sid": sid,
                "data": data,
                "max_uses": max_uses,
                "bind": bind,
            }
            request = converted(asked, IssueRequest)
        if self._is_watched:
            return self.grant(request, client_id).token
        return self._made(request, client_id)[0]

    def grant(self, request: IssueRequest, client_id: str | None = None) -> Issued:
        """The same for a request that was decoded, and so checked, already; with the new token's claims.

        Raises:
            As issue.
        """
        with self._hooks.operation("issue") as told:
            token, claims = self._made(request, client_id)
            told.about(claims)
            told.begin()
            return Issued(token, claims)

    def validate(
        self,
        token: str,
        *,
        purpose: str = DEFAULT_PURPOSE,
        scope: str | None = None,
        aud: str | None = None,
        bind: str | None = None,
        max_age: int | None = None,
    ) -> Claims:
        """The claims of a token that is good now for this purpose.

        Args:
            purpose: what the token must have been issued for.
            scope: words its scope must have, space-separated.
            aud: who is asking; must be the token's own audience.
            bind: the state a bound token was bound to; a token that is not bound fails with one.
            max_age: refuse a token older than this many seconds; one that was rotated is as old as the first
                of its chain.

        Raises:
            TokenError: a subclass that says why the token is refused.
            SystemUnavailable: list or clock cannot answer. Refuse then, too.
            StoreRequired: a token with `max_uses`, and no list to count them.
            RequestInvalid: an argument of the caller's cannot be, such as a `max_age` of NaN.
        """
        if purpose is None:
            _named(purpose)  # refuses it; any other purpose that none can be the codec refuses
        if not self._is_watched:  # the `with` would take a twentieth of the whole
            return self.check(None, token, purpose, scope, aud, bind, max_age)
        with self._hooks.operation("validate") as told:
            return self.check(told, token, purpose, scope, aud, bind, max_age)

    def introspect(
        self,
        token: str,
        *,
        scope: str | None = None,
        aud: str | None = None,
        bind: str | None = None,
        max_age: int | None = None,
    ) -> Claims:
        """The same for a caller that cannot know the purpose, as in RFC 7662: look at `claims.purpose`
        (and, where `aud` is None, at `claims.aud`) before acting on the answer.

        Raises:
            TokenPurposeWrong: it is a challenge, which proves nothing before its code is verified.
            As validate.
        """
        with self._hooks.operation("validate") as told:
            return self.check(told, token, None, scope, aud, bind, max_age)

    def validate_each(
        self,
        tokens: Iterable[str],
        *,
        purpose: str | None = None,
        scope: str | None = None,
        aud: str | None = None,
        bind: str | None = None,
    ) -> list[Claims | TokenError]:
        """validate, or introspect where `purpose` is None, for each of many: in the place of each its claims,
        or why it is refused. Where hooks only count, that takes two thirds of as many calls.

        Raises:
            SystemUnavailable, StoreRequired, RequestInvalid: as validate; there is no answer for any then.
        """
        found: list[Claims | TokenError] = []
        ends: list[tuple[Claims | None, str]] = []
        told = Operation(self._hooks, "validate")
        try:
            for token in tokens:
                told.claims, outcome = None, BUG
                try:
                    found.append(self.check(told, token, purpose, scope, aud, bind))
                    outcome = OK
                except SignerError as error:
                    outcome = error.code
                    if not isinstance(error, TokenError):
                        raise
                    # Its traceback would hold this frame, and so all of these.
                    found.append(error.with_traceback(None))
                finally:
                    ends.append((told.claims, outcome))
        finally:
            self._hooks.end_each("validate", ends)
        return found

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
            TokenUsed: somebody else had the last use.
            As validate, and StoreRequired.
        """
        with self._hooks.operation("consume") as told:
            store = self._required_store()
            claims = self.check(told, token, _named(purpose), scope, aud, bind, max_age, is_change=True)
            limit = claims.max_uses or 1
            self._begin(told)
            uses = store.use(names.row(claims), claims.exp, limit)
            if uses is None:
                raise TokenUsed
            return Use(claims, limit - uses)

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
        """Trade a token for its successor, which says the same and lives as long as the token did. Repeated
        within the grace window, as by a retry or another tab, it gives the same successor; after it, it is
        taken for theft, and ends the session: all tokens of this purpose and client with this `sid`, which is
        the token's own, or the id of the first token of the chain (RFC 9700, section 4.14.2).

        Args:
            purpose, aud, bind: as for validate. The successor is bound to the same state.
            session_ttl: seconds from `auth_time`, the issue of the first token, at which the chain ends;
                `max_ttl` at the most. Give the same number every time: near the end, another one makes
                another successor.
            client_id: trade only a token that this client issued.

        Raises:
            TokenRotated: the token was traded before the grace window. Its chain is revoked now.
            TokenExpired: also where the chain has reached its end.
            TokenNotRotatable: it has `max_uses`.
            RequestInvalid: the successor would be too long. The token is as it was.
            ScopeInsufficient: it is another client's.
            As validate, and StoreRequired.
        """
        with self._hooks.operation("rotate") as told:
            store = self._required_store()
            claims = told.about(self._codec.decode(token, _named(purpose)))
            _check_owner(claims, client_id)
            check_proof(claims)
            if claims.max_uses is not None:
                raise TokenNotRotatable
            check_audience(claims, aud)
            longest = converted(session_ttl, Ttl | None, "session_ttl") or self._max_ttl
            end = started(claims) + min(longest, self._max_ttl)
            claims = replace(claims, gen=self._admit_or_end(claims, bind))
            now = int(self._admission.now())
            if now >= end:
                raise TokenExpired
            # Made once for nothing: one that would be too long must be known before the token is traded.
            self._sealed(successor(claims, now, end), now, bind)
            self._begin(told)
            rotated_at = store.rotate(names.row(claims), claims.exp, now)
            if rotated_at is None:
                raise TokenUsed
            if self._admission.is_past_grace(rotated_at, self._admission.now()):
                self._admit_or_end(claims, bind)  # another trade came first while this one slept
            return Issued(*self._sealed(successor(claims, rotated_at, end), rotated_at, bind))

    def issue_code(
        self,
        *,
        sub: str,
        purpose: str = DEFAULT_PURPOSE,
        ttl: int | None = None,
        data: Any = None,
    ) -> Challenge:
        """A code of six digits to send to its subject, and the token that must come back with it. The code
        stands neither in the token nor in the list; see requests.CodeRequest for the arguments.

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
        self._required_store()
        asked = IssueRequest(
            purpose=CODE_PREFIX + request.purpose,
            sub=request.sub,
            ttl=request.ttl or min(CODE_TTL, self._max_ttl),
            data=request.data,
        )
        token, claims = self.grant(asked, client_id)
        return Challenge(token, self._code(claims), replace(claims, purpose=request.purpose))

    def verify_code(self, token: str, code: str, *, purpose: str = DEFAULT_PURPOSE) -> Claims:
        """The claims of a challenge whose code this is, with the code's own purpose; that uses it up.

        A challenge takes 5 guesses, a subject 20 in any 60 minutes, whatever the number of challenges; every
        guess counts, atomically across processes, before it is looked at, also one that the list fails at.

        Raises:
            CodeWrong: with `attempts_left`.
            AttemptsExceeded: no guess is left, for the challenge or its subject. TokenUsed: it was answered.
            As validate, and StoreRequired.
        """
        with self._hooks.operation("verify_code") as told:
            store = self._required_store()
            expected = CODE_PREFIX + converted(purpose, CodePurpose, "purpose")
            claims = told.about(self._codec.decode(token, expected))
            guess = converted(code, Code, "code")
            self._admission.admit(claims, is_change=True)
            self._begin(told)
            attempts_left = count_attempt(store, claims, self._admission.now())
            if not compare_digest(self._code(claims), guess):
                raise CodeWrong(attempts_left)
            if store.use(names.row(claims), claims.exp, 1) is None:
                raise TokenUsed
            return replace(claims, purpose=purpose)

    def purpose_key(self, purpose: str) -> str:
        """The key of one purpose as text, for a Verifier elsewhere. Whoever has it can check, and also make,
        tokens of this purpose, and none of any other.

        Raises:
            RequestInvalid: no purpose, or one of the service's own.
        """
        check_public(converted(purpose, Purpose, "purpose"))
        key = self._codec.keys.current
        if not isinstance(key, Key):
            raise RequestInvalid("purpose: this Signer has no more than the key of one", "purpose")
        return key.export(purpose)

    def revoke(self, token: str, *, client_id: str | None = None) -> Claims:
        """Refuse this one token from now on; again is a no-op. Only a token that we signed gets a row. One
        that was rotated, or is a successor, takes its whole chain along; so does one whose row the list has
        purged already, as long as a successor might live. With `client_id` only a token of that client.

        Raises:
            ScopeInsufficient: it is another client's.
            TokenMalformed, TokenKeyUnknown, TokenSignatureInvalid, StoreRequired, SystemUnavailable.
        """
        with self._hooks.operation("revoke") as told:
            store = self._required_store()
            claims = told.about(self._codec.decode(token))
            _check_owner(claims, client_id)
            self._begin(told)
            entry = store.revoke(names.row(claims), claims.exp, names.chain_groups(claims))
            # Once is enough: a second time would end what began since under the same `sid`.
            is_ended = claims.gen < entry.generation or started(claims) + self._max_ttl < entry.horizon
            if may_have_kin(claims, entry) and not is_ended:
                self._advance(names.by_chain(claims))
            return claims

    def revoke_jti(self, jti: str) -> None:
        """The same by the token's id, for those who kept no more; its rows stay as long as a subject's. It
        ends a chain that this token began without a `sid`. Every other chain has one: see revoke_session.

        Raises:
            RequestInvalid: no token has such an id. StoreRequired, SystemUnavailable.
        """
        converted(jti, Jti, "jti")
        self._revoke_groups(names.by_session(jti), names.by_jti(jti), jti=jti)

    def revoke_subject(self, sub: str) -> None:
        """Refuse every token of this subject issued until now, in one row; later ones are good at once.
        Client credentials are not a subject's: see revoke_client.

        Raises:
            RequestInvalid: no token has such a subject. StoreRequired, SystemUnavailable.
        """
        self._revoke_groups(names.by_subject(converted(sub, Subject, "sub")), sub=sub)

    def revoke_session(self, sid: str) -> None:
        """The same for every token of a session (`sid`)."""
        self._revoke_groups(names.by_session(converted(sid, Name, "sid")), sid=sid)

    def revoke_client(self, client_id: str) -> None:
        """The same for every credential of a client, and every token it issued."""
        self._revoke_groups(names.by_client(converted(client_id, Name, "client_id")), client_id=client_id)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What this thread changes within it is made at its end, at once, and durable in one write where the
        list can do so: of many changes each costs a part of that. Tell nobody of any before.

        Raises:
            StoreRequired. SystemUnavailable: at the end; none was made.
        """
        changes = self._required_store().together()
        if changes is None:
            yield
            return
        with self._hooks.ending_together(), changes, self._hooks.durable_together():
            yield

    def purge(self) -> int:
        """Delete the rows of tokens that have expired, in small steps; return how many.

        Raises:
            StoreRequired. SystemUnavailable: what was deleted until then stays deleted, and rightly.
        """
        total = 0
        for step in self.purge_steps():
            total += step
            time.sleep(PURGE_PAUSE)
        return total

    def purge_steps(self) -> Iterator[int]:
        """The same, one step of up to 1000 rows for each number; pause between them, so that others get to
        write.

        Raises:
            As purge.
        """
        with self._hooks.operation("purge") as told:
            store = self._required_store()
            rows, step = 0, PURGE_STEP
            self._begin(told)
            while step == PURGE_STEP:
                step = store.purge(int(self._admission.now()) - self._leeway - PURGE_MARGIN)
                rows += step
                told.note(rows=rows)
                yield step

    def ping(self) -> None:
        """Return only if the clock can be right and the list can be read and written, and is intact. May
        take a while: it reads the whole list.

        Raises:
            SystemUnavailable: it is not so.
        """
        now = self._admission.now()
        if self._store is None:
            return
        self._store.ping()
        self._admission.check_horizon(now, self._store.lookup("", 0, ()).horizon)

    def inspect(self, token: str) -> Unverified:
        """What a text says of itself. **Nothing is verified**: never decide anything by this.

        Raises:
            TokenMalformed.
        """
        return Unverified(self._codec.read(token))

    @property
    def hooks(self) -> Hooks:
        """Who is told of every call."""
        return self._hooks

    @property
    def keys(self) -> KeyRing:
        """The keys it signs and verifies with."""
        return self._codec.keys

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
        """validate, or introspect where `purpose` is None, as a part of a call that has more rules: the hooks
        are told of that call alone. One that changes the list asks the list itself.

        Raises:
            As validate.
        """
        claims = self._codec.decode(token, purpose)
        if within is not None:
            within.about(claims)
        if claims.purpose.startswith(CODE_PREFIX):
            check_proof(claims)
        if claims.aud != aud and (purpose is not None or aud is not None):
            raise TokenAudienceWrong
        self._admission.admit(claims, scope, bind, max_age, is_change)
        return claims

    def _begin(self, told: Operation) -> None:
        # Before hooks are told: an audit trail names no change that was not to be made.
        if self._credential is not None:
            self._admission.confirm(self._credential)
        told.begin()

    def _admit_or_end(self, claims: Claims, bind: str | None) -> int:
        # Two hold a token that is traded again: one of them stole it.
        try:
            return self._admission.admit(claims, bind=bind, is_change=True)
        except TokenRotated:
            self._end_chain(claims)
            raise
        except TokenExpired:
            # It tells of a theft as well, until its row is purged.
            if not self._admission.is_rotated(claims):
                raise
            self._end_chain(claims)
            raise TokenRotated from None

    def _end_chain(self, claims: Claims) -> None:
        with self._hooks.operation("theft") as told:
            told.about(claims)
            self._begin(told)
            self._advance(names.by_chain(claims))

    def _revoke_groups(self, *groups: str, **about: str) -> None:
        with self._hooks.operation("revoke") as told:
            told.note(**about)
            self._required_store()
            self._begin(told)
            for group in groups:
                self._advance(group)

    def _made(self, request: IssueRequest, client_id: str | None) -> tuple[str, Claims]:
        if request.data is not None:
            check_data(request.data)
        if request.max_uses is not None:
            self._required_store()
        iat = int(self._admission.now())
        claims = Claims(
            jti=base64url(urandom(16)),
            exp=iat + (self._ttl if request.ttl is None else self._life(request.ttl)),
            purpose=request.purpose,
            sub=request.sub,
            scope=request.scope,
            aud=request.aud,
            client_id=None if client_id is None else _client(client_id),
            sid=request.sid,
            data=request.data,
            max_uses=request.max_uses,
        )
        return self._sealed(self._admission.in_generation(claims, self._credential), iat, request.bind)

    def _sealed(self, claims: Claims, iat: int, bind: str | None) -> tuple[str, Claims]:
        if bind is not None:
            claims = replace(claims, bnd=self._admission.binding(claims, bind))
        return self._codec.encode(claims, iat), claims

    def _code(self, claims: Claims) -> str:
        return self._codec.key(claims).code(claims.jti, claims.purpose)

    def _advance(self, group: str) -> None:
        now_ms = int(self._admission.now() * 1000)
        self._required_store().advance(group, now_ms, self._max_ttl + GROUP_MARGIN)

    def _life(self, ttl: int) -> int:
        if ttl > self._max_ttl:
            raise RequestInvalid(f"ttl: at most {self._max_ttl} seconds (TOKEN_MAX_TTL_MINUTES)", "ttl")
        return ttl

    def _required_store(self) -> Store:
        if self._store is None:
            raise StoreRequired
        return self._store


def _check_owner(claims: Claims, client_id: str | None) -> None:
    if client_id is not None and claims.client_id != client_id:
        raise ScopeInsufficient("This is another client's token.")


def _client(client_id: str) -> str:
    # Anything may have been given for one, also what no cache can keep.
    known = _known_client if type(client_id) is str else _known_client.__wrapped__
    return known(client_id)


@lru_cache
def _known_client(client_id: str) -> str:
    name: str = converted(client_id, Name, "client_id")
    return name


def _named(purpose: str) -> str:
    # None would mean any.
    named: str = converted(purpose, Purpose, "purpose")
    return named
