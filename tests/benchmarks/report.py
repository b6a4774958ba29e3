"""The results for people and programs: a table, results.json and results.svg."""

import json
import logging
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.measuring import Results
from benchmarks.peers import SIGNER
from benchmarks.targets import Row

logger = logging.getLogger(__name__)

#: Packages whose version may explain a number.
PACKAGES = (
    "signer", "itsdangerous", "msgspec", "starlette", "uvicorn", "httptools", "uvloop", "prometheus-client",
    "PyJWT", "joserfc", "cryptography", "jwtoxide", "oxyjwt", "fastapi", "sqlalchemy", "aiosqlite",
)  # fmt: skip
_OURS, _OTHERS = "#1f6feb", "#9aa4af"
_INK = "#24292f"


def printed(rows: Sequence[Row]) -> str:
    """The table, with columns as wide as necessary."""
    verdicts = {True: "yes", False: "NO", None: ""}
    lines: list[tuple[str, ...]] = [("what", "measured", "peer", "ratio", "target", "met?")]
    lines += [(row.what, row.measured, row.peer, row.ratio, row.target, verdicts[row.met]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def machine() -> dict[str, Any]:
    """The machine and the programs of the measurement."""
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def save(folder: Path, found: Results, rows: Sequence[Row], run: dict[str, Any]) -> None:
    """Write results.json and, if matplotlib is installed, results.svg to `folder`; `run` says how the numbers
    were measured."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {
        "machine": machine(),
        "run": run,
        "table": [asdict(row) for row in rows],
        "results": {name: sample.as_json() for name, sample in found.items()},
    }
    (folder / "results.json").write_text(f"{json.dumps(told, indent=1, ensure_ascii=False)}\n")
    try:
        plot(folder / "results.svg", found)
    except ImportError:
        logger.warning("There is no plot: matplotlib is not installed (pip install '.[benchmarks]')")


def plot(file: Path, found: Results) -> None:
    """Draw two panels: microseconds of the library, and requests a second of the service. The same numbers
    give the same file. The background is white, so that it can be read on a dark page, too.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    panels = [
        ("The library: µs a call (less is better)", _library(found)),
        ("HTTP: requests a second (more is better)", _http(found)),
    ]
    panels = [(title, bars) for title, bars in panels if bars]
    style = {
        "svg.hashsalt": "signer", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
        "text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK,
        "axes.edgecolor": "#d0d7de", "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        heights = [len(bars) + 2 for _, bars in panels]
        figure, axes = pyplot.subplots(
            len(panels),
            1,
            squeeze=False,
            height_ratios=heights,
            figsize=(8.5, 0.23 * sum(heights)),
            layout="constrained",
        )
        for axis, (title, bars) in zip(axes[:, 0], panels, strict=True):
            values = [value for _, value in bars]
            drawn = axis.barh(
                [name for name, _ in bars],
                values,
                height=0.72,
                color=[_OURS if SIGNER in name else _OTHERS for name, _ in bars],
            )
            axis.bar_label(
                drawn, [f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in values], padding=3
            )
            axis.set_title(title, loc="left", fontweight="bold", fontsize=10)
            axis.invert_yaxis()
            axis.set_xlim(0, max(values) * 1.1)
            axis.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
            axis.tick_params(left=False)
        figure.savefig(file, metadata={"Date": None, "Creator": None}, facecolor="white")
        pyplot.close(figure)


def _library(found: Results) -> list[tuple[str, float]]:
    return [
        (f"{verb}: {name}", sample.median)
        for verb in ("issue", "verify")
        for name, sample in sorted(
            (
                (key.removeprefix(f"{verb}: "), sample)
                for key, sample in found.items()
                if key.startswith(f"{verb}: ")
            ),
            key=lambda pair: pair[1].median,
        )
        if not name.startswith(("the payload", "signer,"))
    ]


def _http(found: Results) -> list[tuple[str, float]]:
    paths = "GET /app/valid: ", "POST /app/token: ", "POST /app/consume: ", "one durable commit"
    return [
        (name.replace("original", "original's stand-in"), sample.median)
        for path in paths
        for name, sample in found.items()
        if name.startswith(path)
    ]


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    with suppress(OSError, subprocess.SubprocessError):
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or "unknown"
