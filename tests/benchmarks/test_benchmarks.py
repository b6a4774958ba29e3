"""The benchmarks still run. No test checks how fast anything is."""

from contextlib import closing
from pathlib import Path

import pytest
from benchmarks import library
from benchmarks.measuring import once
from benchmarks.peers import SIGNER, STOCK
from benchmarks.report import printed
from benchmarks.targets import table

from signer import open_store


@pytest.mark.slow
def test_the_library_is_measured_beside_stock_itsdangerous(tmp_path: Path) -> None:
    """Some calls of each give a number for each, whatever else is installed."""
    found = library.compare(tmp_path, rounds=2, tokens=3) | library.keys(1, 3) | library.forgeries(1, 3)
    for name in (SIGNER, STOCK):
        for verb in ("issue", "verify"):
            assert found[f"{verb}: {name}"].median > 0
            assert len(found[f"{verb}: {name}"].values) == 2
    rows = table(found)
    assert {"validate, by stock loads", "issue, by stock dumps"} <= {row.what for row in rows}
    assert len(printed(rows).splitlines()) == len(rows) + 2


@pytest.mark.slow
def test_a_lists_share_is_measured(tmp_path: Path) -> None:
    """With a list that was filled without the library, and has the right content."""
    found = library.list_share(tmp_path, rounds=1, sizes=(0, 5), tokens=3)
    assert {"share of a list of 0", "share of a list of 5"} < set(found)
    with closing(open_store(f"sqlite:///{tmp_path}/list-5.db")) as store:
        assert store.count() == 5


def test_what_was_not_measured_has_no_row() -> None:
    """For example without wrk, or without a peer."""
    assert table({}) == []
    assert [row.met for row in table({"burst of 1000, p99": once("ms", 101)})] == [False]
