"""What the repository's texts say of the project, and its papers for contributors."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest
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


GITHUB = ROOT / ".github"


def test_the_workflow_is_valid(tmp_path: Path) -> None:
    """It is what the schema of GitHub allows, and its jobs have a time limit."""
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    workflow = GITHUB / "workflows" / "ci.yml"
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    for schema in ("vendor.github-workflows", "custom.github-workflows-require-timeout"):
        valid = subprocess.run([*check, schema, workflow], capture_output=True, text=True, check=False)
        assert valid.returncode == 0, valid.stdout + valid.stderr
    wrong = tmp_path / "ci.yml"
    wrong.write_text(workflow.read_text().replace("runs-on:", "runs-at:"))
    assert (
        subprocess.run(
            [*check, "vendor.github-workflows", wrong], capture_output=True, check=False
        ).returncode
        == 1
    )


def test_the_workflow_runs_all_checks_without_rights() -> None:
    """On the oldest and the newest Python that the package names; with a token that can only read."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    workflow = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    named = [
        word.rsplit(" ", 1)[1]
        for word in metadata(DISTRIBUTION).get_all("Classifier") or ()
        if ":: 3." in word
    ]
    assert job["strategy"]["matrix"]["python"] == [named[0], named[-1]]
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for step in job["steps"]:
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/checkout@v4"))


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_a_paper_links_to_what_there_is(name: str) -> None:
    """The map "Where is …?" above all."""
    paper = (GITHUB / name).read_text()
    for link in re.findall(r"\]\(([^)]+)\)", paper):
        assert link.startswith("https://docs.github.com/") or (GITHUB / link).exists(), link
    for shown, link in re.findall(r"\[`([^`]+)`\]\(([^)]+)\)", paper):
        assert link == f"../{shown.rstrip('/')}"


def test_the_map_answers_twenty_questions() -> None:
    """And speaks of every folder of the package."""
    rows = re.findall(
        r"^\| (?!---|… ).* \| .*\]\(.* \|$", (GITHUB / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    assert len(rows) >= 20
    for folder in (ROOT / "signer").iterdir():
        if (folder / "__init__.py").exists():
            assert any(f"signer/{folder.name}/" in row for row in rows), folder


def test_the_security_policy_supports_this_version() -> None:
    """Its minor version, and it names no address that nobody reads."""
    policy = (GITHUB / "SECURITY.md").read_text()
    assert f"| {__version__.rpartition('.')[0]}.x | yes |" in policy
    assert not re.search(r"[\w.-]+@[\w-]+\.\w+", policy)
