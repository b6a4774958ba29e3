"""How a program of ours ends where it cannot go on."""

import sys

from .errors import ConfigurationError, RequestInvalid, SignerError, SystemUnavailable


def exit_code(error: SignerError) -> int:
    """What a script can tell from it: 1 refused, 2 called or configured wrongly, 3 list, clock or audit trail
    cannot answer now."""
    if isinstance(error, SystemUnavailable):
        return 3
    return 2 if isinstance(error, ConfigurationError | RequestInvalid) else 1


def say(error: SignerError) -> None:
    """One line on standard error."""
    print(f"signer: {error}", file=sys.stderr)  # noqa: T201 - for whoever started it
