"""Numbers that one process counts and other processes can read, even after it has died. They are an array of
floats in a file that is mapped into memory, where counting takes a tenth of a microsecond.

Each file belongs to a slot. A worker takes a free slot and continues with the numbers of the worker that had
it before. Otherwise every worker that dies would leave another file.
"""

import fcntl
import json
import mmap
import os
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

#: The name of a number, such as ("signer_events", "issue", "ok", "kHd3aP").
NumberName = tuple[str, ...]

#: The first word of the names of numbers that describe the present, and are void once their process has died.
NOW: Final = "now"
#: How many numbers a process can have. A service has some hundreds.
CAPACITY: Final = 8192
_BYTES: Final = 8 * CAPACITY
#: Counts everything for which no place is left.
_OVERFLOW: Final[NumberName] = ("overflow",)


class Cells:
    """The numbers of this process.

    Args:
        folder: where other processes can read them; None for no others.

    Raises:
        OSError, ValueError: the folder cannot be used.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._places: dict[NumberName, int] = {}
        self._names: int | None = None
        memory: mmap.mmap | bytearray = bytearray(_BYTES)
        if folder is not None:
            slot = _free_slot(folder)
            memory = _mapped(folder / f"{slot}.numbers")
            self._names, self._places = _names(folder / f"{slot}.names")
        #: The numbers by their place.
        self.values: Final = memoryview(memory).cast("d")
        self.place(_OVERFLOW)
        for name, place in self._places.items():
            if name[0] == NOW:
                self.values[place] = 0.0

    def place(self, *names: NumberName) -> int:
        """The place of the first of these names; the others follow it in order."""
        if names[0] not in self._places:
            if len(self._places) + len(names) > CAPACITY:
                return self._places[_OVERFLOW]
            if self._names is not None:
                os.write(self._names, b"".join(json.dumps(name).encode() + b"\n" for name in names))
            for name in names:
                self._places[name] = len(self._places)
        return self._places[names[0]]

    def read(self) -> dict[NumberName, float]:
        """All numbers by their name. If processes share a folder: the sums over all of them."""
        if self._folder is None:
            return {name: self.values[place] for name, place in list(self._places.items())}
        sums: defaultdict[NumberName, float] = defaultdict(float)
        for name, number in _shared(self._folder):
            sums[name] += number
        return sums


def _shared(folder: Path) -> Iterator[tuple[NumberName, float]]:
    for path in folder.glob("*.names"):
        values = memoryview(path.with_suffix(".numbers").read_bytes()).cast("d")
        is_alive = _is_taken(path.with_suffix(".lock"))
        for place, name in enumerate(_lines(path.read_bytes())):
            if is_alive or name[0] != NOW:
                yield name, values[place]


def _lines(text: bytes) -> list[NumberName]:
    # The last line is empty, or incomplete because its process was killed while it wrote.
    return [tuple(json.loads(line)) for line in text.split(b"\n")[:-1]]


def _names(path: Path) -> tuple[int, dict[NumberName, int]]:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    text = path.read_bytes()
    os.ftruncate(descriptor, text.rfind(b"\n") + 1)
    return descriptor, {name: place for place, name in enumerate(_lines(text))}


def _mapped(path: Path) -> mmap.mmap:
    with path.open("a+b") as file:
        # Every byte is written, because on a full disk, writing to a hole would kill the process (SIGBUS).
        file.write(bytes(max(0, _BYTES - file.tell())))
        file.flush()
        return mmap.mmap(file.fileno(), _BYTES)


def _free_slot(folder: Path) -> int:
    return next(slot for slot in count() if _taken(folder / f"{slot}.lock") is not None)


def _is_taken(lock: Path) -> bool:
    descriptor = _taken(lock)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


def _taken(lock: Path) -> int | None:
    # The system releases the lock when the process ends in any way; the descriptor stays open until then.
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
