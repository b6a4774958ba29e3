"""The rules that need neither key nor list."""

import math

import pytest

from signer.errors import TokenAudienceWrong, TokenExpired, TokenNotYetValid, TokenScopeInsufficient
from signer.tokens.claims import Claims, check_audience, check_scope, check_time

NOW = 1_800_000_000
YEAR = 366 * 24 * 60 * 60


def claims(iat: int = NOW, exp: int = NOW + 60, **others: str) -> Claims:
    return Claims(jti="x" * 22, iat=iat, exp=exp, purpose="access", **others)  # type: ignore[arg-type]


@pytest.mark.parametrize("now", [NOW - 10, NOW, NOW + 59, NOW + 59.999])
def test_a_token_is_good_from_leeway_before_iat_until_just_before_exp(now: float) -> None:
    """iat - leeway <= now < exp."""
    check_time(claims(), now, leeway=10, max_age=YEAR)


@pytest.mark.parametrize(
    ("now", "error"),
    [(NOW - 10.001, TokenNotYetValid), (NOW + 60, TokenExpired), (math.nan, TokenNotYetValid)],
)
def test_a_token_is_refused_outside_its_time(now: float, error: type[Exception]) -> None:
    """A clock that reads NaN is inside no interval."""
    with pytest.raises(error):
        check_time(claims(), now, leeway=10, max_age=YEAR)


def test_max_age_tightens_and_never_prolongs() -> None:
    """The earlier of exp and iat + max_age ends the life."""
    check_time(claims(), NOW + 29, leeway=10, max_age=30)
    with pytest.raises(TokenExpired):
        check_time(claims(), NOW + 30, leeway=10, max_age=30)
    with pytest.raises(TokenExpired):
        check_time(claims(), NOW + 60, leeway=10, max_age=YEAR)


@pytest.mark.parametrize(("of_token", "asked"), [("a", None), (None, "a"), ("a", "b"), ("a", "A"), ("a", "")])
def test_an_audience_must_be_named_by_both_sides(of_token: str | None, asked: str | None) -> None:
    """A token for somebody is not for anybody, and a token for anybody is not for somebody."""
    with pytest.raises(TokenAudienceWrong):
        check_audience(Claims(jti="", exp=0, purpose="", aud=of_token), asked)


def test_every_word_of_a_scope_must_be_held() -> None:
    """Scopes are sets of words, not prefixes or substrings."""
    held = claims(scope="read write")
    check_scope(held, "write read")
    for asked in ("read admin", "rea", "read:all"):
        with pytest.raises(TokenScopeInsufficient):
            check_scope(held, asked)
    with pytest.raises(TokenScopeInsufficient):
        check_scope(claims(), "read")
