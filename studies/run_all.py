"""Run every study, one after the other: `python studies/run_all.py [--quick] [--only NAME ...]`.

A study is a script that writes its results (Parquet or JSON under `studies/results/`) and its page in
`docs/`. It takes `--quick` for a version of at most 15 seconds that touches neither, and goes on where it
stopped when it is run again.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent

STUDIES: tuple[str, ...] = (
    "emergence_study.py",
    "percolation_study.py",
    "ruggedness_study.py",
    "information_study.py",
    "skills_study.py",
    "functional_study.py",
    "lineage_study.py",
)
"""The scripts beside this file, in the order in which they run."""


def run_study(script: str, *, quick: bool) -> int:
    """Run one study in a process of its own; return its exit code."""
    command = [sys.executable, str(HERE / script), *(["--quick"] if quick else [])]
    print(f"== {script}", flush=True)
    started = time.monotonic()
    code = subprocess.run(command, cwd=HERE.parent, check=False).returncode
    print(f"== {script}: exit code {code} after {time.monotonic() - started:.0f} s", flush=True)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="versions of at most 15 seconds each")
    parser.add_argument("--only", nargs="+", choices=STUDIES, help="run these scripts only")
    arguments = parser.parse_args()
    codes = [run_study(script, quick=arguments.quick) for script in arguments.only or STUDIES]
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
