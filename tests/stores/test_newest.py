"""What the processes of a node have seen of a list."""

import fcntl
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from signer import open_store
from signer.errors import StoreError
from signer.policy import LOG_SIZE
from signer.stores.contract import Point
from signer.stores.newest import FILE, NOTHING, Moment, Newest, NewestOfNode, follows

SEEN = Moment(7, 70)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], NewestOfNode]]:
    """As that of another process, as far as files and locks are concerned."""
    found: list[NewestOfNode] = []

    def open_one() -> NewestOfNode:
        found.append(NewestOfNode(tmp_path))
        return found[-1]

    yield open_one
    for newest in found:
        newest.close()


def test_what_one_process_saw_all_have_seen(opened: Callable[[], NewestOfNode]) -> None:
    """Also by a process that starts later. The highest moment is kept, in whatever order they are seen."""
    one, other = opened(), opened()
    assert one.get() == NOTHING
    one.see(Moment(5, 2**62, "a" * 32))
    other.see(Moment(4, 1, "a" * 32))
    assert one.get() == other.get() == opened().get() == Moment(5, 2**62, "a" * 32)


@pytest.mark.parametrize("node", [False, True])
def test_another_lists_moments_stay_out(tmp_path: Path, node: bool) -> None:
    """A process that opened the other list is refused at its next look-up."""
    with closing(NewestOfNode(tmp_path) if node else Newest()) as newest:
        newest.see(Moment(5, 1, "a"))
        newest.see(Moment(9, 1, "b"))
        assert newest.get() == Moment(5, 1, "a")


def _count_up(folder: Path, first: int, barrier: Barrier) -> None:
    newest = NewestOfNode(folder)
    barrier.wait()
    for number in range(first, 4000, 4):
        newest.see(Moment(number, number**3))
        found = newest.get()
        assert found.number >= number
        assert found.mark == found.number**3
    newest.close()


def test_many_processes_lose_nothing(tmp_path: Path) -> None:
    """Each of four sees every fourth change, and none ever reads a record that is half written."""
    spawned = multiprocessing.get_context("spawn")
    barrier = spawned.Barrier(4)
    processes = [spawned.Process(target=_count_up, args=(tmp_path, first, barrier)) for first in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    with closing(NewestOfNode(tmp_path)) as newest:
        assert newest.get() == Moment(3999, 3999**3)


def test_a_process_that_is_stopped_while_it_notes_stops_nobody(
    opened: Callable[[], NewestOfNode], tmp_path: Path
) -> None:
    """A new moment cannot be noted, so nothing is answered from it. Everything else goes on."""
    newest = opened()
    newest.see(SEEN)
    with (tmp_path / FILE).open("rb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="hangs"):
            newest.see(Moment(8, 80))
        assert newest.get() == SEEN
        newest.see(SEEN)
    newest.see(Moment(8, 80))
    assert opened().get() == Moment(8, 80)


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 53, b"x" * 53])
def test_what_is_damaged_is_not_taken_for_nothing(
    opened: Callable[[], NewestOfNode], tmp_path: Path, damage: bytes
) -> None:
    """Otherwise any list would be accepted."""
    newest = opened()
    newest.see(SEEN)
    (tmp_path / FILE).write_bytes(damage)
    for call in (newest.get, lambda: newest.see(SEEN)):
        with pytest.raises(StoreError, match="damaged"):
            call()
    if damage:
        with pytest.raises(StoreError, match="damaged"):
            opened().get()


def test_a_file_that_was_removed_is_noticed(opened: Callable[[], NewestOfNode], tmp_path: Path) -> None:
    """A process that starts then would make another file, and not see what is noted in this one."""
    newest = opened()
    newest.see(SEEN)
    (tmp_path / FILE).unlink()
    with pytest.raises(StoreError, match="removed"):
        newest.see(Moment(8, 80))


def test_what_cannot_be_kept_is_an_error(opened: Callable[[], NewestOfNode], tmp_path: Path) -> None:
    """There is no folder, or the file was closed."""
    with pytest.raises(StoreError, match="cannot be kept"):
        NewestOfNode(tmp_path / "no")
    with pytest.raises(StoreError, match="cannot be kept"):
        open_store(f"sqlite:///{tmp_path}/list.db", node=tmp_path / "no")
    newest = opened()
    newest.close()
    newest.close()
    for call in (newest.get, lambda: newest.see(SEEN)):
        with pytest.raises(StoreError):
            call()


@pytest.mark.parametrize(
    ("point", "mark", "is_so"),
    [
        (Point(7, 70), None, True),
        (Point(7, 71), None, False),
        (Point(6, 60), None, False),
        (Point(6, 70), None, False),
        (Point(8, 80), 70, True),
        (Point(8, 80), 71, False),
        (Point(8, 80), None, False),
        (Point(6 + LOG_SIZE, 80), None, False),
        (Point(7 + LOG_SIZE, 80), None, True),
        (Point(7 + LOG_SIZE, 80), 71, False),
    ],
)
def test_a_list_is_told_from_an_older_one_and_from_another(
    point: Point,
    mark: int | None,
    is_so: bool,
) -> None:
    """By what its log says about the newest moment that was seen. If the log has forgotten that, it is
    accepted."""
    assert follows(point, SEEN, mark) is is_so
    assert follows(point, NOTHING, mark)


@pytest.mark.parametrize("node", [False, True])
def test_a_list_that_was_refused_is_not_believed_for_its_changes(tmp_path: Path, node: bool) -> None:
    """However many there are, because its log may have forgotten that moment. The newer list ends the
    refusal."""
    far = Point(7 + LOG_SIZE, 80)
    with closing(NewestOfNode(tmp_path) if node else Newest()) as newest:
        newest.see(SEEN)
        newest.miss(newest.get())
        assert not follows(far, newest.get(), None)
        newest.see(SEEN)
        assert follows(far, newest.get(), None)


def test_what_was_refused_a_moment_ago_is_no_matter(tmp_path: Path) -> None:
    """Another process has seen more since then."""
    newest: Newest = NewestOfNode(tmp_path)
    newest.see(SEEN)
    newest.see(Moment(8, 80))
    newest.miss(SEEN)
    assert newest.get() == Moment(8, 80)
    newest.close()
