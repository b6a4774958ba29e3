"""How our programs end when they cannot continue."""

import sys

from .errors import ConfigurationError, RequestInvalid, SignerError, SystemUnavailable


def exit_code(error: SignerError) -> int:
    """The exit code, for scripts: 1 for a refusal, 2 for a wrong call or configuration, 3 if the revocation
    list, the clock or the audit trail cannot be used now."""
    if isinstance(error, SystemUnavailable):
        return 3
    return 2 if isinstance(error, ConfigurationError | RequestInvalid) else 1


def say(error: SignerError) -> None:
    """One line on standard error."""
    print(f"signer: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
