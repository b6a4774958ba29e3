"""What the documentation shows: its pages, the examples on them, and a shell that runs commands as a reader would."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from support.service import ROOT, environment

GUIDE = ROOT / "signer" / "guide"
#: The README, the guide and its list of pages, by name.
PAGES = {"README": (ROOT / "README.md").read_text()} | {
    f"guide/{path.stem}": path.read_text() for path in sorted(GUIDE.glob("*.md"))
}


class Block(NamedTuple):
    """A fenced block. `reason` says why it is not run; "" where it is."""

    language: str
    reason: str
    text: str


def fences(text: str) -> list[Block]:
    """All fenced blocks: "```python", or "```python (not run: needs two machines)"."""
    found = re.findall(r"^```(\w*)(?: \(not run: ([^\n]+)\))?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert 2 * len(found) == len(re.findall(r"^```", text, re.MULTILINE)), "a fence is of another form"
    return [Block(*block) for block in found]


def blocks(text: str, language: str) -> list[str]:
    """The text of those in one language that are run."""
    return [block.text for block in fences(text) if block.language == language and not block.reason]


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Each `$ command` of the console blocks, with the output shown under it."""
    for block in blocks(text, "console"):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = step.partition("\n")
            yield command, output.strip()


def matches(shown: str, printed: str) -> bool:
    """Whether this was printed; `…` stands for anything."""
    return re.fullmatch(re.escape(shown).replace("…", ".*"), printed) is not None


class Shell:
    """One bash that runs commands as a reader would type them. `port` is where the service is that the commands call
    at 8000; `starts` says that they start it themselves."""

    def __init__(self, directory: Path, port: int, *, starts: bool) -> None:
        self._port = port
        settings = {"PORT": str(port)} if starts else {}
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=directory,
            env=environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", **settings),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def run(self, command: str) -> str:
        """What it prints. Of a service that it starts: wait until that answers."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        command = command.replace("localhost:8000", f"localhost:{self._port}").replace(
            "python app.py", f"exec python {ROOT}/app.py"
        )
        if command.endswith("&"):
            command += (
                f" for i in $(seq 100); do curl -s localhost:{self._port}/healthz && break; sleep 0.1; done"
            )
        self._bash.stdin.write(f"{command}\necho; echo done\n")
        self._bash.stdin.flush()
        return "".join(iter(self._bash.stdout.readline, "done\n")).strip()

    def close(self) -> None:
        """End it, and what it started."""
        assert self._bash.stdin is not None
        self._bash.stdin.write("kill $(jobs -p) 2>/dev/null; wait\n")
        self._bash.stdin.close()
        self._bash.wait(30)
        assert self._bash.stdout is not None
        self._bash.stdout.close()
