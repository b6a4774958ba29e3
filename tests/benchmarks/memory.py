"""Memory of a worker: with an empty list, and with a million revoked tokens on it."""

import subprocess
from contextlib import suppress
from pathlib import Path

from benchmarks.lists import fill_with_live
from benchmarks.measuring import Results, once
from benchmarks.servers import service
from benchmarks.throughput import requests

#: Seconds of validations before it is measured, because a list may be read into memory meanwhile.
LOAD = 5


def measure(folder: Path, rows: int) -> Results:
    """Megabytes of the service's only process, with an empty list and with a list of this many rows."""
    full = folder / "full"
    full.mkdir(parents=True)
    fill_with_live(full / "tokens.db", rows)
    load = requests(folder)
    found: Results = {"memory: rows": once("rows", rows)}
    for name, directory in (("idle", folder / "idle"), ("full", full)):
        with service(directory) as server:
            load.on(server.port, LOAD)
            resident, proportional = of(server.process.pid)
        found[f"memory: {name}, RSS"] = once("MB", resident)
        found[f"memory: {name}, PSS"] = once("MB", proportional)
    return found


def of(pid: int) -> tuple[float, float]:
    """Megabytes of a process that are resident (RSS), and its share of them if shared pages are divided
    (PSS). Only Linux reports the second; elsewhere it is the first."""
    with suppress(FileNotFoundError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        sizes = {line.split(":")[0]: line.split()[1] for line in lines[1:]}
        return int(sizes["Rss"]) * 1024 / 1e6, int(sizes["Pss"]) * 1024 / 1e6
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return (int(told.stdout) * 1024 / 1e6,) * 2
