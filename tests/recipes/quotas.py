"""Limits and quotas: a token good for so many calls, until a day.

`max_uses` stands in the token, and the list counts: of any number of calls at once, in whatever process,
exactly as many get through. The call is charged before the work is done. What is sold or given out is the
token; who had one today is for your own table to know.

It avoids counting in each process on its own, look-then-write, which lets calls slip through side by side,
and a counter for every customer who never calls.
"""

from collections.abc import Callable

from signer import Signer, TokenError
from signer.errors import TokenUsed

PURPOSE = "quota"


def grant(signer: Signer, customer: str, calls: int) -> str:
    """A token for this many calls within a day."""
    return signer.issue(purpose=PURPOSE, sub=customer, max_uses=calls, ttl=24 * 60 * 60)


def answer(signer: Signer, token: str, work: Callable[[], str]) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of one call. `consume`, never `validate`: that counts nothing."""
    try:
        use = signer.consume(token, purpose=PURPOSE)
    except TokenUsed:
        return 429, {"X-Calls-Left": "0"}, "The calls of this token are used up."
    except TokenError:
        return 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}, "The token is not valid."
    return 200, {"X-Calls-Left": str(use.uses_left)}, work()
