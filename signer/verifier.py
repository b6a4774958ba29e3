"""Checking tokens of one purpose with the key of that purpose alone."""

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
    """Validates tokens of one purpose, for a program that must not be able to make any others.

    Without a list it sees no revocation, use or rotation: let such tokens live for minutes, or give it the
    copy of the service's list. The key is a secret: whoever has it can make tokens of this purpose, though of
    no other.

    Args:
        keys: what `Signer.purpose_key` or `python -m signer purpose-key` gave; around a change of
            SECRET_KEY the new one and the old one, in any order.
        store: such as open_store("https://client:credential@tokens.example.org", staleness=5).
        max_ttl, leeway, clock: as for Signer.

    Raises:
        KeyInvalid: no key, not an exported key, or keys of several purposes.
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
        """The claims of a token that is good now by signature, age and list, if there is one; see
        Signer.validate.

        Raises:
            TokenError: a subclass that says why the token is refused.
            SystemUnavailable: the list or the clock cannot answer. Refuse then, too.
        """
        try:
            return self._validator.validate(
                token, purpose=self.purpose, scope=scope, aud=aud, bind=bind, max_age=max_age
            )
        except StoreRequired:
            # Whoever holds one may show it: that is no fault of the program's.
            raise TokenUsed("A token with max_uses is good only where its uses are counted.") from None
