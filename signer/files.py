"""What the list and the audit trail need of a file system."""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Return when the names of the files in it would survive a power cut.

    Raises:
        OSError.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
