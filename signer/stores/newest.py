"""The newest moment of a list that was seen here. It shows when a list went back to an older state.

Such a list lacks revocations. The list itself cannot know that, and a process that has just started has seen
nothing to compare it with. So the processes of one node keep what any of them saw in a file that outlives
each of them, and all of them read it.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from time import monotonic, sleep
from typing import Final, NamedTuple
from zlib import crc32

from ..errors import StoreError
from ..policy import LOG_SIZE
from .contract import Point

#: Its name in the node's folder.
FILE: Final = "newest"
#: Seconds that one process waits until another has noted what it saw. That takes microseconds, unless the
#: other is stopped meanwhile.
_PATIENCE: Final = 1.0
#: How often a process reads a record that another one is writing.
_ATTEMPTS: Final = 20


class Moment(NamedTuple):
    """A moment of a list's history, as contract.Point."""

    number: int
    mark: int
    #: The list's own name, if its engine has one.
    name: str = ""
    #: Whether a list was found since that never was at this moment.
    is_missed: bool = False


#: No list was seen yet, and any list is accepted.
NOTHING: Final = Moment(-1, 0)


def follows(point: Point, seen: Moment, mark: int | None) -> bool:
    """Whether a list at `point` is the one that was at `seen`; `mark` is the mark of that number in its log.

    If the log has forgotten that number, nothing can be compared. Then the list is accepted, unless it was
    refused
    before: an older list may have been changed so often since that its log has forgotten the number, too.
    """
    if seen == NOTHING:
        return True
    if point.number <= seen.number:
        return point == seen[:2]
    if mark is not None:
        return mark == seen.mark
    return not seen.is_missed and point.number - seen.number >= LOG_SIZE


class Newest:
    """What this process has seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moment = NOTHING

    def get(self) -> Moment:
        """The newest moment that was seen. Get it before asking the list, because other processes go on
        meanwhile.

        Raises:
            StoreError: it cannot be read.
        """
        return self._moment

    def see(self, moment: Moment) -> None:
        """Note a moment of a list that was found to follow the one before. When this returns, no process of
        the node accepts an older list.

        Raises:
            StoreError: it cannot be noted.
        """
        if _is_news(moment, self.get()):
            with self._alone():
                if _is_news(moment, self.get()):
                    self._put(moment)

    def miss(self, seen: Moment) -> None:
        """Note that a list was found that does not follow `seen`. Raises as `see`."""
        if not seen.is_missed:
            with self._alone():
                if self.get() == seen:
                    self._put(seen._replace(is_missed=True))

    def close(self) -> None:
        """Close the file. Repeating it changes nothing."""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock:
            yield

    def _put(self, moment: Moment) -> None:
        self._moment = moment


class NewestOfNode(Newest):
    """What all processes have seen that name the same folder.

    Raises:
        StoreError: the file cannot be made in it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / FILE
        #: The record that was read last, and the moment in it. It begins with an empty record, which is never
        #: read. One tuple, because threads replace it while others read it.
        self._read = b"", NOTHING
        with self._translated():
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(descriptor, "r+b", buffering=0)

    def get(self) -> Moment:
        known, moment = self._read
        try:
            record = os.pread(self._file.fileno(), _RECORD.size, 0)
        except (OSError, ValueError) as error:
            raise self._refusal(error) from error
        return moment if record == known else self._news()

    def close(self) -> None:
        self._file.close()

    def _news(self) -> Moment:
        with self._translated():
            for attempt in range(_ATTEMPTS):
                record = os.pread(self._file.fileno(), _RECORD.size, 0)
                if moment := _unpacked(record):
                    self._read = record, moment
                    return moment
                sleep(0.0001 * attempt)
            raise ValueError("it is damaged")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # Two locks, because flock works between processes, and not between the threads of one.
        with super()._alone(), self._translated():
            latest = monotonic() + _PATIENCE
            while not _is_locked(self._file.fileno()):
                if monotonic() > latest:
                    raise StoreError("A process of this node hangs while it notes what it saw of the list.")
                sleep(0.0005)
            if not os.fstat(self._file.fileno()).st_nlink:
                raise ValueError("it was removed, and processes that start now do not see it")
            try:
                yield
            finally:
                fcntl.flock(self._file.fileno(), fcntl.LOCK_UN)

    def _put(self, moment: Moment) -> None:
        record = _packed(moment)
        os.pwrite(self._file.fileno(), record, 0)
        self._read = record, moment

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> StoreError:
        return StoreError(f"What this node saw of the list cannot be kept in {self._path}: {error}.")


def _is_news(moment: Moment, known: Moment) -> bool:
    # The moment of another list is not kept: that list was opened before the node saw this one, and is
    # refused next.
    is_same_list = known == NOTHING or moment.name == known.name
    return is_same_list and (moment.number, not moment.is_missed) > (known.number, not known.is_missed)


#: Number, mark, name, is_missed; and a checksum, because a reader may see a record that is half written.
_RECORD: Final = Struct("<qq32s?I")


def _packed(moment: Moment) -> bytes:
    number, mark, name, is_missed = moment
    record = _RECORD.pack(number, mark, name.encode(), is_missed, 0)
    return record[:-4] + crc32(record[:-4]).to_bytes(4, "little")


def _unpacked(record: bytes) -> Moment | None:
    if len(record) < _RECORD.size or crc32(record[:-4]).to_bytes(4, "little") != record[-4:]:
        return None
    number, mark, name, is_missed, _ = _RECORD.unpack(record)
    return Moment(number, mark, name.rstrip(b"\0").decode(), is_missed)


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
