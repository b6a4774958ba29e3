"""File system functions for the revocation list, the audit trail and the log."""

import os
import socket
import stat
from collections.abc import Callable
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
