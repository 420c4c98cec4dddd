"""Emergence and loss-landscape ruggedness: `python studies/ruggedness_study.py [--quick]`.

Trains dense nets of several sizes, seeds and pruning levels, measures emergence and every ruggedness
statistic of each, and correlates them. Architectures that were measured before are not measured again. Writes
`docs/ruggedness-study.md` from the tables.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from parts import part, seconds_of, write
from ruggedness.correlate import correlations
from ruggedness.findings import primary
from ruggedness.measure import measure, measure_planned
from ruggedness.nets import Digits, digits, train_group
from ruggedness.page import SHOWN, page, tables

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "ruggedness"
PAGE = HERE.parent / "docs" / "ruggedness-study.md"

HIDDEN = ((8,), (16,), (32,), (12, 12))
LEVELS = (0.0, 0.5, 0.8, 0.9)
SEEDS = 5
NEW_SEEDS = 5
"""More seeds of each cell, of which what the plan tests on them is measured, and no more."""


def measured(
    number: int, hidden: tuple[int, ...], data: Digits, *, seeds: int, steps: int, n: int, quick: bool
) -> pl.DataFrame:
    """One row per net of an architecture."""
    levels = [level for level in LEVELS for _ in range(seeds)]
    own = [1000 * number + i for i in range(len(levels))]
    group = train_group((64, *hidden, 10), own, levels, data, steps=steps)
    rows = [measure(group, net, data, n=n, quick=quick) for net in range(len(levels))]
    return pl.DataFrame(rows, infer_schema_length=None)


def new_seeds(number: int, hidden: tuple[int, ...], data: Digits) -> pl.DataFrame:
    """One row per net of an architecture: new seeds."""
    levels = [level for level in LEVELS for _ in range(NEW_SEEDS)]
    own = [100_000 + 1000 * number + i for i in range(len(levels))]
    group = train_group((64, *hidden, 10), own, levels, data, steps=300)
    return pl.DataFrame([measure_planned(group, net, data, n=400) for net in range(len(levels))])


def quick_tables(data: Digits) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A dozen barely trained nets and their correlations: shows that everything runs, and no more."""
    parts = [
        measured(i, hidden, data, seeds=1, steps=20, n=100, quick=True)
        for i, hidden in enumerate(((6,), (8,), (6, 6)))
    ]
    nets = pl.concat(parts)
    return nets, correlations(nets, only=SHOWN[:8], permutations=99)


def publish(*, again: bool = True) -> None:
    """Correlate, test what the plan says, and write the page and the long tables beside the results.

    Args:
        again: Correlate, which takes a minute; else take what was correlated before.
    """
    nets, seeds = (pl.read_parquet(RESULTS / f"{name}.parquet") for name in ("networks", "seeds"))
    if again:
        correlations(nets).write_parquet(RESULTS / "correlations.parquet")
    found = pl.read_parquet(RESULTS / "correlations.parquet")
    tested = primary({"networks": nets, "seeds": seeds})
    tested.write_parquet(RESULTS / "primary.parquet")
    PAGE.write_text(page(nets, seeds, found, tested), encoding="utf-8")
    (RESULTS / "tables.md").write_text(tables(found), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a dozen barely trained nets, nothing kept")
    parser.add_argument("--train-only", action="store_true", help="do not correlate, and write no page")
    parser.add_argument(
        "--page-only", action="store_true", help="only correlate and write again what was measured"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # products of this size gain nothing from more, and the order of sums stays
    data, started = digits(), time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {line}", flush=True)

    if arguments.quick:
        nets, found = quick_tables(data)
        say(f"{nets.height} nets, {found.height} correlations")
        return 0
    if not arguments.page_only:
        train(data, say)
    if not arguments.train_only:
        publish()
        say(f"wrote {PAGE}")
    return 0


def train(data: Digits, say: Callable[[str], None]) -> None:
    """Measure the architectures that are not there yet, and write both tables of networks."""
    tables = {
        "networks": partial(measured, seeds=SEEDS, steps=300, n=400, quick=False),
        "seeds": new_seeds,
    }
    for table, make in tables.items():
        done = RESULTS / f"{table}.parquet"
        if done.exists():
            continue
        files = [RESULTS / "parts" / f"{table}-{'-'.join(map(str, hidden))}.parquet" for hidden in HIDDEN]
        frames = [
            part(file, partial(make, number, hidden, data), say)
            for file, (number, hidden) in zip(files, enumerate(HIDDEN), strict=True)
        ]
        write(pl.concat(frames), done, seconds=seconds_of(files))


if __name__ == "__main__":
    sys.exit(main())
