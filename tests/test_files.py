"""What a file system is asked for."""

from pathlib import Path

import pytest

from signer.files import make_whole


def test_a_file_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """By one of several processes; a draft that cannot be written leaves nothing behind."""
    path = tmp_path / "made"

    def fails(draft: Path) -> None:
        Path(f"{draft}-side").touch()
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        make_whole(path, fails, suffixes=["-side"])
    assert list(tmp_path.iterdir()) == []
    assert make_whole(path, lambda draft: draft.write_text("first"))
    assert not make_whole(path, lambda draft: draft.write_text("second"))
    assert path.read_text() == "first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
