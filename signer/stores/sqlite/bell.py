"""The bell of a list in SQLite: a small file beside it, whose content is different after each ring.

A process that has changed the list rings the bell before it reports the change as made. A process that keeps
an index reads the bell before each use of it. That is one system call of 0.4 microseconds; to ask SQLite
(`PRAGMA data_version`) takes two. Mapping the file into memory would take a tenth of it, but a file can be
cut short at any time (by a full disk, a crash, a person), and SIGBUS ends a process that reads what is gone.

The content: eight random bytes, then the number of changes in the list at the ring, little-endian. All of it
is compared, because a number alone could come back if a ring is late. Older versions of this package write
and compare the eight random bytes alone.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from ...files import make_whole

#: Bytes of the content. A shorter content says nothing, and the next ring repairs it.
SIZE: Final = 16
_RANDOM: Final = 8


class Bell:
    """The bell in the file at `path`.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(_opened(path), "r+b", buffering=0)  # noqa: SIM115 - closed by close()
        #: The descriptor from which to read SIZE bytes.
        self.descriptor: Final = self._file.fileno()

    def read(self) -> bytes:
        """The content.

        Raises:
            OSError, ValueError: the file cannot be read, or was closed.
        """
        return os.pread(self._file.fileno(), SIZE, 0)

    def rung_for(self) -> int:
        """The number of changes that it was last rung for; -1 if that is not known.

        Raises:
            As read.
        """
        # If it is read in the middle of a ring, it may be neither number. Then that ring is under way, and no
        # other one is needed.
        return count_in(self.read())

    def ring(self, changes: int) -> None:
        """Notify every process of the list's first `changes` changes. Any number of processes may ring at the
        same time and in any order: one that reads the list after the last ring sees all their changes.

        Raises:
            OSError, ValueError: the file cannot be written, or was closed.
        """
        content = secrets.token_bytes(_RANDOM) + changes.to_bytes(SIZE - _RANDOM, "little")
        if os.pwrite(self._file.fileno(), content, 0) != SIZE:
            raise OSError("the bell cannot be written")

    def close(self) -> None:
        """Close the file. Repeating it changes nothing."""
        self._file.close()


def count_in(content: bytes) -> int:
    """The number of changes that a bell with this content was rung for; -1 if the content is too short."""
    return int.from_bytes(content[_RANDOM:], "little") if len(content) == SIZE else -1


def make(path: Path) -> bool:
    """Make the file of a bell if there is none; return whether it was made.

    Raises:
        OSError: it cannot be made.
    """
    # Whole at once, so that no process finds it too short.
    content = secrets.token_bytes(_RANDOM) + bytes(SIZE - _RANDOM)
    return not path.exists() and make_whole(path, lambda draft: draft.write_bytes(content))


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    # Without noting the time of each read, which takes a fifth of the time. Only Linux has this, for the
    # owner.
    with suppress(PermissionError):
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    return os.open(path, flags)
