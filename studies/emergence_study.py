"""The study of path-count emergence: `python studies/emergence_study.py [--quick] [--only PLAN ...]`.

Trains the groups of `pathcounts/plans.py` (those whose tables are not there yet), and writes
`docs/study.md` from the tables. `--train-only` leaves the page as it is.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pathcounts.experiment import run_plan
from pathcounts.page import write_page
from pathcounts.plans import PLANS, QUICK

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "pathcounts"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emergraph" / "studies"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny networks, nothing kept")
    parser.add_argument("--only", nargs="+", choices=[plan.name for plan in PLANS], help="these groups only")
    parser.add_argument("--page-only", action="store_true", help="write the page from what was trained")
    parser.add_argument("--train-only", action="store_true", help="do not write the page")
    parser.add_argument("--parts", type=int, help="train at most so many parts, some seeds of a group each")
    arguments = parser.parse_args()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {line}", flush=True)

    if arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
            for plan in QUICK:
                run_plan(plan, Path(folder), Path(folder), say)
        return 0
    trained = 0
    for plan in () if arguments.page_only else PLANS:
        if arguments.only is None or plan.name in arguments.only:
            left = None if arguments.parts is None else arguments.parts - trained
            trained += run_plan(plan, RESULTS, CACHE, say, parts=left)
    if not arguments.train_only:
        write_page(RESULTS, HERE.parent / "docs" / "study.md")
        say("wrote docs/study.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
