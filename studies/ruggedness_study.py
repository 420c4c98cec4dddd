"""Emergence and loss-landscape ruggedness: `python studies/ruggedness_study.py [--quick]`.

Trains dense nets of several sizes, seeds and pruning levels, measures emergence and every ruggedness
statistic of each, and correlates them. Architectures that were measured before are not measured again. Writes
`docs/ruggedness-study.md` from the tables.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from ruggedness.correlate import correlations
from ruggedness.measure import measure
from ruggedness.nets import Digits, digits, train_group
from ruggedness.page import SHOWN, page, tables

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "ruggedness"
PAGE = HERE.parent / "docs" / "ruggedness-study.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emergraph" / "studies"

HIDDEN = ((8,), (16,), (32,), (12, 12))
LEVELS = (0.0, 0.5, 0.8, 0.9)
SEEDS = 5


def measured(
    number: int, hidden: tuple[int, ...], data: Digits, *, seeds: int, steps: int, n: int, quick: bool
) -> pl.DataFrame:
    """One row per net of an architecture."""
    levels = [level for level in LEVELS for _ in range(seeds)]
    own = [1000 * number + i for i in range(len(levels))]
    group = train_group((64, *hidden, 10), own, levels, data, steps=steps)
    rows = [measure(group, net, data, n=n, quick=quick) for net in range(len(levels))]
    return pl.DataFrame(rows, infer_schema_length=None)


def quick_tables(data: Digits) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A dozen barely trained nets and their correlations: shows that everything runs, and no more."""
    parts = [
        measured(i, hidden, data, seeds=1, steps=20, n=100, quick=True)
        for i, hidden in enumerate(((6,), (8,), (6, 6)))
    ]
    nets = pl.concat(parts)
    return nets, correlations(nets, only=SHOWN[:8], permutations=99)


def publish(nets: pl.DataFrame) -> None:
    """Correlate, and write the page of findings and the long tables beside the results."""
    found = correlations(nets)
    found.write_parquet(RESULTS / "correlations.parquet")
    PAGE.write_text(page(nets, found), encoding="utf-8")
    (RESULTS / "tables.md").write_text(tables(found), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a dozen barely trained nets, nothing kept")
    parser.add_argument(
        "--page", action="store_true", help="only correlate and write again what was measured"
    )
    arguments = parser.parse_args()
    if arguments.page:
        publish(pl.read_parquet(RESULTS / "networks.parquet"))
        return 0
    torch.set_num_threads(1)  # products of this size gain nothing from more, and the order of sums stays
    data, started = digits(), time.monotonic()
    if arguments.quick:
        nets, found = quick_tables(data)
        print(page(nets, found))
        return 0
    CACHE.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, hidden in enumerate(HIDDEN):
        kept = CACHE / f"ruggedness-{'-'.join(map(str, hidden))}.parquet"
        if not kept.exists():
            measured(number, hidden, data, seeds=SEEDS, steps=300, n=400, quick=False).write_parquet(kept)
        parts.append(pl.read_parquet(kept))
        print(f"{time.monotonic() - started:7.1f} s  hidden layers {hidden}", flush=True)
    nets = pl.concat(parts)
    RESULTS.mkdir(parents=True, exist_ok=True)
    nets.write_parquet(RESULTS / "networks.parquet")
    publish(nets)
    print(f"{time.monotonic() - started:7.1f} s  wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
