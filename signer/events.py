"""Events, and the hooks that are notified of them. The audit trail is such a hook, and the metrics are one
that only counts.

Hooks are notified of a change twice: before it is made, so that they can refuse it, and when it has ended.
They are notified of everything else once, at its end.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeGuard, cast, runtime_checkable

from msgspec import Struct
from msgspec.structs import replace

from .errors import SignerError, TokenError
from .tokens.claims import Claims

logger = logging.getLogger(__name__)

#: The outcome of a success. Any other outcome is the `code` of an error.
OK: Final = "ok"
#: The outcome of a call that raised an error which is not ours: a bug.
BUG: Final = "internal_error"
#: The events that change the revocation list or grant something.
CHANGES: Final = frozenset({"issue", "consume", "rotate", "verify_code", "revoke", "purge", "theft"})
#: The names of all events. `authenticate`: a caller sent a credential, or should have. `theft`: a session
#: ends because one of its tokens was traded twice.
NAMES: Final = CHANGES | {"validate", "authenticate"}


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened.

    Attributes:
        name: one of NAMES.
        outcome: OK, or the `code` of an error.
        jti, sub, purpose, client_id, sid, kid: of the token that the event is about, as far as known.
        reason: why a credential was refused. Its caller does not learn this.
        rows: how many rows a purge deleted.
    """

    name: str
    outcome: str = OK
    jti: str | None = None
    sub: str | None = None
    purpose: str | None = None
    client_id: str | None = None
    sid: str | None = None
    kid: str | None = None
    reason: str | None = None
    rows: int | None = None

    @property
    def is_change(self) -> bool:
        """Whether hooks are notified before it happens, too."""
        return self.name in CHANGES


class Hook(Protocol):
    """Is notified of events, in the thread that calls the Signer. It must be quick."""

    def before(self, event: Event) -> None:
        """A change is about to be made. Its `outcome` is OK, and will be so unless `after` says otherwise.

        Raises:
            SystemUnavailable: the change must not be made now. It is not made then, but earlier hooks may
                have been notified of it.
        """
        ...

    def after(self, event: Event) -> None:
        """The event has ended, with this outcome. Errors raised here are logged and ignored, because it can
        no longer be undone."""
        ...


@runtime_checkable
class CountingHook(Protocol):
    """Is notified of numbers only, at the end of a call, and has none of the methods of a Hook. To make an
    Event would take a tenth of the time of a validation."""

    def count(self, name: str, outcome: str, kid: str | None, rows: int, times: int) -> None:
        """So many calls ended in this way; see Event. Errors raised here are logged and ignored."""
        ...


@runtime_checkable
class GroupingHook(Protocol):
    """A Hook that stores events, and can store many at once."""

    def together(self) -> AbstractContextManager[None]:
        """The events of this thread within the `with` block are durable at its end, and maybe not before.

        Raises:
            SystemUnavailable: at the end: they are not durable.
        """
        ...


class Origin(Struct, kw_only=True):
    """Where a call comes from. A program that serves calls sets it for hooks to read; a Signer never does.

    Attributes:
        request_id: the id of the request.
        actor: the caller: a client's id, or a name that no client can have.
        address: the caller's network address.
    """

    request_id: str | None = None
    actor: str | None = None
    address: str | None = None


#: The origin of the current call, in this thread or task.
origin: Final[ContextVar[Origin]] = ContextVar("signer.origin")


class _Later(threading.local):
    """For each thread: the events that hooks will be notified of later, and the context of each."""

    events: list[tuple[Context, Event]] | None = None


class Hooks:
    """Several hooks. They are notified in order, and those that only count come last."""

    def __init__(self, hooks: Iterable[Hook | CountingHook] = ()) -> None:
        hooks = tuple(hooks)
        self._hooks = tuple(cast(Hook, hook) for hook in hooks if not _only_counts(hook))
        self._counting = tuple(hook for hook in hooks if _only_counts(hook))
        self._has_any = bool(hooks)
        self._later = _Later()

    def __bool__(self) -> bool:
        """Whether there are any hooks."""
        return self._has_any

    def operation(self, name: str) -> "Operation":
        """One call, for a `with` statement."""
        return Operation(self, name) if self._has_any else _UNNOTICED

    def begin(self, operation: "Operation") -> None:
        """Notify the hooks that a change is about to be made.

        Raises:
            SystemUnavailable: a hook refuses it.
        """
        if self._hooks:
            event = operation.event(OK)
            for hook in self._hooks:
                hook.before(event)

    def end(self, operation: "Operation", outcome: str, reason: str | None = None) -> None:
        """Notify the hooks how a call ended: now, or at the end of `ending_together`."""
        if self._later.events is not None:
            self._later.events.append((copy_context(), operation.event(outcome, reason)))
        elif self._hooks:
            self._notify(operation.event(outcome, reason))
        else:
            claims, notes = operation.claims, operation.notes
            kid = claims.kid if claims is not None else None
            self._count(operation.name, outcome, kid, notes.get("rows", 0) if notes else 0, 1)

    def end_each(self, name: str, ends: Sequence[tuple[Claims | None, str]]) -> None:
        """The same for many calls that change nothing: the claims of each token, and its outcome."""
        if self._hooks:
            for claims, outcome in ends:
                self.end(Operation(self, name, claims), outcome)
        elif self._counting:
            kinds = Counter((None if claims is None else claims.kid, outcome) for claims, outcome in ends)
            for (kid, outcome), times in kinds.items():
                self._count(name, outcome, kid, 0, times)

    def _notify(self, event: Event) -> None:
        for hook in self._hooks:
            try:
                hook.after(event)
            except Exception:  # the event has happened, and the next hook must be notified
                logger.exception("A hook failed")
        self._count(event.name, event.outcome, event.kid, event.rows or 0, 1)

    def _count(self, name: str, outcome: str, kid: str | None, rows: int, times: int) -> None:
        for hook in self._counting:
            try:
                hook.count(name, outcome, kid, rows, times)
            except Exception:
                logger.exception("A hook failed")

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """Calls that this thread makes within the `with` block end together with it: if the block raises, all
        of their changes have failed."""
        events: list[tuple[Context, Event]] = []
        self._later.events = events
        code = OK
        try:
            yield
        except BaseException as error:
            code = error.code if isinstance(error, SignerError) else BUG
            raise
        finally:
            self._later.events = None
            for context, event in events:
                is_undone = event.is_change and event.outcome == OK
                context.run(self._notify, replace(event, outcome=code) if is_undone else event)

    @contextmanager
    def durable_together(self) -> Iterator[None]:
        """What hooks store about the changes that this thread begins within the `with` block is durable at
        its end. This uses the method `together` of hooks that have it, such as AuditTrail.

        Raises:
            SystemUnavailable: at the end: it is not durable, and none of the changes must be made.
        """
        with ExitStack() as stack:
            for hook in self._hooks:
                if isinstance(hook, GroupingHook):
                    stack.enter_context(hook.together())
            yield


def _only_counts(hook: Hook | CountingHook) -> TypeGuard[CountingHook]:
    # A hook that can refuse a change must be asked, even if it happens to have a method `count`.
    return isinstance(hook, CountingHook) and not hasattr(hook, "before") and not hasattr(hook, "after")


class Operation(Struct):
    """A call that is under way. At its end, the hooks are notified of its subject and its outcome."""

    hooks: Hooks
    name: str
    claims: Claims | None = None
    #: What else is known about the call: fields of Event, by name.
    notes: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # GeneratorExit: the caller stops a purge before its end.
        if error is None or isinstance(error, GeneratorExit):
            self.hooks.end(self, OK)
        else:
            cause = error.__cause__
            reason = cause.code if isinstance(cause, TokenError) else None
            self.hooks.end(self, error.code if isinstance(error, SignerError) else BUG, reason)

    def about(self, claims: Claims) -> Claims:
        """Note the token that the call is about, and return its claims."""
        self.claims = claims
        return claims

    def note(self, **about: str | int) -> None:
        """Note other fields of the event, by name."""
        self.notes = {**(self.notes or {}), **about}

    def begin(self) -> None:
        """Notify the hooks that the change is about to be made.

        Raises:
            SystemUnavailable: a hook refuses it.
        """
        self.hooks.begin(self)

    def event(self, outcome: str, reason: str | None = None) -> Event:
        """What is known about the call now, with this outcome."""
        claims = self.claims
        if claims is None:
            event = Event(name=self.name, outcome=outcome, reason=reason)
        else:
            event = Event(
                name=self.name,
                outcome=outcome,
                jti=claims.jti,
                sub=claims.sub,
                purpose=claims.purpose,
                client_id=claims.client_id,
                sid=claims.sid,
                kid=claims.kid,
                reason=reason,
            )
        return replace(event, **self.notes) if self.notes else event


class _Unnoticed(Operation):
    """A call that no hook is notified of."""

    def __exit__(self, *error: object) -> None:
        pass

    def about(self, claims: Claims) -> Claims:
        return claims

    def note(self, **about: str | int) -> None:
        pass

    def begin(self) -> None:
        pass


_UNNOTICED: Final = _Unnoticed(Hooks(), "")
