"""A bell that all processes of a machine hear: a small file beside the list, whose content is another one
after each ring.

Whoever has changed the list rings it before saying so, and whoever keeps a copy reads it before each use.
That is a system call, 0.4 microseconds, where asking SQLite (`PRAGMA data_version`) takes two. A mapping of
the file would take a tenth of it, but a file can be cut short at any time (a full disk, a crash, a hand), and
SIGBUS ends a process that looks at what is gone.

The content: eight random bytes, and the count of changes that the list had when it was rung, little-endian.
What is compared is all of it: the count alone could come back, where a ring is late. An older version of this
package writes and compares the eight random bytes alone.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from ...files import sync_file

#: Bytes of the content. What is shorter tells nothing, and is mended by the next ring.
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
        """The count of changes that it was last rung for; -1 where that is not known.

        Raises:
            As read.
        """
        # Read in the middle of a ring, it may be of neither count. Then that ring is under way, and another
        # one is not needed.
        return count_in(self.read())

    def ring(self, changes: int) -> None:
        """Let everybody know of the list's first so many changes. However many ring at once, and in whatever
        order: whoever looks at the list after the last of them sees what all of them did.

        Raises:
            OSError, ValueError: the file cannot be written, or was closed.
        """
        content = secrets.token_bytes(_RANDOM) + changes.to_bytes(SIZE - _RANDOM, "little")
        if os.pwrite(self._file.fileno(), content, 0) != SIZE:
            raise OSError("the bell cannot be written")

    def close(self) -> None:
        """Let go of the file. Again is a no-op."""
        self._file.close()


def count_in(content: bytes) -> int:
    """The count of changes that a bell of this content was rung for; -1 where it is too short to tell."""
    return int.from_bytes(content[_RANDOM:], "little") if len(content) == SIZE else -1


def make(path: Path) -> bool:
    """Make the file of a bell where there is none; return whether it was made.

    Raises:
        OSError: it cannot be made.
    """
    if path.exists():
        return False
    # Made whole under another name, and on the disk before it is linked: nobody finds it too short.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_RANDOM) + bytes(SIZE - _RANDOM))
        sync_file(draft)
        with suppress(FileExistsError):
            os.link(draft, path)
            return True
        return False
    finally:
        draft.unlink(missing_ok=True)


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    # Without a note of when it was read, which takes a fifth of the time. Linux alone has that, for owners.
    with suppress(PermissionError):
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    return os.open(path, flags)
