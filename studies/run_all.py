"""Run every study, part by part: `python studies/run_all.py [--quick] [--only STUDY ...]`.

A study is a script that writes its results (Parquet or JSON under `studies/results/`) and its page in
`docs/`. It takes `--quick` for a version of at most 15 seconds that touches neither, and goes on where it
stopped when it is run again. Its trainings are parts of at most an hour of processor time each; what a part
took is printed when it ends.
"""

import argparse
import os
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


def run_part(script: str, options: tuple[str, ...]) -> int:
    """Run one part in a process of its own; return its exit code."""
    name = " ".join((script, *options))
    print(f"== {name}", flush=True)
    before = os.times()
    code = subprocess.run(
        [sys.executable, str(HERE / script), *options], cwd=HERE.parent, check=False
    ).returncode
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
    arguments = parser.parse_args()
    codes = [
        run_part(script, options)
        for script in arguments.only or STUDIES
        for options in ([("--quick",)] if arguments.quick else STUDIES[script])
    ]
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
