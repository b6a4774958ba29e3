"""Frozen vectors: what once verified verifies for ever, what was refused stays refused."""

import json
import re
from typing import Any

import msgspec
import pytest
from support.service import ROOT

from signer import Claims, KeyRing, Signer, TokenError, open_store
from signer.tokens.keys import Key

LONGEST_TTL = 10 * 366 * 24 * 3600
GUIDE = ROOT / "signer" / "guide" / "tokens.md"
DEMANDS = ("bind", "aud", "scope")


def load(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    document = json.loads((ROOT / "tests" / "vectors" / name).read_text())
    return document["keys"], document["vectors"]


def signer(keys: dict[str, Any], now: int, **options: Any) -> Signer:
    ring = KeyRing(keys["current"], keys["fallbacks"])
    return Signer(ring, open_store("memory://"), clock=lambda: now, **options)


KEYS, VALID = load("valid.json")
_, REFUSED = load("refused.json")


@pytest.mark.parametrize("vector", VALID, ids=[vector["name"] for vector in VALID])
def test_it_verifies_for_ever(vector: dict[str, Any]) -> None:
    """With exactly the claims that it was made with."""
    demands = {name: vector[name] for name in DEMANDS if name in vector}
    verifier = signer(KEYS, vector["now"], max_ttl=LONGEST_TTL)
    if gen := vector["claims"].get("gen"):
        # Its list has given out that generation.
        verifier._core.required_store().advance("sub:nobody", gen, 1)
    claims = verifier.validate(vector["token"], purpose=vector["purpose"], **demands)
    assert json.loads(msgspec.json.encode(claims)) == vector["claims"]


@pytest.mark.parametrize("vector", REFUSED, ids=[vector["name"] for vector in REFUSED])
def test_it_is_refused_for_ever(vector: dict[str, Any]) -> None:
    """With the very code, and a message that does not hold the token."""
    demands = {name: vector[name] for name in DEMANDS if name in vector}
    with pytest.raises(TokenError) as caught:
        signer(KEYS, vector["now"]).validate(vector["token"], purpose=vector["purpose"], **demands)
    assert caught.value.code == vector["code"]
    assert vector["token"] not in str(caught.value) or len(vector["token"]) < 10


DERIVED = json.loads((ROOT / "tests" / "vectors" / "derived.json").read_text())


@pytest.mark.parametrize("vector", DERIVED["purpose_keys"], ids=lambda vector: str(vector["purpose"]))
def test_an_exported_key_stays_what_it_is(vector: dict[str, str]) -> None:
    """Verifiers elsewhere hold it."""
    assert Signer(DERIVED["key"]).purpose_key(vector["purpose"]) == vector["text"]


@pytest.mark.parametrize("vector", DERIVED["codes"], ids=lambda vector: str(vector["code"]))
def test_a_code_stays_what_it_is(vector: dict[str, str]) -> None:
    """It may already have been sent."""
    assert Key(DERIVED["key"]).code(vector["jti"], "signer:code:" + vector["purpose"]) == vector["code"]


@pytest.mark.parametrize("vector", DERIVED["successors"], ids=lambda vector: str(vector["jti"]))
def test_a_successor_stays_what_it_is(vector: dict[str, Any]) -> None:
    """A retry may reach another version of the program."""
    times = iter([vector["iat"], vector["rotated_at"]])
    now = [next(times)]
    rotating = Signer(DERIVED["key"], open_store("memory://"), clock=lambda: now[0])
    claims = msgspec.convert(vector["claims"], Claims)
    token = rotating._core.codec.encode(claims, vector["iat"])
    now[0] = next(times)
    successor = rotating.rotate(token, purpose=claims.purpose).claims
    for name in ("jti", "exp", "sid", "auth_time"):
        assert getattr(successor, name) == vector[name]


class TestTheVerifierOfTheGuide:
    """A verifier that is written from the guide alone."""

    def verdict(self, vector: dict[str, Any]) -> bool:
        names: dict[str, Any] = {}
        for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL):
            if "def verified" in block:
                exec(block.partition("\n\n\nclaims = ")[0], names)
        for secret in (KEYS["current"], *KEYS["fallbacks"]):
            try:
                names["verified"](vector["token"], secret.encode(), vector["purpose"], vector["now"])
            except ValueError:
                continue
            return True
        return False

    @pytest.mark.parametrize("vector", VALID, ids=[vector["name"] for vector in VALID])
    def test_it_verifies_what_is_valid(self, vector: dict[str, Any]) -> None:
        """But for those that live longer than the longest life by default."""
        is_too_long = (
            vector["now"] >= vector["claims"].get("auth_time", vector["claims"]["iat"]) + 90 * 24 * 3600
        )
        assert self.verdict(vector) != is_too_long

    @pytest.mark.parametrize("vector", REFUSED, ids=[vector["name"] for vector in REFUSED])
    def test_it_refuses_what_is_refused(self, vector: dict[str, Any]) -> None:
        """With ValueError and no other error; audience, scope and binding are not its part."""
        others = {"token_audience_wrong", "token_scope_insufficient", "token_binding_wrong"}
        assert self.verdict(vector) == (vector["code"] in others)
