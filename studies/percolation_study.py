"""The study of percolation in training: `python studies/percolation_study.py [--quick] [--only GROUP ...]`.

Trains the transformers of `PLANS` and `SCARCE` whose tables are not there yet, and writes the tables in
`studies/results/grammar/` and `docs/percolation-study.md` from them. `--only` trains some groups and writes
no page.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
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
from grammar.scarce import per_run

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
        for size in SIZES[1:2]
    )
    for name, blind in (("scarce", False), ("scarce, blind", True))
}
"""Pairs come one by one, so that the data percolate at step 354, later than the models of batch64
change; and the same without anything else that tells the classes."""
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


def tabulate(
    plans: dict[str, tuple[Run, ...]], recorded: Run, folders: tuple[Path, Path], *, draws: int = 500
) -> None:
    """Write the tables of groups of runs.

    Args:
        plans: Groups of runs that are in the cache.
        recorded: The recorded run.
        folders: Cache, results.
        draws: Bootstrap draws of a collapse.
    """
    cache, results = folders
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
    tables = {
        "logs": pl.concat(own.select(pl.lit(name).alias("group"), pl.all()) for name, own in logs.items()),
        "pairs": pairs,
        "exponents": pl.concat(exponent_table(group, each) for group, each in found.items()),
        "middles": pl.concat(middles(group, each) for group, each in found.items()),
        "data": data,
        "recorded": snapshots.with_columns(seen),
    }
    for name, frame in tables.items():
        frame.write_parquet(results / f"{name}.parquet")
    told = {group: after_grammar(each) for group, each in found.items()}
    (results / "after_grammar.json").write_text(json.dumps(told, indent=1) + "\n")


def tabulate_scarce(settings: dict[str, tuple[Run, ...]], folders: tuple[Path, Path]) -> None:
    """Write the logs of the settings whose runs are all in the cache, beside those written before."""
    cache, results = folders
    file = results / "scarce.parquet"
    frames = [pl.read_parquet(file)] if file.exists() else []
    for setting, runs in settings.items():
        kept = not frames or frames[0].filter(setting=setting).is_empty()
        if kept and all((cache / f"{run.name}.parquet").exists() for run in runs):
            frames.append(read_logs(runs, cache).select(pl.lit(setting).alias("setting"), pl.all()))
    if frames:
        results.mkdir(parents=True, exist_ok=True)
        pl.concat(frames, how="diagonal").write_parquet(file)


def write_page(plans: dict[str, tuple[Run, ...]], recorded: Run, results: Path, docs: Path) -> None:
    """Write figures, the page and the long tables from the tables in the results."""
    names = ("exponents", "middles", "data", "recorded")
    scarce = results / "scarce.parquet"
    logs = pl.read_parquet(results / "logs.parquet")
    tables = Tables(
        **{name: pl.read_parquet(results / f"{name}.parquet") for name in names},
        after_grammar=json.loads((results / "after_grammar.json").read_text()),
        scarce=per_run(pl.read_parquet(scarce), SCARCE) if scarce.exists() else None,
    )
    group = next(iter(plans))
    exponent = float(tables.exponents.filter(group=group, metric=PRIMARY, method="collapse")["exponent"][0])
    rescaled = {f"step / (|E||K| / 1e5)^{exponent:.2f}": exponent, "step / (|E||K| / 1e5)^0.5": 0.5}
    collapse(logs.filter(group=group), PRIMARY, rescaled, docs / "percolation-study-collapse.svg")
    time_axis(tables.recorded, docs / "percolation-study-time.svg")
    (docs / "percolation-study.md").write_text(page(tables, plans, PAPER), encoding="utf-8")
    (results / "tables.md").write_text(long_tables(tables, recorded), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few tiny runs, nothing kept")
    names = [*PLANS, *SCARCE, "recorded", "paper"]
    parser.add_argument("--only", nargs="+", choices=names, help="train these groups and write no page")
    parser.add_argument("--train-only", action="store_true", help="write no page")
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
            tabulate(QUICK, QUICK_RECORDED, (cache, cache), draws=20)
            write_page(QUICK, QUICK_RECORDED, cache, cache)
            text = (cache / "percolation-study.md").read_text(encoding="utf-8")
            say(next(line for line in text.splitlines() if line.startswith("**Answer")))
        return 0
    _train(chosen.only or [] if chosen.page_only else chosen.only or [*PLANS, *SCARCE, "recorded"], say)
    if not chosen.train_only and chosen.only is None:
        write_page(PLANS, RECORDED, RESULTS, DOCS)
    return 0


def _train(wanted: Sequence[str], say: Callable[[str], None]) -> None:
    """Train the groups whose tables are not in the results yet, and write these."""
    there = {"scarce": RESULTS / "scarce.parquet", "logs": RESULTS / "logs.parquet"}
    done = {
        name
        for table, column in (("scarce", "setting"), ("logs", "group"))
        if there[table].exists()
        for name in pl.read_parquet(there[table])[column].unique()
    }
    done |= {"recorded"} if (RESULTS / "recorded.parquet").exists() else set()
    for group, runs in {**PLANS, **SCARCE, "paper": (PAPER,)}.items():
        for run in runs if group in wanted and group not in done else ():
            train(run, CACHE)
            say(f"{group}: {run.name}")
    if "recorded" in wanted and "recorded" not in done:
        record(RECORDED, CACHE)
        say(f"recorded: {RECORDED.name}")
    tabulate_scarce(SCARCE, (CACHE, RESULTS))
    everything = [f"{run.name}.parquet" for runs in PLANS.values() for run in runs]
    if all((CACHE / name).exists() for name in (*everything, f"{RECORDED.name}-recorded.parquet")):
        tabulate(PLANS, RECORDED, (CACHE, RESULTS))


if __name__ == "__main__":
    sys.exit(main())
