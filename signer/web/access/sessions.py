"""Tokens that can be shown repeatedly, as those of a session are."""

from collections.abc import Callable

from ...signer import Signer
from ...tokens.claims import Claims, check_reusable


def checked_session(signer: Signer, token: str, *rules: Callable[[Claims], None]) -> Claims:
    """The claims of a valid token of any purpose that may be shown repeatedly and that satisfies `rules`:
    neither a credential for this service, nor a token whose uses are counted. Hooks are notified of one
    validation.

    Raises:
        TokenError: it is not valid, must not be shown repeatedly, or a rule refuses it.
        SystemUnavailable: it cannot be checked now.
    """
    with signer.hooks.operation("validate") as operation:
        claims = signer.check(operation, token, purpose=None)
        for rule in (check_reusable, *rules):
            rule(claims)
        return claims
