"""All benchmarks: `python tests/benchmarks/run.py`, after `pip install --editable '.[benchmarks]'`.

Prints a table of what was measured, with the peers and the targets. A whole run takes about six minutes and
writes results.json and results.svg to this folder. With --quick it takes one minute, and writes them to the
folder of --output.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import crowds, durable, engines, library, memory, purging, report, throughput, visibility
from benchmarks.load import HOW_TO_GET_WRK, has_wrk
from benchmarks.measuring import Results
from benchmarks.servers import credential
from benchmarks.targets import table

HERE = Path(__file__).resolve().parent
logger = logging.getLogger("benchmarks")

#: Rows of the lists. The last number is also used for the purge and for the memory.
SIZES = 0, 1000, 100_000, 1_000_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and save; return the exit code, which does not depend on the numbers."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level="INFO")
    # It warns about every list that it creates.
    logging.getLogger("signer").setLevel(logging.ERROR)
    is_whole = options.only is None and not options.quick
    rounds = options.rounds or (1 if options.quick else 5)
    seconds = options.seconds or (1 if options.quick else 2)
    sizes = SIZES[:3] if options.quick else SIZES
    started = time.monotonic()
    found: Results = {}
    with tempfile.TemporaryDirectory(prefix="signer-benchmarks-") as folder:
        if options.only != "http":
            found |= _told("library", lambda: _library(Path(folder), rounds, sizes))
        if options.only != "library":
            if has_wrk():
                found |= _http(Path(folder), rounds, seconds, max(sizes))
            else:
                logger.warning("%s. Without it, only the library is measured.", HOW_TO_GET_WRK)
                is_whole = False
    rows = table(found)
    met = [row.met for row in rows]
    spent = time.monotonic() - started
    sys.stdout.write(f"{report.printed(rows)}\n\n{met.count(True)} targets met, {met.count(False)} not\n")
    logger.info("measured in %.0f s", spent)
    output = options.output or (HERE if is_whole else None)
    if output:
        report.save(output, found, rows, {"rounds": rounds, "seconds": seconds})
    return 0


def _library(folder: Path, rounds: int, sizes: Sequence[int]) -> Results:
    # A round takes a tenth of a second, so there can be more rounds.
    return library.measure(folder, rounds * 5, sizes)


def _http(folder: Path, rounds: int, seconds: int, rows: int) -> Results:
    caller = credential(folder / "caller")
    few = min(rounds, 3)
    steps: dict[str, Callable[[], Results]] = {
        "throughput": lambda: throughput.measure(folder / "throughput", rounds, seconds, caller),
        "durable": lambda: durable.measure(folder / "durable", few, seconds, caller),
        "crowds": lambda: crowds.measure(folder / "crowds", few, seconds),
        "visibility": lambda: visibility.measure(folder / "visibility", seconds + 1, caller),
        "engines": lambda: engines.measure(folder / "engines", seconds, caller),
        "purging": lambda: purging.measure(folder / "purging", rows, caller),
        "memory": lambda: memory.measure(folder / "memory", rows),
    }
    found: Results = {}
    for name, step in steps.items():
        found |= _told(name, step)
    return found


def _told(name: str, step: Callable[[], Results]) -> Results:
    logger.info("%s …", name)
    started = time.monotonic()
    found = step()
    logger.info("%s: %.0f s", name, time.monotonic() - started)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("library", "http"), help="measure one of the two")
    parser.add_argument("--rounds", type=int, help="rounds over HTTP; the library has five times as many")
    parser.add_argument("--seconds", type=int, help="of load for each server in each round")
    parser.add_argument(
        "--quick", action="store_true", help="one round of a second, and lists of 100,000 rows"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to write results.json and .svg")
    return parser
