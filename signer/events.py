"""What happened, as one frozen record, and the hooks that are told of it. The audit trail is one, and metrics
are one that only counts.

A change is told twice: before it is made, so that a hook can refuse it, and when it has come to an end.
Everything else is told once, at its end.
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

#: The outcome of what went well; every other one is the `code` of an error.
OK: Final = "ok"
#: What an error that is none of ours counts as: a bug.
BUG: Final = "internal_error"
#: What changes the list, or gives out authority.
CHANGES: Final = frozenset({"issue", "consume", "rotate", "verify_code", "revoke", "purge", "theft"})
#: All names there are. `authenticate` is a caller that showed a credential, or lacked one; `theft` is a
#: session that ends because a token of it was traded twice.
NAMES: Final = CHANGES | {"validate", "authenticate"}


class Event(Struct, frozen=True, kw_only=True):
    """One of NAMES, its outcome, and what it was about, as far as that is known."""

    name: str
    outcome: str = OK
    jti: str | None = None
    sub: str | None = None
    purpose: str | None = None
    client_id: str | None = None
    sid: str | None = None
    kid: str | None = None
    #: Why a credential was refused; its caller is not told.
    reason: str | None = None
    #: How many rows a purge deleted.
    rows: int | None = None

    @property
    def is_change(self) -> bool:
        """Whether hooks were told before it was made, if it was made."""
        return self.name in CHANGES


class Hook(Protocol):
    """Who is told. Called in the thread of whoever called the Signer, and must be quick."""

    def before(self, event: Event) -> None:
        """A change is about to be made; `outcome` is what it will be unless told otherwise.

        Raises:
            SystemUnavailable: it must not be made now. Nothing has happened then, but that hooks before this
                one were told.
        """
        ...

    def after(self, event: Event) -> None:
        """It has come to this. What it raises is logged, and changes nothing: what is done is done."""
        ...


@runtime_checkable
class CountingHook(Protocol):
    """Who needs no more of calls than this, once, at their end, and has nothing of a Hook. To make a whole
    Event of a validation takes a tenth of its time."""

    def count(self, name: str, outcome: str, kid: str | None, rows: int, times: int) -> None:
        """So many calls ended so; see Event. What it raises is logged, and changes nothing."""
        ...


@runtime_checkable
class GroupingHook(Protocol):
    """A hook that keeps what it is told, and can keep much at once."""

    def together(self) -> AbstractContextManager[None]:
        """What this thread tells it within is durable at its end, and may not be before.

        Raises:
            SystemUnavailable: at the end; it is not.
        """
        ...


class Origin(Struct, kw_only=True):
    """Where a call comes from. Whoever serves calls sets it, for hooks to read; a Signer never does."""

    request_id: str | None = None
    #: Who asks: a client's id, or a name that no client can have.
    actor: str | None = None
    #: The caller's network address.
    address: str | None = None


#: Of the call under way, in this thread or task.
origin: Final[ContextVar[Origin]] = ContextVar("signer.origin")


class _Later(threading.local):
    """Of each thread: the ends that it will tell later, and the context of each."""

    events: list[tuple[Context, Event]] | None = None


class Hooks:
    """Several hooks, told in order; those that only count are told last."""

    def __init__(self, hooks: Iterable[Hook | CountingHook] = ()) -> None:
        hooks = tuple(hooks)
        self._hooks = tuple(cast(Hook, hook) for hook in hooks if not _only_counts(hook))
        self._counting = tuple(hook for hook in hooks if _only_counts(hook))
        self._is_heard = bool(hooks)
        self._later = _Later()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self._is_heard

    def operation(self, name: str) -> "Operation":
        """One call, to be used in a `with` statement."""
        return Operation(self, name) if self._is_heard else _UNHEARD

    def begin(self, operation: "Operation") -> None:
        """Tell them that a change is about to be made.

        Raises:
            SystemUnavailable: one of them refuses it.
        """
        if self._hooks:
            event = operation.event(OK)
            for hook in self._hooks:
                hook.before(event)

    def end(self, operation: "Operation", outcome: str, reason: str | None = None) -> None:
        """Tell them how a call ended: now, or at the end of `ending_together`."""
        if self._later.events is not None:
            self._later.events.append((copy_context(), operation.event(outcome, reason)))
        elif self._hooks:
            self._tell(operation.event(outcome, reason))
        else:
            claims, notes = operation.claims, operation.notes
            kid = claims.kid if claims is not None else None
            self._count(operation.name, outcome, kid, notes.get("rows", 0) if notes else 0, 1)

    def end_each(self, name: str, ends: Sequence[tuple[Claims | None, str]]) -> None:
        """The same for calls that change nothing: what each was about, and its outcome."""
        if self._hooks:
            for claims, outcome in ends:
                self.end(Operation(self, name, claims), outcome)
        elif self._counting:
            kinds = Counter((None if claims is None else claims.kid, outcome) for claims, outcome in ends)
            for (kid, outcome), times in kinds.items():
                self._count(name, outcome, kid, 0, times)

    def _tell(self, event: Event) -> None:
        for hook in self._hooks:
            try:
                hook.after(event)
            except Exception:  # what is done is done, and the next hook is to hear of it
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
        """The calls that this thread makes within it end with it: all changes have failed where it does."""
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
                context.run(self._tell, replace(event, outcome=code) if is_undone else event)

    @contextmanager
    def durable_together(self) -> Iterator[None]:
        """What hooks keep of the changes that this thread begins within it is durable at its end. That is for
        hooks which have a `together` of their own, as AuditTrail has.

        Raises:
            SystemUnavailable: it is not; none of the changes must be made.
        """
        with ExitStack() as stack:
            for hook in self._hooks:
                if isinstance(hook, GroupingHook):
                    stack.enter_context(hook.together())
            yield


def _only_counts(hook: Hook | CountingHook) -> TypeGuard[CountingHook]:
    # One that may refuse a change must be asked, also if it happens to have a `count`.
    return isinstance(hook, CountingHook) and not hasattr(hook, "before") and not hasattr(hook, "after")


class Operation(Struct):
    """One call under way. At its end the hooks are told what it was about, and how it ended."""

    hooks: Hooks
    name: str
    claims: Claims | None = None
    #: What else is known of it, by the names of an Event's fields.
    notes: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # GeneratorExit: whoever purges had enough.
        if error is None or isinstance(error, GeneratorExit):
            self.hooks.end(self, OK)
        else:
            cause = error.__cause__
            reason = cause.code if isinstance(cause, TokenError) else None
            self.hooks.end(self, error.code if isinstance(error, SignerError) else BUG, reason)

    def about(self, claims: Claims) -> Claims:
        """Note the token it is about, and return its claims."""
        self.claims = claims
        return claims

    def note(self, **about: str | int) -> None:
        """Note more of what it is about; names as in Event."""
        self.notes = {**(self.notes or {}), **about}

    def begin(self) -> None:
        """Tell the hooks that the change is about to be made.

        Raises:
            SystemUnavailable: one of them refuses it.
        """
        self.hooks.begin(self)

    def event(self, outcome: str, reason: str | None = None) -> Event:
        """What is known of it now, and that it ended so."""
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


class _Unheard(Operation):
    """A call that nobody is told of."""

    def __exit__(self, *error: object) -> None:
        pass

    def about(self, claims: Claims) -> Claims:
        return claims

    def note(self, **about: str | int) -> None:
        pass

    def begin(self) -> None:
        pass


_UNHEARD: Final = _Unheard(Hooks(), "")
