"""The guesses that a code of six digits takes."""

from typing import Final

from . import names
from .claims import Claims
from .errors import AttemptsExceeded
from .stores.base import Store

#: Guesses that one challenge takes: with six digits, a chance of 1 in 200,000.
CODE_ATTEMPTS: Final = 5
#: Guesses that one subject takes in each hour, whatever the number of challenges.
SUBJECT_ATTEMPTS: Final = 20
_HOUR: Final = 60 * 60


def count_attempt(store: Store, claims: Claims, now: float) -> int:
    """Count a guess at a challenge at second `now`; return how many its challenge has left after it.

    Raises:
        AttemptsExceeded: none was left, for the challenge or for its subject.
        StoreError: the guess may have been counted.
    """
    # A guess at a challenge that takes none is not its subject's.
    attempts = store.use(names.guesses(claims), claims.exp, CODE_ATTEMPTS)
    # Kept an hour longer than it counts: what a purge by a clock ahead of ours forgot would pass for used up.
    hour = (int(now) // _HOUR + 2) * _HOUR
    if attempts is None or store.use(names.guesses_for(claims), hour, SUBJECT_ATTEMPTS) is None:
        raise AttemptsExceeded
    return CODE_ATTEMPTS - attempts
