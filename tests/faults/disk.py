"""Small disks that tests fill up."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """The disk that is mounted at `folder`."""

    folder: Path

    def fill(self) -> None:
        """Fill it to the last byte."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def make_room(self) -> None:
        """Free the room that fill() has used."""
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    """Mount a disk of this size in place of the folder, with the folder's files. The test is skipped if
    nothing can be mounted."""
    owner = folder.stat()
    options = f"size={megabytes}m,uid={owner.st_uid},gid={owner.st_gid},mode={owner.st_mode & 0o777:o}"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    before = folder.rename(folder.with_name(f"{folder.name}-before"))
    folder.mkdir()
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        subprocess.run(["cp", "-a", f"{before}/.", str(folder)], check=True)
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def image(folder: Path) -> Iterator[None]:
    """Mount a disk that is a file, and can be frozen, at `folder`. The test is skipped if that is not
    possible."""
    file = folder.with_name(f"{folder.name}.image")
    folder.mkdir()
    with file.open("wb") as made:
        made.truncate(64 << 20)
    tools = ("mkfs.ext4", "mount", "fsfreeze")
    commands = [["mkfs.ext4", "-q", str(file)], ["mount", "-o", "loop", str(file), str(folder)]]
    if not all(map(shutil.which, tools)) or any(
        subprocess.run(command, capture_output=True, check=False).returncode for command in commands
    ):
        pytest.skip("no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """A process that writes to the disk hangs."""
    subprocess.run(["fsfreeze", "--freeze", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", str(folder)], check=True)
