"""Numbers that processes share."""

from pathlib import Path

import pytest

from signer.web.telemetry.cells import CAPACITY, NOW, Cells


def test_what_one_counts_another_reads(tmp_path: Path) -> None:
    """Sums over processes that count at this moment, and over those that have ended."""
    one, other = Cells(tmp_path), Cells(tmp_path)
    for cells, more in ((one, 1.0), (other, 2.5)):
        cells.values[cells.place(("a", "x"))] += more
    assert one.read()["a", "x"] == other.read()["a", "x"] == 3.5
    assert len(list(tmp_path.glob("*.numbers"))) == 2


def test_alone_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder there are no files, and every process counts for itself."""
    monkeypatch.chdir(tmp_path)
    one, other = Cells(), Cells()
    one.values[one.place(("a",))] += 1
    assert (one.read()["a",], ("a",) in other.read()) == (1, False)
    assert not list(tmp_path.iterdir())


def test_names_follow_one_another(tmp_path: Path) -> None:
    """The place of several names is that of the first."""
    cells = Cells(tmp_path)
    place = cells.place(("h", "0"), ("h", "1"), ("h", "2"))
    for offset in range(3):
        cells.values[place + offset] += offset
    assert [cells.read()["h", str(number)] for number in range(3)] == [0, 1, 2]
    assert cells.place(("h", "0"), ("h", "1"), ("h", "2")) == place


def test_a_name_cut_short_by_a_kill_is_none(tmp_path: Path) -> None:
    """The next process in that slot writes its own name in that place."""
    first = Cells(tmp_path)
    first.values[first.place(("a",))] += 1
    with (tmp_path / "0.names").open("ab") as file:
        file.write(b'["b", "cut')
    assert first.read()["a",] == 1
    (tmp_path / "0.lock").unlink()  # as if its process had ended
    second = Cells(tmp_path)
    second.values[second.place(("c",))] += 5
    second.values[second.place(("a",))] += 1
    assert {name: number for name, number in second.read().items() if number} == {("a",): 2, ("c",): 5}


def test_what_is_so_now_ends_with_its_process(tmp_path: Path) -> None:
    """And the next process in that slot begins at 0."""
    first = Cells(tmp_path)
    place = first.place((NOW, "waiting"))
    first.values[place] += 3
    assert first.read()[NOW, "waiting"] == 3
    (tmp_path / "0.lock").unlink()
    assert Cells(tmp_path).read()[NOW, "waiting"] == 0


def test_more_names_than_there_is_room_for_are_counted_together(tmp_path: Path) -> None:
    """No other number changes."""
    cells = Cells(tmp_path)
    places = [cells.place((f"name {number}",)) for number in range(CAPACITY + 100)]
    for place in places:
        cells.values[place] += 1
    read = cells.read()
    assert read["overflow",] == 101
    assert all(read[f"name {number}",] == 1 for number in range(CAPACITY - 1))
