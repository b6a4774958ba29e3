"""Codes of six digits: the challenge that comes with one, and counting the guesses."""

from hmac import compare_digest
from math import ceil
from typing import Final

from msgspec.structs import replace

from ..errors import AttemptsExceeded, CodeWrong, TokenUsed
from ..policy import CODE_ATTEMPTS, CODE_TTL, SUBJECT_ATTEMPTS
from ..stores import names
from ..stores.contract import Store
from ..tokens.claims import CODE_PREFIX, Challenge, Claims
from ..tokens.values import Code, CodePurpose, CodeRequest, IssueRequest, converted
from .core import Core
from .issuing import grant

_HOUR: Final = 60 * 60


def grant_code(core: Core, request: CodeRequest, client_id: str | None) -> Challenge:
    """See Signer.grant_code."""
    core.required_store()
    asked = IssueRequest(
        purpose=CODE_PREFIX + request.purpose,
        sub=request.sub,
        ttl=request.ttl or min(CODE_TTL, core.max_ttl),
        data=request.data,
    )
    token, claims = grant(core, asked, client_id)
    return Challenge(token, _code(core, claims), replace(claims, purpose=request.purpose))


def verify_code(core: Core, token: str, code: str, purpose: str) -> Claims:
    """See Signer.verify_code."""
    with core.hooks.operation("verify_code") as operation:
        store = core.required_store()
        expected = CODE_PREFIX + converted(purpose, CodePurpose, "purpose")
        claims = operation.about(core.codec.decode(token, expected))
        guess = converted(code, Code, "code")
        core.admission.admit(claims, is_change=True)
        core.begin(operation)
        attempts_left = count_attempt(store, claims, core.admission.now())
        if not compare_digest(_code(core, claims), guess):
            raise CodeWrong(attempts_left)
        if store.use(names.row(claims), claims.exp, 1) is None:
            raise TokenUsed
        return replace(claims, purpose=purpose)


def _code(core: Core, claims: Claims) -> str:
    return core.codec.key(claims).code(claims.jti, claims.purpose)


def count_attempt(store: Store, claims: Claims, now: float) -> int:
    """Count a guess at a challenge at second `now`; return how many its challenge has left after it.

    Raises:
        AttemptsExceeded: none was left, for the challenge or for its subject.
        StoreError: the guess may have been counted.
    """
    # First the challenge: a guess at one that takes no more does not count for its subject.
    attempts = store.use(names.guesses(claims), claims.exp, CODE_ATTEMPTS)
    if attempts is None or not _is_counted(store, claims, now):
        raise AttemptsExceeded
    return CODE_ATTEMPTS - attempts


def _is_counted(store: Store, claims: Claims, now: float) -> bool:
    """Count a subject's guess, unless sixty minutes would hold too many.

    Each hour of the clock has a row that counts its guesses, and for each guess a row that keeps its second.
    An hour takes 20, less those of the hour before that are less than sixty minutes old. The first guess in
    an hour closes the hour before, so that a caller whose clock or call is late cannot add to an hour that
    was already counted. If several callers guess at once, `use` counts no more than the limit.
    """
    hour = int(now) // _HOUR
    latest = _latest(store, claims, _kept_until(hour - 1), now)
    number = store.use(names.guesses_in_hour(claims), _kept_until(hour), SUBJECT_ATTEMPTS - latest)
    if number is None:
        return False
    # If this fails, the guess counts as one at the end of its hour.
    store.rotate(names.guess_in_hour(claims, number), _kept_until(hour), ceil(now))
    return True


def _latest(store: Store, claims: Claims, end: int, now: float) -> int:
    """How many guesses of the hour whose rows are kept until `end` are less than sixty minutes old. Closes
    that
    hour: it takes no more guesses."""
    name = names.guesses_in_hour(claims)
    entry = store.lookup(name, end, ())
    if not entry.revoked:
        entry = store.revoke(name, end)
    if entry.horizon > end:
        return SUBJECT_ATTEMPTS  # purged by a clock that is hours ahead: assume the worst
    rows = [names.guess_in_hour(claims, number + 1) for number in range(entry.uses)]
    seconds = [store.lookup(row, end, ()).rotated_at for row in rows]
    return sum(not second or second + _HOUR > now for second in seconds)


def _kept_until(hour: int) -> int:
    # An hour longer than it counts: a row that was purged by a clock ahead of ours would count as used up.
    return (hour + 3) * _HOUR
