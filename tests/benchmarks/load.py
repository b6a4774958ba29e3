"""Load from wrk, whose one thread in C is faster than the service, so that the client is not the limit."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

#: How to install it.
HOW_TO_GET_WRK = "wrk is not installed: apt-get install wrk, or brew install wrk"
#: Seconds after which a missing answer counts as an error.
TIMEOUT = 10
_SCRIPT = Path(__file__).with_name("requests.lua")


@dataclass(frozen=True)
class Outcome:
    """What wrk counted: requests that were answered, those of them that were refused (status 400 and above),
    failed connections and answers, and latencies in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    refused: int
    errors: int

    @property
    def good(self) -> int:
        """Answers that are no errors."""
        return self.requests - self.refused

    @property
    def rate(self) -> float:
        """Such answers in a second."""
        return self.good / self.seconds


@dataclass(frozen=True)
class Load:
    """What to send: a request for each line of `file`, in turn, with this credential.

    Args:
        method: of all requests.
        file: a path in each line, and a body after a tab, if there is one; see `written`.
        credential: a client credential, or "" for none.
        cycles: whether to begin again after the last line. Otherwise each line is sent once, and there must
            be enough lines.
        pause: milliseconds that each connection waits between its requests; 0 for the highest rate.
    """

    method: str
    file: Path
    credential: str = ""
    cycles: bool = True
    pause: int = 0

    def on(self, port: int, seconds: float, connections: int = 32) -> Outcome:
        """Send it to this port of 127.0.0.1 for this number of seconds (a whole number, as wrk demands).

        Raises:
            RuntimeError: wrk could not run, or there were not enough lines.
        """
        command = [
            "wrk", "--threads=1", f"--connections={connections}", f"--duration={max(1, round(seconds))}s",
            f"--timeout={TIMEOUT}s", f"--script={_SCRIPT}", f"http://127.0.0.1:{port}", "--",
            self.method, str(self.file), "cycle" if self.cycles else "once", str(self.pause),
        ]  # fmt: skip
        if self.credential:
            command.append(f"Bearer {self.credential}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
        _, found, result = done.stdout.partition("RESULT ")
        if not found:
            raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}")
        outcome = Outcome(**json.loads(result))
        if not self.cycles and outcome.refused:
            raise RuntimeError(f"{outcome.refused} requests were refused: were there enough tokens?")
        return outcome


def written(file: Path, lines: Iterable[tuple[str, str]]) -> Path:
    """Write paths and bodies ("" for none) to `file`, as Load reads them; return it."""
    with file.open("w") as opened:
        opened.writelines(f"{path}\t{body}\n" for path, body in lines)
    return file


def has_wrk() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None
