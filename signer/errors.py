"""Every error this package raises, and its stable code.

    SignerError
    ├── TokenError                  the token is refused; expected, untrusted input
    │   ├── TokenMalformed          token_malformed
    │   ├── TokenKeyUnknown         token_key_unknown
    │   ├── TokenSignatureInvalid   token_signature_invalid
    │   ├── TokenPurposeWrong       token_purpose_wrong
    │   ├── TokenNotYetValid        token_not_yet_valid
    │   ├── TokenExpired            token_expired
    │   ├── TokenAudienceWrong      token_audience_wrong
    │   ├── TokenScopeInsufficient  token_scope_insufficient
    │   ├── TokenBindingWrong       token_binding_wrong
    │   ├── TokenRevoked            token_revoked
    │   ├── TokenRotated            token_rotated
    │   ├── TokenNotRotatable       token_not_rotatable
    │   ├── TokenUsed               token_used
    │   ├── CodeWrong               code_wrong
    │   └── AttemptsExceeded        attempts_exceeded
    ├── RequestInvalid              request_invalid; an argument or member is not allowed
    ├── CallerError                 the caller may not do this
    │   ├── CredentialMissing       credential_missing
    │   ├── CredentialInvalid       credential_invalid
    │   ├── ScopeInsufficient       scope_insufficient
    │   └── RateLimited             rate_limited
    ├── SystemUnavailable           the machine cannot answer; refuse, and try again
    │   ├── StoreError              store_unavailable
    │   ├── ClockError              clock_unreliable
    │   └── AuditError              audit_unavailable
    └── ConfigurationError          configuration_invalid; for the operator to correct
        ├── KeyInvalid              key_invalid
        └── StoreRequired           store_required

A message says what is wrong and what to do, and never holds a token, a key or a credential.
HTTP bodies use the same codes, and a few more for what HTTP itself refuses: web/messages/problems.py.
"""

from typing import ClassVar

__all__ = [
    "AttemptsExceeded",
    "AuditError",
    "CallerError",
    "ClockError",
    "CodeWrong",
    "ConfigurationError",
    "CredentialInvalid",
    "CredentialMissing",
    "KeyInvalid",
    "RateLimited",
    "RequestInvalid",
    "ScopeInsufficient",
    "SignerError",
    "StoreError",
    "StoreRequired",
    "SystemUnavailable",
    "TokenAudienceWrong",
    "TokenBindingWrong",
    "TokenError",
    "TokenExpired",
    "TokenKeyUnknown",
    "TokenMalformed",
    "TokenNotRotatable",
    "TokenNotYetValid",
    "TokenPurposeWrong",
    "TokenRevoked",
    "TokenRotated",
    "TokenScopeInsufficient",
    "TokenSignatureInvalid",
    "TokenUsed",
]


class SignerError(Exception):
    """The root of the tree. Catch this to catch everything this package raises on purpose."""

    #: Stable and machine-readable; the same word in Python and JSON.
    code: ClassVar[str] = "signer_error"
    #: The message, unless the place that raises gives another.
    hint: ClassVar[str] = ""

    # Computed on demand: most errors are caught and never printed, at the rate at which strangers send
    # tokens.
    def __str__(self) -> str:
        return super().__str__() or self.hint


class TokenError(SignerError):
    """The token is refused. The subclass says why; tell an untrusted caller only that it is invalid."""

    code = "token_invalid"
    hint = "The token is not valid."


class TokenMalformed(TokenError):
    """The text is not a token of this format in its one canonical spelling."""

    code = "token_malformed"
    hint = "This is not a token of this service: pass the whole text, unchanged."


class TokenKeyUnknown(TokenError):
    """No key of the ring has the token's key id."""

    code = "token_key_unknown"
    hint = "The token was signed with a key that is neither SECRET_KEY nor one of its fallbacks."


class TokenSignatureInvalid(TokenError):
    """The signature does not fit: a forged or damaged token."""

    code = "token_signature_invalid"
    hint = "The signature does not fit the token: it was changed or forged."


class TokenPurposeWrong(TokenError):
    """The token was issued for another purpose than the expected one."""

    code = "token_purpose_wrong"
    hint = "The token was issued for another purpose: validate it with the purpose it was issued for."


class TokenNotYetValid(TokenError):
    """The token's `iat` lies further ahead than the leeway allows."""

    code = "token_not_yet_valid"
    hint = "The token was issued in the future: compare the clocks of issuer and validator."


class TokenExpired(TokenError):
    """`exp`, or the age that was asked for, has passed."""

    code = "token_expired"
    hint = "The token has expired: ask for a new one."


class TokenAudienceWrong(TokenError):
    """The token is for another audience, or for one the caller did not name (RFC 7519, 4.1.3)."""

    code = "token_audience_wrong"
    hint = "The token's audience is not the one asked for: pass the `aud` it was issued for, or none."


class TokenScopeInsufficient(TokenError):
    """The token's scope lacks a word asked for."""

    code = "token_scope_insufficient"
    hint = "The token's scope does not cover what was asked for."


class TokenBindingWrong(TokenError):
    """The state the token is bound to has changed, or was not given."""

    code = "token_binding_wrong"
    hint = "The token is not bound to this state: pass as `bind` what it was bound to, or nothing."


class TokenRevoked(TokenError):
    """The token, its subject, its session or its client was revoked."""

    code = "token_revoked"
    hint = "The token was revoked."


class TokenUsed(TokenError):
    """Every use the token allowed has been made."""

    code = "token_used"
    hint = "The token has been used as often as it allows."


class TokenRotated(TokenError):
    """The token was traded for its successor, and the time for a retry is over. Trading it once more ends
    the session, because two parties hold it and one of them stole it (RFC 9700, section 4.14.2)."""

    code = "token_rotated"
    hint = "The token was traded for its successor: use that one."


class TokenNotRotatable(TokenError):
    """The token has `max_uses`, whose count its successor would begin anew."""

    code = "token_not_rotatable"
    hint = "A token with max_uses cannot be rotated: its count would begin anew."


class CodeWrong(TokenError):
    """Not the code of this challenge. `attempts_left` says how many guesses it still takes."""

    code = "code_wrong"

    def __init__(self, attempts_left: int) -> None:
        super().__init__(f"The code is wrong; attempts left: {attempts_left}.")
        self.attempts_left = attempts_left


class AttemptsExceeded(TokenError):
    """Too many guesses, for this challenge or for its subject; a right code is refused then, too."""

    code = "attempts_exceeded"
    hint = "Too many codes were tried: issue a new one, or wait an hour where the subject had too many."


class RequestInvalid(SignerError):
    """An argument is not allowed: its type is wrong, or its value out of range.

    `field` names the argument (Python) or member (JSON) at fault, "" where none is.
    """

    code = "request_invalid"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class CallerError(SignerError):
    """The service refuses this call to this caller."""

    code = "caller_refused"


class CredentialMissing(CallerError):
    """The call needs a client credential and came without one."""

    code = "credential_missing"
    hint = "Send a client credential: Authorization: Bearer … (python -m signer client NAME --scope …)."


class CredentialInvalid(CallerError):
    """The credential is malformed, not valid now, or not this client's. The caller is not told which."""

    code = "credential_invalid"
    hint = "Not a valid client credential, as Bearer or Basic: make a new one with python -m signer client."


class ScopeInsufficient(CallerError):
    """The credential is good, but not for this."""

    code = "scope_insufficient"


class RateLimited(CallerError):
    """The caller calls too often (RATE_LIMIT). `retry_after`: seconds until it may call again."""

    code = "rate_limited"

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many calls: try again in {retry_after} seconds.")
        self.retry_after = retry_after


class SystemUnavailable(SignerError):
    """List, clock or audit trail cannot answer now. Nothing was acknowledged, and a retry is safe."""

    code = "system_unavailable"


class StoreError(SystemUnavailable):
    """The list cannot answer. This never means "not revoked": refuse and try again."""

    code = "store_unavailable"


class ClockError(SystemUnavailable):
    """The clock reads a time that cannot be now, so no age can be checked."""

    code = "clock_unreliable"
    hint = "The system clock is wrong by years: set it, then try again."


class AuditError(SystemUnavailable):
    """The audit trail cannot be written, so that no change can be made. Validation goes on."""

    code = "audit_unavailable"


class ConfigurationError(SignerError):
    """The program or its environment is set up wrongly."""

    code = "configuration_invalid"


class KeyInvalid(ConfigurationError):
    """A key is missing, too short, given twice, or not fit to be listed in a setting."""

    code = "key_invalid"


class StoreRequired(ConfigurationError):
    """The call needs the list, and this Signer was made without one."""

    code = "store_required"
    hint = "This needs a list: Signer(keys, store=open_store('sqlite:///./tokens.db'))."
