"""What may be asked of a new token."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from support.service import KEY

from signer import Signer
from signer.errors import RequestInvalid
from signer.tokens.values import IssueRequest

REFUSED: list[tuple[str, Any]] = [
    ("ttl", True),
    ("ttl", 0),
    ("ttl", -1),
    ("ttl", 60.0),
    ("ttl", math.nan),
    ("ttl", "60"),
    ("ttl", 10**5000),
    ("ttl", 90 * 24 * 3600 + 1),
    ("sub", ""),
    ("sub", "a\n"),
    ("sub", "a\x00"),
    ("sub", "a\u2028b"),
    ("sub", "\ud800"),
    ("sub", "x" * 256),
    ("sub", 1),
    ("purpose", ""),
    ("purpose", "kid"),
    ("purpose", "a b"),
    ("purpose", "access\n"),
    ("purpose", "x" * 65),
    ("scope", ""),
    ("scope", " read"),
    ("scope", "read  write"),
    ("scope", 'a"b'),
    ("scope", ["read"]),
    ("aud", "a b"),
    ("sid", "a/b"),
    ("client_id", "a:b"),
    ("max_uses", 0),
    ("max_uses", True),
    ("max_uses", 10**10),
    ("bind", ""),
    ("bind", "\udfff"),
    ("bind", b"bytes"),
    ("data", math.nan),
    ("data", math.inf),
    ("data", {"a": [-math.inf]}),
    ("data", {1: 2}),
    ("data", 2**63),
    ("data", b"x"),
    ("data", {1, 2}),
    ("data", (1, 2)),
    ("data", Decimal(1)),
    ("data", datetime.now(UTC)),
    ("data", "x" * 5000),
    ("data", "\ud800"),
    ("data", {"\udfff": 1}),
    ("data", ["a", {"b": "\ud800"}]),
]


class Text(str):
    """Not quite a str."""

    __slots__ = ()


@pytest.mark.parametrize(("field", "value"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_is_refused_by_name(signer: Signer, field: str, value: Any) -> None:
    """Every refusal is a RequestInvalid that names the argument and does not repeat its value."""
    with pytest.raises(RequestInvalid) as caught:
        signer.issue(**{field: value})
    assert caught.value.field == field
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("request_", [{"sub": Text("a")}, {"data": Text("a")}, {"data": {"a": [Text("b")]}}])
def test_a_type_of_the_callers_own_is_refused(signer: Signer, request_: dict[str, Any]) -> None:
    """As an error of ours that says what to pass."""
    with pytest.raises(RequestInvalid, match="plain str"):
        signer.issue(**request_)


@pytest.mark.parametrize(
    "request_", [{"bind": "hunter2\ud800"}, {"data": "hunter2\ud800"}, {"sub": "hunter2\ud800"}]
)
def test_no_error_keeps_what_was_given(signer: Signer, request_: dict[str, Any]) -> None:
    """Nor does its context, which error trackers print."""
    with pytest.raises(RequestInvalid) as caught:
        signer.issue(**request_)
    assert "hunter2" not in f"{caught.value!r}{caught.value.__context__!r}{caught.value.__cause__!r}"


def test_data_nested_too_deep_is_refused(signer: Signer) -> None:
    """Stock itsdangerous could not read it back."""
    data: Any = 1
    for _ in range(32):
        data = [data]
    token = signer.issue(data=data)
    assert signer.validate(token).data == data
    for _ in range(100_000):
        data = [data]
    with pytest.raises(RequestInvalid):
        signer.issue(data=data)


@pytest.mark.parametrize(
    "data", [0, -(2**63), 2**63 - 1, 1.5, "", "é😀\u2028", [], {}, {"": [None, True]}, False]
)
def test_json_comes_back_as_it_went_in(signer: Signer, data: Any) -> None:
    """Every JSON value is carried unchanged, type included."""
    back = signer.validate(signer.issue(data=data)).data
    assert (back, type(back)) == (data, type(data))


def test_a_request_shows_none_of_its_values() -> None:
    """`bind` is often a password hash."""
    assert "hash" not in repr(IssueRequest(bind="hash"))


@pytest.mark.parametrize("name", ["ttl", "max_ttl", "leeway"])
@pytest.mark.parametrize("value", [-1, 1.0, math.nan, True, "10", 2**70])
def test_a_signer_takes_only_whole_seconds(name: str, value: Any) -> None:
    """A leeway of NaN would let every comparison of the time rule pass."""
    with pytest.raises(RequestInvalid, match=name):
        Signer(KEY, **{name: value})
