"""Limits and quotas: a token that is valid for a number of calls, until a point in time.

`max_uses` stands in the token, and the revocation list counts: of any number of simultaneous calls, in any
process, exactly that many are accepted. A call is counted before the work is done. Who has had a token today
is for your own table to know.

It avoids a separate count in each process, look-then-write, which lets simultaneous calls slip through, and a
counter for every customer who never calls.
"""

from collections.abc import Callable

from signer import Signer, TokenError
from signer.errors import TokenUsed

PURPOSE = "quota"


def grant(signer: Signer, customer: str, calls: int) -> str:
    """A token for this number of calls within a day."""
    return signer.issue(purpose=PURPOSE, sub=customer, max_uses=calls, ttl=24 * 60 * 60)


def answer(signer: Signer, token: str, work: Callable[[], str]) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of one call. `consume` counts it; `validate` would not."""
    try:
        use = signer.consume(token, purpose=PURPOSE)
    except TokenUsed:
        return 429, {"X-Calls-Left": "0"}, "The calls of this token are used up."
    except TokenError:
        return 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}, "The token is not valid."
    return 200, {"X-Calls-Left": str(use.uses_left)}, work()
