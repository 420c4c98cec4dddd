"""Emergence when the task changes, and in a VGG's classifier: `python studies/transfer_study.py [--quick]`.

Trains what is not there yet, and writes the tables in `studies/results/transfer/` and
`docs/transfer-study.md`.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import polars as pl
from parts import part, seconds_of, write
from transfer.experiment import run_setting
from transfer.page import write_page
from transfer.tasks import SETTINGS
from transfer.vgg import run_seed

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "transfer"
PAGE = HERE.parent / "docs" / "transfer-study.md"
SEEDS, VGG_SEEDS = 10, 5
AT_ONCE = 10
"""Seeds of a setting that are trained together; changes nothing but the time."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="two seeds of the smallest setting, nothing kept"
    )
    parser.add_argument("--train-only", action="store_true", help="do not write the page")
    parser.add_argument("--page-only", action="store_true", help="write the page from what was trained")
    arguments = parser.parse_args()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {line}", flush=True)

    if arguments.quick:
        say(str(run_setting("digits halves", range(2)).height))
        return 0
    if not arguments.page_only:
        _train(say)
    if not arguments.train_only:
        write_page(RESULTS, HERE / "results" / "pathcounts", PAGE)
        say(f"wrote {PAGE.name}")
    return 0


def _train(say) -> None:  # noqa: ANN001
    parts = {
        RESULTS / "parts" / f"{name.replace(' ', '-').replace(',', '')}-{first}.parquet": partial(
            run_setting, name, range(first, first + AT_ONCE)
        )
        for name in SETTINGS
        for first in range(0, SEEDS, AT_ONCE)
    }
    frames = [part(file, make, say) for file, make in parts.items()]
    write(pl.concat(frames), RESULTS / "tasks.parquet", seconds=seconds_of(list(parts)))
    parts = {RESULTS / "parts" / f"vgg-{seed}.parquet": partial(run_seed, seed) for seed in range(VGG_SEEDS)}
    frames = [part(file, make, say) for file, make in parts.items()]
    write(pl.concat(frames), RESULTS / "vgg.parquet", seconds=seconds_of(list(parts)))


if __name__ == "__main__":
    sys.exit(main())
