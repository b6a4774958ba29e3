"""All benchmarks: `python tests/benchmarks/run.py`; see command.py, or --help."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Instead of this folder: its modules are found as pytest finds them, and none by its short name.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from benchmarks.command import main

    raise SystemExit(main())
