"""Tokens that are used up."""

from ..errors import TokenUsed
from ..stores import names
from ..tokens.claims import Use
from .core import Core
from .validation import named


def consume(  # noqa: PLR0917 - in the order of Signer's
    core: Core,
    token: str,
    purpose: str,
    scope: str | None,
    aud: str | None,
    bind: str | None,
    max_age: int | None,
) -> Use:
    """See Signer.consume."""
    with core.hooks.operation("consume") as operation:
        store = core.required_store()
        claims = core.admission.check(
            operation, token, named(purpose), scope, aud, bind, max_age, is_change=True
        )
        limit = claims.max_uses or 1
        core.begin(operation)
        uses = store.use(names.row(claims), claims.exp, limit)
        if uses is None:
            raise TokenUsed
        return Use(claims, limit - uses)
