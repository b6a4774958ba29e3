"""What the README promises of itself; its examples run in test_guide.py."""

import json
import re

import pytest
from support.pages import PAGES, blocks
from support.service import ROOT

README = PAGES["README"]


def test_the_two_commands_are_there() -> None:
    """.ci/run calls the second one as it stands; the first one's start is what the other tests start."""
    run, test = blocks(README, "sh")
    assert run == "python3 -m venv .venv && .venv/bin/pip install --quiet . && .venv/bin/python app.py\n"
    assert test == (
        "python3 -m venv .venv && .venv/bin/pip install --quiet --editable '.[test]'"
        " && .venv/bin/python -m pytest\n"
    )


def test_it_is_short() -> None:
    """And so is its program."""
    assert len(README.splitlines()) <= 200
    (example,) = blocks(README, "python")
    assert len([line for line in example.splitlines() if line.strip()]) <= 20


def test_its_links_lead_somewhere() -> None:
    """To files of the repository."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("page", ["README", "guide/performance"])
def test_its_numbers_are_those_that_were_measured(page: str) -> None:
    """In results.json, where they are rounded as here."""
    rows = json.loads((ROOT / "tests/benchmarks/results.json").read_text())["table"]
    measured = " ".join(f"{row['measured']} {row['peer']}" for row in rows)
    numbers = re.findall(r"\| (?:0 of )?(\d+,\d+)", PAGES[page])
    assert len(numbers) >= 4
    for number in numbers:
        assert number in measured or number.replace(",", "") in measured, number
