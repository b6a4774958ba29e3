"""What the repository's texts say of the project, and its papers for contributors."""

import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

from support.service import ROOT

from signer import __version__

#: The name in `pip install`; on PyPI "signer" is another project.
DISTRIBUTION = "signer-tokens"
WRONG_NAME = re.compile(
    r"pip3? install(?: -\S+)* ['\"]?signer(?![\w.-])|(?<![\w-])signer\\?\[(?:limits|postgres|redis|test|dev|bench)"
)


def texts() -> Iterator[tuple[Path, str]]:
    """Every text of the repository but those of others in static/."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        path = ROOT / name
        if "/static/" not in name and path.is_file():
            yield path, path.read_text(encoding="utf-8")


def test_the_distribution_has_its_own_name() -> None:
    """And the package's version."""
    about = metadata(DISTRIBUTION)
    assert (about["Name"], about["Version"]) == (DISTRIBUTION, __version__)
    assert about["Author"] == "The signer authors"


def test_no_text_installs_the_package_of_a_stranger() -> None:
    """Under the name that is another project's on PyPI."""
    for wrong in ("pip install signer", "pip install -q 'signer[redis]'", "needs signer[limits]"):
        assert WRONG_NAME.search(wrong), wrong
    here = Path(__file__).resolve()
    for path, text in texts():
        found = WRONG_NAME.search(text)
        assert path == here or found is None, f"{path}: {found}"


def test_a_message_names_the_distribution() -> None:
    """Each extra that a message asks for is one that there is."""
    extras = set(metadata(DISTRIBUTION).get_all("Provides-Extra") or ())
    asked = {
        extra
        for path, text in texts()
        for extra in re.findall(r"signer-tokens\\?\[([a-z,]+)", text)
        if path.suffix == ".py" and path.is_relative_to(ROOT / "signer")
    }
    assert asked == {"limits", "postgres", "redis"}
    assert asked <= extras
