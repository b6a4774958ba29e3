"""What every list must do. The docstrings are the contract; tests/stores/test_contract.py holds each
implementation to it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from ..policy import PURGE_STEP
from ..tokens.claims import Claims


class Entry(NamedTuple):
    """All the list knows of one token and the groups it belongs to."""

    revoked: bool = False
    #: How often the token was used.
    uses: int = 0
    #: The second it was traded for its successor; 0 where it was not.
    rotated_at: int = 0
    #: The highest generation of the token's groups; 0 where none was ever revoked.
    generation: int = 0
    #: Rows of tokens that expired before this second are gone: the list cannot speak for those.
    horizon: int = 0
    #: The last generation that the list gave out, to any group.
    last_generation: int = 0
    #: How many more it may have given out since, where a copy within its bound answers; else 0.
    unheard: int = 0


class Row(NamedTuple):
    """A token's row, or a group, as a list tells it to those who keep a copy."""

    name: str
    #: The token's `exp`; of a group, the second after which it may be purged.
    expires_at: int
    #: Of a group; 0 is a token's.
    generation: int = 0
    revoked: bool = False
    uses: int = 0
    rotated_at: int = 0


class Point(NamedTuple):
    """A moment of a list's history. The random `mark` was drawn with the change of that number: the same
    number with another mark is another history, as after a restore."""

    number: int
    mark: int


class Page(NamedTuple):
    """A part of what a snapshot holds, and where the next part begins."""

    rows: Sequence[Row]
    #: Opaque, and something that JSON can carry; None where this was the last part.
    next: Any


class Log(NamedTuple):
    """What changed, oldest first, and the moment after the last of it."""

    rows: Sequence[Row]
    end: Point


class Snapshot(Protocol):
    """A list as it stands at one moment, read in small parts."""

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

    def page(self, start: Any, limit: int) -> Page:
        """Up to about `limit` rows and groups from `start` on, None being the beginning. Over several
        snapshots the parts together hold at least what was there at the first, and still is at the last."""
        ...

    def log(self, after: Point, limit: int) -> Log | None:
        """The rows and groups that the first `limit` changes after that moment were of, each as it is now,
        those purged since left out; None where that is forgotten, or no moment of this list."""
        ...


class Freshness(NamedTuple):
    """Of a copy: seconds since it was as the list, and those that it took to take in what had changed."""

    age: float
    lag: float


class Store(Protocol):
    """The list of exceptions: tokens revoked, used or rotated before they expired, and guesses at codes.

    A store knows ids and times, never a token's text. `jti` names a token, or whatever else is counted, and
    `exp` is the second it expires at; together they name a row. A group is a name for many tokens, such as
    "sub:alice".

    Every method may be called from any thread, and whatever one process was told is done, every other
    sees. A method that returns has made its change durable. One that cannot answer raises StoreError,
    which never means "not revoked"; its change was not acknowledged, and has not been made but where an
    engine fails between making it and telling. Every change may be repeated; a use that is lost that way
    is never granted twice.
    """

    @property
    def is_local(self) -> bool:
        """Whether every method answers in the time a disk takes, and `is_clear` and `recall` know all that
        any process was told is done. Other lists may wait for a network, and what these two know may be as
        old as the list's bound says."""
        ...

    @property
    def is_prompt(self) -> bool:
        """Whether `is_clear` and `recall` wait for nothing now."""
        ...

    @property
    def freshness(self) -> Freshness | None:
        """Of the copy that `is_clear` and `recall` ask; None where they ask none."""
        ...

    def catch_up(self) -> float | None:
        """Ask the list what has changed, and take it into the copy; return when (following.now) the copy was
        as the list, which is after the call began. None where there is no copy. May wait for a network."""
        ...

    def lookup(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """What is known of a token and of up to MAX_GROUPS groups, and the list's horizon."""
        ...

    def is_clear(self, claims: Claims, end: int, /) -> bool:
        """Whether the list certainly holds nothing against a token: no row, no group of a later generation,
        and a horizon of `end` at the most. False means that it may: look it up."""
        ...

    def recall(self, jti: str, exp: int, groups: Sequence[str]) -> Entry:
        """As lookup, for a validation that `is_clear` could not answer."""
        ...

    def revoke(self, jti: str, exp: int, groups: Sequence[str] = ()) -> Entry:
        """Refuse this token from now on, and return what is known then, as lookup does. Again is a no-op, and
        so it is where the token expired before the horizon."""
        ...

    def use(self, jti: str, exp: int, limit: int) -> int | None:
        """Count one use and return how many there are now, this one included; None, and nothing counted,
        where the token is revoked, rotated, has `limit` uses, or expired before the horizon. Of any number of
        callers at once, in whatever process, exactly `limit` are ever given a number."""
        ...

    def rotate(self, jti: str, exp: int, now: int) -> int | None:
        """Note that the token is traded for its successor at second `now`, and return the second it first
        was: the same to every caller. None, and nothing noted, where the token is revoked, used, or expired
        before the horizon."""
        ...

    def advance(self, group: str, now_ms: int, lifetime: int) -> int:
        """Start a new generation of a group and return it: `now_ms`, in milliseconds, or one more than
        the highest generation this list ever gave out, whichever is greater. So it never steps back,
        whatever the clock does. The row expires `lifetime` seconds after the generation, or after the
        horizon where that is later."""
        ...

    def purge(self, before: int, limit: int = PURGE_STEP) -> int:
        """Delete up to `limit` rows that expired before that second; return how many. From the first
        call on, the horizon of every Entry is at least `before`; it never steps back."""
        ...

    def together(self) -> AbstractContextManager[None] | None:
        """Within it, what this thread changes is made, and durable, all at once at its end; where it raises,
        nothing was made. None where the list has no such thing: each change is made by itself then."""
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """The list as it is now, at the earliest; for the time of the context and its thread."""
        ...

    def count(self) -> int:
        """How many rows there are, of every kind."""
        ...

    def ping(self) -> None:
        """Return only if the list can be read and written, and is intact. May take a while."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Again is a no-op; any other call raises StoreError then."""
        ...
