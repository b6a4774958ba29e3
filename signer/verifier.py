"""Validate tokens of one purpose, with nothing but the key of that purpose."""

import time
from collections.abc import Callable

from .errors import KeyInvalid, StoreRequired, TokenUsed
from .lifecycle.core import assembled
from .lifecycle.validation import Validator
from .policy import DEFAULT_GRACE, DEFAULT_LEEWAY, DEFAULT_MAX_TTL
from .stores import Store
from .tokens.claims import Claims
from .tokens.keys import KeyRing, PurposeKey


class Verifier:
    """Validates tokens of one purpose, in a program that must not be able to make tokens of other purposes.

    Without a revocation list it does not notice that a token was revoked, used or rotated: then let tokens
    live for minutes only, or give it a copy of the service's list. The key is a secret, because a program
    that has it can also make tokens of this purpose.

    Args:
        keys: from `Signer.purpose_key` or `python -m signer purpose-key`. While SECRET_KEY is being changed,
            the new one and the old one, in any order.
        store: the list, such as open_store("https://client:credential@tokens.example.org", staleness=5).
        max_ttl, leeway, clock: as for Signer.

    Raises:
        KeyInvalid: there is no key, one is not an exported key, or they are of several purposes.
    """

    def __init__(
        self,
        *keys: str,
        store: Store | None = None,
        max_ttl: int = DEFAULT_MAX_TTL,
        leeway: int = DEFAULT_LEEWAY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        parsed = [PurposeKey(key) for key in keys]
        if len({key.purpose for key in parsed}) != 1:
            raise KeyInvalid("A Verifier takes keys of one purpose: python -m signer purpose-key PURPOSE")
        self.purpose = parsed[0].purpose
        ring = KeyRing(parsed[0], parsed[1:])
        core = assembled(ring, store, max_ttl, max_ttl, leeway, DEFAULT_GRACE, clock, ())
        self._validator = Validator(core)

    def validate(
        self,
        token: str,
        *,
        scope: str | None = None,
        aud: str | None = None,
        bind: str | None = None,
        max_age: int | None = None,
    ) -> Claims:
        """The claims of a token that is valid now, by its signature, its age and the revocation list, if
        there is one. The arguments are those of Signer.validate.

        Raises:
            TokenError: the subclass says why the token is refused.
            SystemUnavailable: the list or the clock cannot answer. Refuse the token then, too.
        """
        try:
            return self._validator.validate(
                token, purpose=self.purpose, scope=scope, aud=aud, bind=bind, max_age=max_age
            )
        except StoreRequired:
            # Any caller may present such a token, so it is refused; it is not an error of this program.
            raise TokenUsed("A token with max_uses is good only where its uses are counted.") from None
