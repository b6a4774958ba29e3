"""What those who keep a copy read: Store.snapshot(), its chunks and its changes."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from signer import Store, open_store
from signer.errors import StoreError
from signer.stores.contract import Changes, Point, Row

JTI, OTHER = "a" * 22, "b" * 22
EXP = 1_800_000_000
#: Those that tell; a new kind is one more line here.
KINDS = ["memory", "sqlite", "redis", "postgres"]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/list.db"}
    url = urls.get(request.param) or request.getfixturevalue(f"{request.param}_url")
    opened = open_store(url)
    yield opened
    opened.close()


def pages(store: Store, limit: int, between: Callable[[int], object] = lambda number: None) -> list[Row]:
    """All chunks, each from a snapshot of its own. Their keys pass through JSON."""
    rows: list[Row] = []
    key: Any = None
    for number in range(10_000):
        with store.snapshot() as snapshot:
            page = snapshot.chunk(key, limit)
        rows += page.rows
        key = json.loads(json.dumps(page.next))
        if key is None:
            return rows
        between(number)
    raise AssertionError("it never ends")


def point(store: Store) -> Point:
    with store.snapshot() as snapshot:
        return snapshot.point


def log(store: Store, after: Point, limit: int = 1000) -> Changes | None:
    with store.snapshot() as snapshot:
        return snapshot.changes(after, limit)


def test_pages_hold_rows_and_groups_as_they_are(store: Store) -> None:
    """With everything that is known about them."""
    store.revoke(JTI, EXP)
    store.use(OTHER, EXP, 3)
    store.use(OTHER, EXP, 3)
    store.rotate("p/with/slashes", EXP + 9999, 77)
    store.advance("sub:alice/é 1", 1_700_000_000_000, 60)
    assert sorted(pages(store, 100)) == sorted(
        [
            Row(JTI, EXP, revoked=True),
            Row(OTHER, EXP, uses=2),
            Row("p/with/slashes", EXP + 9999, rotated_at=77),
            Row("sub:alice/é 1", 1_700_000_060, generation=1_700_000_000_000),
        ]
    )


def test_an_empty_list_has_empty_pages(store: Store) -> None:
    """And the end."""
    assert pages(store, 10) == []


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_pages_leave_nothing_out(store: Store, limit: int) -> None:
    """However small the chunks are, and however the expiries are spread over time."""
    names = {(f"{number:022d}", EXP + number % 7 * 5000) for number in range(200)}
    for name, exp in names:
        store.revoke(name, exp)
    for number in range(50):
        store.advance(f"sub:{number}", 1, EXP)
    rows = pages(store, limit)
    assert {(row.name, row.expires_at) for row in rows if not row.generation} == names
    assert {row.name for row in rows if row.generation} == {f"sub:{number}" for number in range(50)}


def test_pages_are_of_about_the_size_asked_for(store: Store) -> None:
    """So that no step takes long."""
    for number in range(1500):
        store.revoke(f"{number:060d}-long-enough-for-a-big-hash", EXP)
    with store.snapshot() as snapshot:
        assert 0 < len(snapshot.chunk(None, 100).rows) < 600


def test_pages_over_several_snapshots_hold_what_stayed(store: Store) -> None:
    """While other processes write and purge."""
    for number in range(700):
        store.revoke(f"{number:060d}-long-enough-for-a-big-hash", EXP + number % 3 * 4000)
        store.revoke(f"{number:022d}", 1000)

    def meanwhile(number: int) -> None:
        store.revoke(f"new-{number}-{'x' * 60}", EXP)
        store.purge(1001, 50)

    rows = {row.name for row in pages(store, 20, meanwhile)}
    assert {f"{number:060d}-long-enough-for-a-big-hash" for number in range(700)} <= rows


def test_a_snapshot_tells_the_horizon(store: Store) -> None:
    """As a look-up does."""
    store.purge(1234)
    with store.snapshot() as snapshot:
        assert snapshot.horizon == 1234


def test_the_log_tells_what_changed_oldest_first(store: Store) -> None:
    """Each row as it is now, and once."""
    store.revoke("before", EXP)
    known = point(store)
    store.use(JTI, EXP, 5)
    store.rotate(OTHER, EXP, 9)
    generation = store.advance("sub:a", 1000, EXP)
    store.use(JTI, EXP, 5)
    told = log(store, known)
    assert told
    assert list(dict.fromkeys(told.rows)) == [
        Row(JTI, EXP, uses=2),
        Row(OTHER, EXP, rotated_at=9),
        Row("sub:a", EXP + 1, generation=generation),
    ]
    assert told.end == point(store) != known


def test_the_log_ends_with_nothing_new(store: Store) -> None:
    """At the newest change."""
    store.revoke(JTI, EXP)
    assert log(store, point(store)) == Changes([], point(store))


def test_the_log_is_told_in_parts(store: Store) -> None:
    """Each part continues where the previous one ended."""
    known = point(store)
    for number in range(25):
        store.revoke(str(number), EXP)
    names: list[str] = []
    while known != point(store):
        told = log(store, known, 10)
        assert told
        assert len(told.rows) <= 10
        names += [row.name for row in told.rows]
        known = told.end
    assert names == [str(number) for number in range(25)]


def test_what_was_purged_is_left_out_of_the_log(store: Store) -> None:
    """The moment after it is given nevertheless."""
    known = point(store)
    store.revoke(JTI, 100)
    store.revoke(OTHER, EXP)
    store.purge(101)
    store.ping()
    told = log(store, known)
    assert told
    assert told.rows == [Row(OTHER, EXP, revoked=True)]
    assert told.end == point(store)


def test_a_moment_of_another_history_is_in_no_log(store: Store) -> None:
    """The same number with another mark, and a number that does not exist yet."""
    store.revoke(JTI, EXP)
    number, mark = point(store)
    store.revoke(OTHER, EXP)
    for strange in (Point(number, mark ^ 1), Point(number + 1, mark), Point(number + 10, mark)):
        assert log(store, strange) is None


def test_every_change_has_a_mark_of_its_own(store: Store) -> None:
    """It cannot be predicted."""
    points = []
    for number in range(20):
        store.revoke(str(number), EXP)
        points.append(point(store))
    assert len({mark for _, mark in points}) == 20
    assert [number for number, _ in points] == sorted({number for number, _ in points})


def test_a_closed_list_tells_nothing(store: Store) -> None:
    """And a snapshot of it does not either."""
    store.close()
    with pytest.raises(StoreError), store.snapshot() as snapshot:
        snapshot.chunk(None, 10)


def test_what_was_not_made_is_not_told(store: Store) -> None:
    """Of changes that were to be made together, if the list can do so."""
    can = store.together() is not None
    start = point(store)
    with suppress(ZeroDivisionError), store.together() or nullcontext():
        store.revoke(JTI, EXP)
        store.advance("sub:a", 1, EXP)
        raise ZeroDivisionError
    assert (point(store) == start) == can
    assert (pages(store, 10) == []) == can
