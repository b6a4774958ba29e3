"""The table with the result of each fault, at the end of a run."""

from typing import Any


def write(terminalreporter: Any) -> None:
    """Print a line for each fault, and the sums; nothing if no fault was tested."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    rows = [value for report in reports for name, value in report.user_properties if name == "fault"]
    if not rows:
        return
    ends = {"fault": "sum", "engine": "", "whole": max(row["whole"] for row in rows)}
    rows.sort(key=lambda row: (row["engine"], row["fault"]))
    rows.append(
        {name: ends.get(name, sum(row[name] for row in rows if name not in ends)) for name in rows[0]}
    )
    widths = {name: max(len(str(row[name])) for row in [*rows, {name: name}]) for name in rows[0]}
    terminalreporter.section("faults")
    for row in [{name: name for name in widths}, *rows]:
        terminalreporter.write_line("  ".join(str(row[name]).rjust(width) for name, width in widths.items()))
