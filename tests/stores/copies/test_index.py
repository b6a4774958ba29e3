"""The ids of a list, in memory."""

from typing import Any

import pytest

from signer.stores.contract import Row
from signer.stores.copies.index import NEVER, Index
from signer.tokens.claims import Claims

EXP = 1_900_000_000


def token(number: int = 0, **claims: Any) -> Claims:
    return Claims(**{"jti": f"{number:022}", "exp": EXP, "purpose": "access", **claims})


def test_a_long_one_is_in_small_parts() -> None:
    """None of them delays the process when it grows or is freed."""
    index = Index()
    for number in range(100_000):
        index.add(Row(f"access/{number:022}", EXP))
        index.add(Row(f"sub:{number}", EXP, generation=1))
    assert len(index) == 200_000
    assert sum(map(len, index.parts)) == 200_000
    assert max(map(len, index.parts)) < 200
    assert not any(index.is_clear(token(number, gen=1), EXP) for number in range(0, 100_000, 1000))
    assert not index.is_clear(token(200_000, sub="99999"), EXP)
    assert index.is_clear(token(200_000, sub="100000"), EXP)


def test_what_is_noted_twice_counts_once() -> None:
    """The later generation stays."""
    index = Index()
    for generation in (5, 7, 6):
        index.add(Row("access/a", EXP))
        index.add(Row("sub:a", EXP, generation=generation))
    assert len(index) == 2
    assert not index.is_clear(token(sub="a", gen=6), EXP)
    assert index.is_clear(token(sub="a", gen=7), EXP)


@pytest.mark.parametrize(
    ("group", "member"),
    [
        ("jti:x", {"jti": "x"}),
        ("sub:x", {"sub": "x"}),
        ("sub:", {"sub": ""}),
        ("sid:x", {"sid": "x"}),
        ("client_id:x", {"client_id": "x"}),
        ("chain:access/c/x", {"client_id": "c", "sid": "x"}),
    ],
)
def test_members_of_a_group_are_not_clear_before_its_generation(group: str, member: dict[str, Any]) -> None:
    """For every kind of group."""
    index = Index()
    index.add(Row(group, EXP, generation=5))
    assert not index.is_clear(token(**member), EXP)
    assert index.is_clear(token(**member, gen=5), EXP)
    assert index.is_clear(token(sub="y", sid="y", client_id="y"), EXP)
    assert not index.is_clear(token(sub="y", gen=6), EXP)  # nobody gave out such a generation


def test_beyond_the_horizon_nothing_is_clear() -> None:
    """Its rows may be gone."""
    assert not Index(EXP + 1).is_clear(token(), EXP)
    assert not Index(NEVER).is_clear(token(), EXP)
    assert Index(EXP).is_clear(token(), EXP)


@pytest.mark.parametrize("claim", ["jti", "sid", "client_id"])
def test_an_id_with_a_slash_is_looked_up(claim: str) -> None:
    """It cannot be told from the end of another name in the list."""
    index = Index()
    index.add(Row("sub:other", EXP, generation=1))
    assert not index.is_clear(token(gen=1, **dict[str, Any]({claim: "a/b"})), EXP)
