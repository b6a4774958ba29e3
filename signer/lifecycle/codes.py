"""The guesses that a code of six digits takes."""

from math import ceil
from typing import Final

from ..errors import AttemptsExceeded
from ..policy import CODE_ATTEMPTS, SUBJECT_ATTEMPTS
from ..stores import names
from ..stores.contract import Store
from ..tokens.claims import Claims

_HOUR: Final = 60 * 60


def count_attempt(store: Store, claims: Claims, now: float) -> int:
    """Count a guess at a challenge at second `now`; return how many its challenge has left after it.

    Raises:
        AttemptsExceeded: none was left, for the challenge or for its subject.
        StoreError: the guess may have been counted.
    """
    # A guess at a challenge that takes none is not its subject's.
    attempts = store.use(names.guesses(claims), claims.exp, CODE_ATTEMPTS)
    if attempts is None or not _is_counted(store, claims, now):
        raise AttemptsExceeded
    return CODE_ATTEMPTS - attempts


def _is_counted(store: Store, claims: Claims, now: float) -> bool:
    """Count a subject's guess, unless sixty minutes would hold too many.

    Each hour of the clock has a row that counts its guesses, and one for each guess that keeps its second.
    An hour takes 20, less those of the hour before that are not sixty minutes ago. The first guess in an
    hour closes the hour before, so that nobody whose clock or call is late adds to what was looked at; of
    any number of callers at once no more are counted than `use` lets in.
    """
    hour = int(now) // _HOUR
    latest = _latest(store, claims, _kept_until(hour - 1), now)
    number = store.use(names.guesses_in_hour(claims), _kept_until(hour), SUBJECT_ATTEMPTS - latest)
    if number is None:
        return False
    # Where this fails, the guess counts as one at the end of its hour.
    store.rotate(names.guess_in_hour(claims, number), _kept_until(hour), ceil(now))
    return True


def _latest(store: Store, claims: Claims, end: int, now: float) -> int:
    """How many guesses of the hour whose rows are kept until `end` are not sixty minutes ago. It takes none
    any more."""
    name = names.guesses_in_hour(claims)
    entry = store.lookup(name, end, ())
    if not entry.revoked:
        entry = store.revoke(name, end)
    if entry.horizon > end:
        return SUBJECT_ATTEMPTS  # purged by a clock that is hours ahead: nobody can tell
    rows = [names.guess_in_hour(claims, number + 1) for number in range(entry.uses)]
    seconds = [store.lookup(row, end, ()).rotated_at for row in rows]
    return sum(not second or second + _HOUR > now for second in seconds)


def _kept_until(hour: int) -> int:
    # An hour longer than it counts: what a purge by a clock ahead of ours forgot would pass for used up.
    return (hour + 3) * _HOUR
