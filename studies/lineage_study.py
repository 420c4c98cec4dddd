"""Relations between nets of known descent: `python studies/lineage_study.py [--quick] [--page]`.

Trains small nets of six architectures, makes derivations of each, and asks lineage what they are; calibrates
the match score on nets that differ in nothing but their seed; looks for relatives among 10,000 fingerprints.
Writes the last part of `docs/lineage.md`.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lineagenets.distilling import distillation, false_links, teach
from lineagenets.experiment import (
    SEEDS,
    calibrated,
    fingerprint_search,
    make,
    make_bases,
    measured,
    pairs,
    read_all,
)
from lineagenets.nets import ARCHITECTURES
from lineagenets.page import results_text, write_page

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "lineage"
PAGE = HERE.parent / "docs" / "lineage.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emergraph" / "studies" / "lineage"
UNRELATED = 120
"""Pairs of different seeds for each architecture."""
CALIBRATED = ("mlp", "lstm")


def relations(
    folder: Path, store: Path, *, unrelated: int = UNRELATED, known: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Compare all nets of a folder with their derivations, and a sample of those of other seeds.

    Pairs that are known are not compared again, but for those that tell an average from others.
    """
    models = read_all(folder, store)
    done = set() if known is None else set(known.select("a", "b").rows())
    chosen = [pair for pair in pairs(sorted(models), unrelated=unrelated, siblings=False) if pair not in done]
    found = measured(models, chosen, n_pairs=len(models) * (len(models) - 1) // 2) if chosen else None
    return pl.concat([one for one in (known, found) if one is not None], how="vertical_relaxed")


def by_outputs(cache: Path, results: Path) -> None:
    """Teach students, say what they are, and count false links among nets that nobody taught."""
    teach(cache / "nets", cache / "students", SEEDS)
    nets = sorted((cache / "nets").glob("*-base.onnx"))
    paths = {path.stem: path for path in (*nets, *sorted((cache / "students").glob("*.onnx")))}
    with tempfile.TemporaryDirectory() as name:
        for path in paths.values():
            (Path(name) / path.name).symlink_to(path)
        models = read_all(Path(name), cache / "students.duckdb")
    distillation(models, paths).write_parquet(results / "students.parquet")
    groups = {kind: sorted((cache / f"bases-{kind}").glob("*.onnx")) for kind in CALIBRATED}
    groups[" and ".join(CALIBRATED)] = [path for own in groups.values() for path in own]
    false_links(groups).write_parquet(results / "students-false.parquet")


def quick() -> str:
    """Two nets of one architecture, and few fingerprints: shows that everything runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, seeds=2, only=("mlp",))
        found = relations(folder, folder / "nets.duckdb", unrelated=10)
    return results_text(found, None, fingerprint_search(200))


def main() -> int:
    """Run what was not run before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two nets, nothing kept")
    parser.add_argument("--page", action="store_true", help="only write again what was measured")
    parser.add_argument("--again", action="store_true", help="compare all pairs again")
    arguments = parser.parse_args()
    if arguments.quick:
        print(quick())
        return 0
    if not arguments.page:
        RESULTS.mkdir(parents=True, exist_ok=True)
        make(CACHE / "nets")
        place = RESULTS / "pairs.parquet"
        known = pl.read_parquet(place) if place.exists() and not arguments.again else None
        relations(CACHE / "nets", CACHE / "nets.duckdb", known=known).write_parquet(place)
        scores = []
        for kind in (one for one in ARCHITECTURES if one.name in CALIBRATED):
            make_bases(kind, CACHE / f"bases-{kind.name}")
            scores.append(calibrated(CACHE / f"bases-{kind.name}", CACHE / f"bases-{kind.name}.duckdb"))
        pl.concat(scores).write_parquet(RESULTS / "scores.parquet")
        by_outputs(CACHE, RESULTS)
        found = fingerprint_search(10_000)
        (RESULTS / "fingerprints.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_page(RESULTS, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
