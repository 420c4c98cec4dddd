"""The study of percolation in training: `python studies/percolation_study.py [--quick] [--only GROUP ...]`.

Trains the transformers of `PLANS` (those whose tables are not in the cache yet), and writes the tables in
`studies/results/grammar/` and `docs/percolation-study.md` from them. `--only` trains some groups and writes
nothing.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from grammar.experiment import Run, read_logs, read_pairs, record, train
from grammar.figures import collapse, time_axis
from grammar.findings import (
    PRIMARY,
    after_grammar,
    data_percolation,
    exponent_table,
    middles,
    seen_pairs,
    transitions,
)
from grammar.page import Tables, long_tables, page

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "grammar"
DOCS = HERE.parent / "docs"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emergraph" / "studies" / "grammar"

SIZES = (200, 450, 1000, 2200, 5000)
SEEDS = (0, 1, 2)
PLANS: dict[str, tuple[Run, ...]] = {
    "batch64": tuple(
        Run(n_properties=size, batch=64, learning_rate=3e-3, steps=1000, seed=seed)
        for seed in SEEDS
        for size in SIZES
    ),
    "batch16": tuple(
        Run(n_properties=size, batch=16, learning_rate=1.5e-3, steps=2000, seed=0) for size in SIZES[:4]
    ),
}
SCARCE: dict[str, tuple[Run, ...]] = {
    name: tuple(
        Run(
            n_properties=size,
            batch=64,
            learning_rate=3e-3,
            steps=700,
            seed=seed,
            checks=30,
            n_free=20,
            release=0.5,
            blind=blind,
        )
        for seed in SEEDS
        for size in SIZES[1:3]
    )
    for name, blind in (("scarce", False), ("scarce, blind", True))
}
"""Pairs come one by one, so that the data percolate at step 354 to 526, later than the models of batch64 change;
and the same without anything else that tells the classes."""
RECORDED = Run(n_properties=450, batch=64, learning_rate=3e-3, steps=600, seed=0, checks=20)
PAPER = Run(
    n_entities=900, n_properties=18000, width=128, batch=128, learning_rate=1e-3, steps=100_000, seed=0
)
QUICK: dict[str, tuple[Run, ...]] = {
    "quick": tuple(
        Run(
            n_entities=20,
            n_properties=size,
            batch=8,
            learning_rate=3e-3,
            steps=16,
            seed=seed,
            checks=6,
            n_free=10,
        )
        for seed in (0, 1)
        for size in (40, 80)
    )
}
QUICK_RECORDED = Run(
    n_entities=20,
    n_properties=40,
    batch=8,
    learning_rate=3e-3,
    steps=6,
    seed=0,
    width=16,
    checks=2,
    n_free=10,
)


def write(
    plans: dict[str, tuple[Run, ...]], recorded: Run, folders: tuple[Path, Path, Path], *, draws: int = 500
) -> None:
    """Write tables, figures and the page.

    Args:
        plans: Groups of runs that are in the cache.
        recorded: The recorded run.
        folders: Cache, results, docs.
        draws: Bootstrap draws of a collapse.
    """
    cache, results, docs = folders
    results.mkdir(parents=True, exist_ok=True)
    logs = {group: read_logs(runs, cache) for group, runs in plans.items()}
    found = {group: transitions(own, draws=draws) for group, own in logs.items()}
    first = [run for runs in plans.values() for run in runs if run.seed == 0]
    pairs = read_pairs(first, cache)
    snapshots = pl.read_parquet(cache / f"{recorded.name}-recorded.parquet")
    own = pairs.filter(
        (pl.col("n_properties") == recorded.n_properties) & (pl.col("batch") == recorded.batch)
    )
    data = data_percolation(pairs)
    expected = data.filter(
        (pl.col("n_properties") == recorded.n_properties) & (pl.col("batch") == recorded.batch)
    )["expected_threshold"][0]
    seen = pl.Series("pairs", seen_pairs(own, snapshots["step"].to_list()), dtype=pl.Float64) / expected
    tables = Tables(
        exponents=pl.concat(exponent_table(group, each) for group, each in found.items()),
        middles=pl.concat(middles(group, each) for group, each in found.items()),
        data=data,
        recorded=snapshots.with_columns(seen),
        after_grammar={group: after_grammar(each) for group, each in found.items()},
    )
    group, main_logs = next(iter(logs.items()))
    exponent = next(each for each in found[group][PRIMARY].exponents if each.method == "collapse").exponent
    rescaled = {f"step / (|E||K| / 1e5)^{exponent:.2f}": exponent, "step / (|E||K| / 1e5)^0.5": 0.5}
    collapse(main_logs, PRIMARY, rescaled, docs / "percolation-study-collapse.svg")
    time_axis(tables.recorded, docs / "percolation-study-time.svg")
    pl.concat(own.select(pl.lit(name).alias("group"), pl.all()) for name, own in logs.items()).write_parquet(
        results / "logs.parquet"
    )
    pairs.write_parquet(results / "pairs.parquet")
    tables.exponents.write_parquet(results / "exponents.parquet")
    tables.middles.write_parquet(results / "middles.parquet")
    tables.data.write_parquet(results / "data.parquet")
    tables.recorded.write_parquet(results / "recorded.parquet")
    (results / "after_grammar.json").write_text(json.dumps(tables.after_grammar, indent=1) + "\n")
    (docs / "percolation-study.md").write_text(page(tables, plans, PAPER), encoding="utf-8")
    (results / "tables.md").write_text(long_tables(tables, recorded), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few tiny runs, nothing kept")
    names = [*PLANS, *SCARCE, "recorded", "paper"]
    parser.add_argument("--only", nargs="+", choices=names, help="train these groups and write nothing")
    parser.add_argument("--train-only", action="store_true", help="write no results and no page")
    parser.add_argument("--page-only", action="store_true", help="write what the groups that are trained say")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {line}", flush=True)

    if chosen.quick:
        with tempfile.TemporaryDirectory() as folder:
            cache = Path(folder)
            for run in QUICK["quick"]:
                train(run, cache)
            say("trained")
            record(QUICK_RECORDED, cache)
            say("recorded")
            write(QUICK, QUICK_RECORDED, (cache, cache, cache), draws=20)
            text = (cache / "percolation-study.md").read_text(encoding="utf-8")
            say(next(line for line in text.splitlines() if line.startswith("**Answer")))
        return 0
    wanted = [] if chosen.page_only else chosen.only or [*PLANS, *SCARCE, "recorded"]
    for group, runs in {**PLANS, **SCARCE, "paper": (PAPER,)}.items():
        for run in runs if group in wanted else ():
            train(run, CACHE)
            say(f"{group}: {run.name}")
    if "recorded" in wanted:
        record(RECORDED, CACHE)
        say(f"recorded: {RECORDED.name}")
    if not chosen.train_only and chosen.only is None:
        there = {
            group: runs
            for group, runs in PLANS.items()
            if all((CACHE / f"{run.name}.parquet").exists() for run in runs)
        }
        write(there, RECORDED, (CACHE, RESULTS, DOCS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
