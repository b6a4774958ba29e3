"""What every revocation list must do. The docstrings are the contract; tests/stores/test_contract.py checks
each engine against it.

The revocation list ("the list") holds the exceptions: tokens that were revoked, used or rotated before they
expired. In code it is a `Store`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from ..policy import PURGE_STEP
from ..tokens.claims import Claims


class Entry(NamedTuple):
    """What the list knows about one token and its groups."""

    revoked: bool = False
    #: How often the token was used.
    uses: int = 0
    #: The second at which it was traded for its successor; 0 if it was not.
    rotated_at: int = 0
    #: The highest generation of the token's groups; 0 if none of them was ever revoked.
    generation: int = 0
    #: Rows of tokens that expired before this second are gone: the list knows nothing about those tokens.
    horizon: int = 0
    #: The last generation that the list gave out, to any group.
    last_generation: int = 0
    #: How many more it may have given out since then, if a copy within its bound answers; else 0.
    unheard: int = 0


class Row(NamedTuple):
    """The row of a token, or a group, as a list hands it to those who keep a copy."""

    name: str
    #: A token's `exp`; for a group, the second after which it may be purged.
    expires_at: int
    #: A group's generation; 0 means that the row is a token's.
    generation: int = 0
    revoked: bool = False
    uses: int = 0
    rotated_at: int = 0


class Point(NamedTuple):
    """A moment in a list's history: the number of its newest change, and the random `mark` that was drawn for
    that change. The same number with another mark belongs to another history, as after a restore."""

    number: int
    mark: int


class Chunk(NamedTuple):
    """Some of the rows of a snapshot, and where the next chunk begins."""

    rows: Sequence[Row]
    #: Opaque, and representable in JSON; None after the last chunk.
    next: Any


class Changes(NamedTuple):
    """The rows that changed, oldest change first, and the moment after the last of these changes."""

    rows: Sequence[Row]
    end: Point


class Snapshot(Protocol):
    """A list as it is at one moment, read in small chunks."""

    @property
    def point(self) -> Point:
        """The newest change."""
        ...

    @property
    def horizon(self) -> int:
        """As in Entry."""
        ...

    @property
    def last_generation(self) -> int:
        """As in Entry."""
        ...

    def chunk(self, start: Any, limit: int) -> Chunk:
        """About `limit` rows and groups from `start` on, or from the beginning if it is None. Read over
        several snapshots, the chunks together hold at least what was there in the first and still is in the
        last."""
        ...

    def changes(self, after: Point, limit: int) -> Changes | None:
        """The rows and groups that the first `limit` changes after that moment affected, each as it is now,
        without those purged since. None if the list has forgotten that moment, or never was at it."""
        ...


class Freshness(NamedTuple):
    """How fresh a copy is: the seconds since it was equal to the list, and the seconds that its last refresh
    took."""

    age: float
    lag: float


class View(Protocol):
    """What a validation asks about a list: the list itself, or a copy of it in memory.

    Every method may be called from any thread. One that cannot answer raises StoreError, which never means
    "not revoked".
    """

    @property
    def is_local(self) -> bool:
        """Whether the list answers in the time a disk takes, and the view knows every change that any process
        was told is made. Other lists may wait for a network, and their views may be as old as their bound
        allows."""
        ...

    @property
    def is_prompt(self) -> bool:
        """Whether `is_clear` and `recall` wait for nothing now."""
        ...

    @property
    def freshness(self) -> Freshness | None:
        """How fresh the copy is; None if there is no copy."""
        ...

    def catch_up(self) -> float | None:
        """Ask the list what has changed and update the copy. May wait for a network.

        Returns:
            When (refresher.now) the copy was equal to the list, which is after the call began. None if there
            is no copy.
        """
        ...

    def at(self, moment: float) -> "View":
        """The same view for calls that may not wait: it answers from a copy that was equal to the list at
        `moment` (refresher.now) or later, and raises StoreError if there is none. A view without a copy
        returns itself."""
        ...

    def is_clear(self, claims: Claims, end: int, /) -> bool:
        """Whether the list certainly has nothing against a token: no row, no group of a later generation, and
        a horizon of at most `end`. False means that it may have: call `recall`."""
        ...

    def recall(self, jti: str, exp: int, groups: Sequence[str], /) -> Entry:
        """As Store.lookup, for a validation that `is_clear` could not answer."""
        ...


class Store(Protocol):
    """A revocation list: tokens revoked, used or rotated before they expired, and guesses at codes.

    A store knows ids and times, never the text of a token. `jti` names a token, or whatever else is counted,
    and `exp` is the second at which it expires; together they name a row. A group is a name for many tokens,
    such as "sub:alice".

    Every method may be called from any thread. Once a change is acknowledged, every process sees it. A method
    that returns has made its change durable. One that cannot answer raises StoreError, which never means "not
    revoked". Its change was not acknowledged; it was not made either, unless the engine fails after making it
    and before saying so. Every change may be repeated; a use that is lost in this way is never granted twice.
    """

    @property
    def view(self) -> View:
        """What validations ask."""
        ...

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """What is known about a token and up to MAX_GROUPS groups, and the list's horizon."""
        ...

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> Entry:
        """Refuse this token from now on, and return what is known then, as lookup does. Repeating it changes
        nothing, nor does a token that expired before the horizon."""
        ...

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        """Count one use and return how many there are now, this one included. None, and nothing is counted,
        if the token is revoked, rotated, has `limit` uses, or expired before the horizon. Of any number of
        simultaneous callers, in any processes, exactly `limit` ever get a number."""
        ...

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        """Record that the token is traded for its successor at second `now`, and return the second at which
        it was traded first, which is the same for every caller. None, and nothing is recorded, if the token
        is revoked, used, or expired before the horizon."""
        ...

    def advance(self, group: str, now_ms: int, lifetime: int) -> int:
        """Start a new generation of a group and return it: `now_ms`, in milliseconds, or one more than the
        highest generation that this list ever gave out, whichever is greater. So it never goes back, even if
        the clock does. The row expires `lifetime` seconds after the generation, or after the horizon if that
        is later."""
        ...

    def purge(self, before: int, limit: int = PURGE_STEP) -> int:
        """Delete up to `limit` rows that expired before that second; return how many. From the first call on,
        the horizon of every Entry is at least `before`; it never goes back."""
        ...

    def together(self) -> AbstractContextManager[None] | None:
        """A context in which this thread's changes are grouped: all are made, and durable, at its end; if it
        raises, none is made. None if the engine cannot group changes: each is made separately then."""
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """The list as it is now or later, for use within the context and by its thread."""
        ...

    def count(self) -> int:
        """How many rows there are, of every kind."""
        ...

    def ping(self) -> None:
        """Return only if the list can be read and written, and is intact. May take a while."""
        ...

    def close(self) -> None:
        """Release files and connections. Repeating it changes nothing; any other call raises StoreError
        then."""
        ...
