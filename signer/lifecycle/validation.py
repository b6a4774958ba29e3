"""Checking tokens, which changes nothing."""

from collections.abc import Iterable
from typing import Self

from msgspec.structs import replace

from ..errors import SignerError, TokenError
from ..events import BUG, OK, Hooks, Operation
from ..tokens.claims import DEFAULT_PURPOSE, Claims, Unverified
from ..tokens.keys import KeyRing
from ..tokens.values import Purpose, converted
from .core import Core


class Validator:
    """What a Signer does without changing anything. Methods may be called from any thread."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._hooks = core.hooks
        self._is_watched = bool(core.hooks)
        self._check = core.admission.check

    def as_of(self, moment: float) -> Self:
        """The same for calls that may not wait for a list on another machine: a copy answers that was equal
        to the list at `moment` (stores.copies.refresher.now) or later, and StoreError is raised if there is
        none.
        """
        # As copy() would, in a fifth of its time: the service makes one for each call that had to catch up.
        pinned = object.__new__(type(self))
        core = replace(self._core, admission=self._core.admission.as_of(moment))
        pinned.__dict__.update(self.__dict__, _core=core, _check=core.admission.check)
        return pinned

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
            scope: words that its scope must have, separated by spaces.
            aud: who is asking; must be the token's own audience.
            bind: the state that a bound token was bound to; a token that is not bound fails with one.
            max_age: refuse a token older than this many seconds; one that was rotated is as old as the first
                of its chain.

        Raises:
            TokenError: a subclass that says why the token is refused.
            SystemUnavailable: list or clock cannot answer. Refuse then, too.
            StoreRequired: a token with `max_uses`, and no list to count them.
            RequestInvalid: an argument is not allowed, such as a `max_age` of NaN.
        """
        if purpose is None:
            named(purpose)  # raises; any other wrong purpose is refused by the codec
        if not self._is_watched:  # the `with` would take a twentieth of the whole
            return self._check(None, token, purpose, scope, aud, bind, max_age)
        with self._hooks.operation("validate") as operation:
            return self._check(operation, token, purpose, scope, aud, bind, max_age)

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
        with self._hooks.operation("validate") as operation:
            return self._check(operation, token, None, scope, aud, bind, max_age)

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
        or why it is refused. Where hooks only count, that takes two thirds of the time of single calls.

        Raises:
            SystemUnavailable, StoreRequired, RequestInvalid: as validate; there is no answer for any then.
        """
        found: list[Claims | TokenError] = []
        ends: list[tuple[Claims | None, str]] = []
        operation = Operation(self._hooks, "validate")
        try:
            for token in tokens:
                operation.claims, outcome = None, BUG
                try:
                    found.append(self._check(operation, token, purpose, scope, aud, bind))
                    outcome = OK
                except SignerError as error:
                    outcome = error.code
                    if not isinstance(error, TokenError):
                        raise
                    # Its traceback would keep this frame alive, and so all of these tokens.
                    found.append(error.with_traceback(None))
                finally:
                    ends.append((operation.claims, outcome))
        finally:
            self._hooks.end_each("validate", ends)
        return found

    def check(self, within: Operation, token: str, purpose: str | None) -> Claims:
        """validate, or introspect where `purpose` is None, as a part of a call that has more rules: hooks are
        notified of that call alone.

        Raises:
            As validate.
        """
        return self._check(within, token, purpose)

    def inspect(self, token: str) -> Unverified:
        """What a text says of itself. **Nothing is verified**: never decide anything by this.

        Raises:
            TokenMalformed.
        """
        return Unverified(self._core.codec.read(token))

    def ping(self) -> None:
        """Return only if the clock can be right and the list can be read and written, and is intact. May
        take a while: it reads the whole list.

        Raises:
            SystemUnavailable: it is not so.
        """
        now, store = self._core.admission.now(), self._core.store
        if store is not None:
            store.ping()
            self._core.admission.check_horizon(now, store.lookup("", 0, ()).horizon)

    @property
    def hooks(self) -> Hooks:
        """What is notified of every call."""
        return self._hooks

    @property
    def keys(self) -> KeyRing:
        """The keys that it signs and verifies with."""
        return self._core.codec.keys


def named(purpose: str) -> str:
    """The purpose, which must not be None: that would mean any.

    Raises:
        RequestInvalid.
    """
    found: str = converted(purpose, Purpose, "purpose")
    return found
