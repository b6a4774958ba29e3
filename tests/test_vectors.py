"""Frozen vectors: what once verified verifies for ever, what was refused stays refused."""

import json
from typing import Any

import msgspec
import pytest
from service import ROOT

from signer import KeyRing, Signer, TokenError, open_store

LONGEST_TTL = 10 * 366 * 24 * 3600
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
    """With the very claims it was made with."""
    demands = {name: vector[name] for name in DEMANDS if name in vector}
    verifier = signer(KEYS, vector["now"], max_ttl=LONGEST_TTL)
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
