"""File system functions for the revocation list, the audit trail and the log."""

import os
import secrets
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Return when the names of the files in this directory would survive a power failure.

    Raises:
        OSError.
    """
    sync_file(directory)


def sync_file(path: Path) -> None:
    """Return when the content of this file would survive a power failure.

    Raises:
        OSError.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_whole(path: Path, write: Callable[[Path], object], *, suffixes: Sequence[str] = ()) -> bool:
    """Make a new file that is complete from the first moment at which another process can see it: it is
    written under another name beside `path`, synced to the disk, then linked. The file has mode 0600.

    Args:
        path: the file. If there is one already, it stays as it is.
        write: writes the content into the draft, which exists and is empty.
        suffixes: of files that `write` may leave beside the draft. They are removed.

    Returns:
        Whether it was made. Of several processes that make it at the same time, one makes it.

    Raises:
        OSError: it cannot be made. And what `write` raises.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        write(draft)
        sync_file(draft)
        with suppress(FileExistsError):
            os.link(draft, path)
            return True
        return False
    finally:
        for suffix in ("", *suffixes):
            Path(f"{draft}{suffix}").unlink(missing_ok=True)


def is_file(descriptor: int) -> bool:
    """Whether this is a regular file. A write to anything else may have to wait for a reader."""
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def without_waiting(descriptor: int) -> int:
    """A new descriptor for the same pipe or terminal, on which write() raises BlockingIOError if nobody
    reads; for anything else, a plain duplicate. The pipe is opened again, because the flag belongs to the
    open file, and other processes write to this one, too."""
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        try:
            return os.open(f"/dev/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            pass  # it belongs to another user, so writes may wait
    return os.dup(descriptor)


def write(descriptor: int, data: bytes) -> int:
    """Like os.write, but it does not wait for the reader of a socket either.

    Raises:
        OSError: BlockingIOError if nobody reads.
    """
    return writer(descriptor)(data)


def writer(descriptor: int) -> Callable[[bytes], int]:
    """The function `write` for one descriptor, whose kind is looked up only once."""
    is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    return partial(_send if is_socket else os.write, descriptor)


def _send(descriptor: int, data: bytes) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        return connection.send(data, socket.MSG_DONTWAIT)
