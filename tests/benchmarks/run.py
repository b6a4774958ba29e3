"""All benchmarks: `python tests/benchmarks/run.py`; see command.py, or --help."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # In place of this folder: its modules have the same names as in pytest, and no short ones.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.command import main

    raise SystemExit(main())
