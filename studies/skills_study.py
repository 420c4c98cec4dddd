"""The study of skills: `python studies/skills_study.py [--quick]`.

Trains two-layer networks on multitask sparse parity, predicts when each skill emerges from the first one
alone, and asks whether path-count emergence and percolation change when skills emerge. Writes
`studies/results/skills/` and `docs/skills-study.md`; `--page-only` trains nothing. Finished seeds lie
in the user's cache, so that a second run goes on where the first stopped.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import polars as pl
from skillsmodel.experiment import change_effect, emergence_steps, run_seed
from skillsmodel.findings import per_seed, primary
from skillsmodel.page import write_page

from emergraph.analysis.skills.fit import FitOptions, SkillCurves, fit_skills
from emergraph.analysis.skills.simulate import SimulationOptions

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "skills"
PAGE = HERE.parent / "docs" / "skills-study.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emergraph" / "studies" / "skills"
FULL = SimulationOptions(bits=16, width=128, batch=500, steps=10000, points=100, snapshots=20)
QUICK = SimulationOptions(
    n_skills=2,
    bits=8,
    relevant=2,
    width=32,
    batch=100,
    steps=300,
    points=15,
    target=1.0,
    rate=0.3,
    snapshots=3,
)
SEEDS = 6
TABLES = ("curves", "snapshots")
MEASURES = ("log10_active", "log10_any", "log10_abs", "percolation")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tiny network, nothing kept")
    parser.add_argument(
        "--page-only", action="store_true", help="fit again, and write the page, from what was trained"
    )
    parser.add_argument("--train-only", action="store_true", help="do not write the page")
    parser.add_argument("--jobs", type=int, default=-1, help="stop after so many new seeds")
    arguments = parser.parse_args()
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:7.1f} s  {line}", flush=True)

    if arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
            run(QUICK, 1, Path(folder), Path(folder), say)
        return 0
    if not arguments.page_only:
        jobs = arguments.jobs
        RESULTS.mkdir(parents=True, exist_ok=True)
        if not run(FULL, SEEDS, RESULTS, CACHE, say, jobs):
            return 0
    else:
        analyse(FULL, RESULTS)
    if not arguments.train_only:
        write_page(RESULTS, PAGE)
    return 0


def run(options: SimulationOptions, seeds: int, results: Path, cache: Path, say, jobs: int = -1) -> bool:  # noqa: ANN001
    """Train and measure the seeds that are not there yet; fit; write the tables.

    Returns whether all seeds are there; False after `jobs` new ones.
    """
    curves, snapshots = [], []
    cache.mkdir(parents=True, exist_ok=True)
    found = results / "found.json"
    before = json.loads(found.read_text(encoding="utf-8"))["options"] if found.exists() else {}
    measured_before = {name: value for name, value in before.items() if name != "seed"}
    for seed in range(seeds):
        chosen = replace(options, seed=seed)
        sizes = {name: value for name, value in chosen.to_dict().items() if name != "seed"}
        key = hashlib.sha256(json.dumps([sizes, seed, MEASURES]).encode()).hexdigest()[:12]
        tables = [cache / f"{key}-{kind}.parquet" for kind in TABLES]
        if not tables[1].exists() and sizes == measured_before:
            for name, table in zip(TABLES, tables, strict=True):
                kept = pl.read_parquet(results / f"{name}.parquet").filter(run=seed)
                if kept.height:
                    kept.write_parquet(table)
        if not tables[1].exists():
            if jobs == 0:
                return False
            jobs -= 1
            began = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                one, measured = run_seed(chosen, Path(folder) / "parity.duckdb", say)
            one.write_parquet(tables[0])
            measured.with_columns(cpu_seconds=pl.lit(time.process_time() - began)).write_parquet(tables[1])
        curves.append(pl.read_parquet(tables[0]))
        snapshots.append(pl.read_parquet(tables[1]))
    pl.concat(curves).write_parquet(results / "curves.parquet")
    pl.concat(snapshots).write_parquet(results / "snapshots.parquet")
    analyse(options, results)
    say("done")
    return True


def analyse(options: SimulationOptions, results: Path) -> None:
    """Write `found.json` from the curves and snapshots."""
    table, measured = (pl.read_parquet(results / f"{name}.parquet") for name in ("curves", "snapshots"))
    fit = fit_skills(SkillCurves.from_frame(table), FitOptions(target=options.target))
    emergence = emergence_steps(table, options.target)
    changes = [change_effect(measured, emergence, name, draws=2000, seed=0) for name in MEASURES]
    seeds_alone = per_seed(table, options.target)
    found = {
        "options": options.to_dict(),
        "seeds": table["run"].n_unique(),
        "skills": fit.emergence.to_dicts(),
        "families": fit.comparison().to_dicts(),
        "per_seed": seeds_alone.to_dicts(),
        "primary": primary(seeds_alone).to_dicts(),
        "parameters": list(fit.families[0].parameters),
        "emergence_steps": {str(run): steps for run, steps in emergence.items()},
        "changes": changes,
        "cpu_seconds": round(
            measured.group_by("run").agg(pl.col("cpu_seconds").first())["cpu_seconds"].sum()
        ),
    }
    (results / "found.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
