"""Purpose keys: what a program can do with one, and what it cannot."""

import hashlib
from base64 import urlsafe_b64decode
from collections.abc import Callable
from pathlib import Path

import pytest
from itsdangerous import URLSafeTimedSerializer
from msgspec.structs import replace
from support.clock import Clock
from support.service import KEY, cli

from signer import KeyRing, Signer, Store, Verifier
from signer.errors import (
    KeyInvalid,
    RequestInvalid,
    TokenBindingWrong,
    TokenExpired,
    TokenKeyUnknown,
    TokenPurposeWrong,
    TokenScopeInsufficient,
    TokenSignatureInvalid,
    TokenUsed,
)
from signer.tokens.keys import PurposeKey

OTHER = "another-key-of-more-than-thirty-two-bytes"


def test_it_validates_as_the_signer_does(signer: Signer, clock: Clock) -> None:
    """Signature, age, scope, audience and binding."""
    verifier = Verifier(signer.purpose_key("access"), clock=clock)
    token = signer.issue(sub="42", scope="read", aud="web", bind="hash")
    assert verifier.validate(token, scope="read", aud="web", bind="hash") == signer.validate(
        token, scope="read", aud="web", bind="hash"
    )
    with pytest.raises(TokenScopeInsufficient):
        verifier.validate(token, scope="write", aud="web", bind="hash")
    with pytest.raises(TokenBindingWrong):
        verifier.validate(token, aud="web", bind="other")
    clock.now += 3600
    with pytest.raises(TokenExpired):
        verifier.validate(token, aud="web", bind="hash")


def test_it_is_for_one_purpose(signer: Signer, clock: Clock) -> None:
    """Tokens for other purposes are refused, and not only because of their claim."""
    verifier = Verifier(signer.purpose_key("access"), clock=clock)
    with pytest.raises(TokenPurposeWrong):
        verifier.validate(signer.issue(purpose="reset"))
    assert verifier.purpose == "access"


def test_a_leaked_one_endangers_no_other_purpose(signer: Signer) -> None:
    """A thief can make valid tokens of its purpose; tokens of any other purpose are refused."""
    forger = Signer(KeyRing(Leaked(signer.purpose_key("access"))), clock=signer._core.admission._clock)
    assert signer.validate(forger.issue(sub="42")).sub == "42"
    for purpose in ("reset", "signer:client", "signer:code:access"):
        with pytest.raises(TokenSignatureInvalid):
            signer.validate(forger.issue(purpose=purpose), purpose=purpose)
    with pytest.raises(TokenPurposeWrong):
        Signer(KeyRing(PurposeKey(signer.purpose_key("access")))).issue(purpose="reset")


def test_a_leaked_one_uses_up_no_token_of_another_purpose(signer: Signer) -> None:
    """Not even one with the same id and expiry. Nor can it use up the attempts at a code."""
    forger = Signer(KeyRing(Leaked(signer.purpose_key("access"))), clock=signer._core.admission._clock)
    victim = signer.issue(purpose="reset")
    claims = signer.inspect(victim).unverified_claims
    challenge = signer.issue_code(sub="42")
    for jti in (
        claims.jti,
        f"guesses/{challenge.claims.jti}",
        f"../{claims.jti}",
        f"reset/{claims.jti}",
    ):
        forged = replace(claims, jti=jti, purpose="access", max_uses=50, iat=0, kid="")
        token = forger._core.codec.encode(forged, claims.iat)
        for _ in range(6):
            signer.consume(token)
    session = signer.issue(purpose="session", sid="s1")
    forged = replace(claims, purpose="access", sid="s1", auth_time=claims.iat, iat=0, kid="")
    signer.revoke(forger._core.codec.encode(forged, claims.iat))
    assert signer.validate(session, purpose="session")
    assert signer.consume(victim, purpose="reset")
    assert signer.verify_code(challenge.token, challenge.code)


class Leaked(PurposeKey):
    """A stolen key, used for every purpose."""

    def purpose_key(self, purpose: str) -> bytes:
        return super().purpose_key(self.purpose)


def test_stock_itsdangerous_verifies_with_it_too(signer: Signer) -> None:
    """The key is the middle part, in base64url."""
    _, key, _ = signer.purpose_key("access").split(".", 2)
    stock = URLSafeTimedSerializer(
        urlsafe_b64decode(key + "="),
        signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "none"},
    )
    assert stock.loads(signer.issue(sub="42").split(".", 1)[1])["sub"] == "42"


def test_around_a_change_of_keys_it_takes_both(store: Store) -> None:
    """In any order. With only one of them, tokens of the other key are unknown."""
    old, new = Signer(KEY, store), Signer(KeyRing(OTHER, [KEY]), store)
    verifier = Verifier(old.purpose_key("access"), new.purpose_key("access"))
    assert verifier.validate(old.issue())
    assert verifier.validate(new.issue())
    with pytest.raises(TokenKeyUnknown):
        Verifier(new.purpose_key("access")).validate(old.issue())


def test_it_sees_no_list(signer: Signer, clock: Clock) -> None:
    """Without one, a revoked token is accepted until it expires, and a token with max_uses is always
    refused."""
    verifier = Verifier(signer.purpose_key("access"), clock=clock)
    token = signer.issue()
    signer.revoke(token)
    assert verifier.validate(token)
    with pytest.raises(TokenUsed):
        verifier.validate(signer.issue(max_uses=2))


def test_the_services_own_purposes_are_not_exported(signer: Signer) -> None:
    """Otherwise its holder could compute codes and make credentials."""
    for purpose in ("signer:client", "signer:code:login", "kid", ""):
        with pytest.raises(RequestInvalid):
            signer.purpose_key(purpose)
    ring = KeyRing(PurposeKey(signer.purpose_key("access")))
    with pytest.raises(RequestInvalid):
        Signer(ring).purpose_key("access")


@pytest.mark.parametrize(
    "text", ["", "x", KEY, "sgk_abcdef.short.access", "sgk_abcdef." + "A" * 43, "sgk_a\n"]
)
def test_what_is_no_exported_key_is_refused(text: str) -> None:
    """The message does not repeat it."""
    with pytest.raises(KeyInvalid) as caught:
        Verifier(text)
    assert len(text) < 2 or text not in str(caught.value)


def test_keys_of_several_purposes_or_none_are_refused(signer: Signer) -> None:
    """A verifier is for one purpose."""
    for keys in ([], [signer.purpose_key("access"), signer.purpose_key("reset")]):
        with pytest.raises(KeyInvalid):
            Verifier(*keys)


def test_an_exported_key_is_no_secret_key(signer: Signer) -> None:
    """As SECRET_KEY it would sign tokens that no verifier accepts."""
    exported = signer.purpose_key("access")
    with pytest.raises(KeyInvalid) as caught:
        Signer(exported)
    assert exported not in str(caught.value)
    assert exported[11:] not in repr(PurposeKey(exported))


def test_the_command_prints_it(tmp_path: Path, open_list: Callable[[str], Store]) -> None:
    """Nothing else is printed, and no list is needed."""
    made = cli(tmp_path, "purpose-key", "access", SECRET_KEY=KEY)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == Signer(KEY).purpose_key("access") + "\n"
    assert Verifier(made.stdout.strip()).validate(Signer(KEY).issue(sub="42")).sub == "42"
    assert not list(tmp_path.iterdir())
    refused = cli(tmp_path, "purpose-key", "signer:client", SECRET_KEY=KEY)
    assert (refused.returncode, refused.stdout) == (2, "")
