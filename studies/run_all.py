"""Run every study, part by part: `python studies/run_all.py [--quick] [--only STUDY ...]`.

A study is a script that writes its results (Parquet or JSON under `studies/results/`) and its page in
`docs/`. It takes `--quick` for a version of at most 15 seconds that touches neither, and goes on where it
stopped when it is run again. Its trainings are parts of at most an hour of processor time each; what a part
took is printed when it ends. A part that takes longer than `--part-hours` is ended, with all that it
started, and the next one begins.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pathcounts.plans import PLANS

HERE = Path(__file__).resolve().parent

STUDIES: dict[str, tuple[tuple[str, ...], ...]] = {
    "emergence_study.py": (*(("--train-only", "--only", plan.name) for plan in PLANS), ("--page-only",)),
    "transfer_study.py": (("--train-only",), ("--page-only",)),
    "smallnets_study.py": (("--train-only",), ("--page-only",)),
    "percolation_study.py": (
        *(
            ("--train-only", "--only", group)
            for group in ("batch64", "batch16", "scarce", "scarce, blind", "recorded")
        ),
        ("--page-only",),
    ),
    "ruggedness_study.py": (("--train-only",), ("--page-only",)),
    "information_study.py": ((),),
    "skills_study.py": ((),),
    "functional_study.py": ((),),
    "lineage_study.py": ((),),
}
"""The scripts beside this file, in the order in which they run, and the options of their parts."""


PART_HOURS = 3.0
"""Wall time of a part, which takes an hour of processor time: shared cores take longer."""
OUT_OF_TIME = 124


def run_part(script: str, options: tuple[str, ...], *, seconds: float) -> int:
    """Run one part in a process of its own; return its exit code, or `OUT_OF_TIME` where it was ended."""
    name = " ".join((script, *options))
    print(f"== {name}", flush=True)
    before = os.times()
    command = [sys.executable, str(HERE / script), *options]
    with subprocess.Popen(command, cwd=HERE.parent, start_new_session=True) as part:
        try:
            code = part.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = OUT_OF_TIME
            print(f"== {name}: ended after {seconds:.0f} s; it goes on from there when run again", flush=True)
        finally:
            if part.poll() is None:
                os.killpg(part.pid, signal.SIGKILL)  # its workers are in its group
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    print(
        f"== {name}: exit code {code}, {spent:.0f} CPU s, {after.elapsed - before.elapsed:.0f} s", flush=True
    )
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="versions of at most 15 seconds each")
    parser.add_argument("--only", nargs="+", choices=STUDIES, help="run these scripts only")
    parser.add_argument("--part-hours", type=float, default=PART_HOURS, help="wall time of each part at most")
    arguments = parser.parse_args()
    codes = [
        run_part(script, options, seconds=3600 * arguments.part_hours)
        for script in arguments.only or STUDIES
        for options in ([("--quick",)] if arguments.quick else STUDIES[script])
    ]
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
