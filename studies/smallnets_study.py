"""E in several hundred small networks: `python studies/smallnets_study.py [--quick] [--train-only]`.

Trains the families of `smallnets/design.py` that are not there yet, and writes the tables in
`studies/results/smallnets/` and `docs/smallnets-study.md`.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import polars as pl
import torch
from parts import part, seconds_of, write
from ruggedness.nets import digits
from smallnets.design import FAMILIES
from smallnets.findings import noise_gains
from smallnets.measure import family_rows
from smallnets.page import write_page

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "smallnets"
PAGE = HERE.parent / "docs" / "smallnets-study.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small family, nothing kept")
    parser.add_argument("--train-only", action="store_true", help="do not write the page")
    parser.add_argument("--page-only", action="store_true", help="write the page from what was trained")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # products of this size gain nothing from more, and the order of sums stays
    started, data = time.monotonic(), digits()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {line}", flush=True)

    if arguments.quick:
        say(str(family_rows(replace(FAMILIES[0], images=100), data).height))
        return 0
    if not arguments.page_only:
        files = [RESULTS / "parts" / f"{family.name}.parquet" for family in FAMILIES]
        frames = [
            part(file, lambda family=family: family_rows(family, data), say)  # type: ignore[misc]
            for file, family in zip(files, FAMILIES, strict=True)
        ]
        write(pl.concat(frames), RESULTS / "networks.parquet", seconds=seconds_of(files))
        part(RESULTS / "noise.parquet", lambda: noise_gains(pl.concat(frames)), say)
    if not arguments.train_only:
        write_page(RESULTS, PAGE)
        say(f"wrote {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
