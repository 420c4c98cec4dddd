"""How time and memory of each analysis grow with the graph: 1, 10 and 100 M edges as rows.

`python benchmarks/bench_growth.py [--sizes 1 10 100] [--folder FOLDER] [--only NAME ...]` makes transformers
of random weights, exports them, runs each analysis in a process of its own, and prints CPU seconds, peak
anonymous memory and the slopes of both between neighbouring sizes on logarithmic scales. A slope of 1 is
proportional. Everything is removed again; 100 M edges need about 1.2 GB of disk.
"""

import argparse
import math
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path

from bench_large import measured
from synthetic import transformer

SHAPES = {1: (2, 200), 10: (3, 528), 100: (8, 1024)}
"""Millions of weights -> layers and width."""
ANALYSES = {
    "export": [],
    "emergence": ["--threshold", "0.5"],
    "prune": [],
    "percolate": [],
    "topology": ["--no-spectra"],
    "paths": [],
}
LIMIT = 1.1
"""Slopes above it are marked."""


def main() -> None:
    """Make, measure, remove."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sizes", type=int, nargs="+", choices=SHAPES, default=list(SHAPES))
    options.add_argument("--folder", type=Path, default=None)
    options.add_argument("--only", nargs="+", choices=ANALYSES, default=list(ANALYSES))
    given = options.parse_args()
    place = Path(tempfile.mkdtemp(dir=given.folder))
    found: dict[str, list[tuple[int, float, float]]] = {}
    try:
        for size in given.sizes:
            for name, cpu, peak in _of_size(place, size, given.only):
                found.setdefault(name, []).append((size, cpu, peak))
                print(f"{name:12} {size:4} M {cpu:8.1f} CPU s {peak:8.0f} MiB", flush=True)
    finally:
        shutil.rmtree(place)
    print(f"\n{'slopes':12} {'time':>16} {'memory':>16}")
    for name, rows in found.items():
        slopes = [
            [math.log(after[k] / before[k]) / math.log(after[0] / before[0]) for k in (1, 2)]
            for before, after in pairwise(rows)
        ]
        time, memory = (", ".join(f"{slope[k]:.2f}" for slope in slopes) for k in (0, 1))
        above = any(max(slope) > LIMIT for slope in slopes)
        print(f"{name:12} {time:>16} {memory:>16} {'above' if above else ''}")


def _of_size(place: Path, size: int, names: list[str]) -> list[tuple[str, float, float]]:
    layers, width = SHAPES[size]
    model, store = place / f"{size}.onnx", place / f"{size}.duckdb"
    transformer(model, layers=layers, width=width, heads=8, hidden=4 * width)
    export = ("export", *_one(["export", str(model), str(store), "--edges", "stored", "-q"]))
    measured(["trace", str(store), "--model", str(model), "--random", "4", "-q"])
    words = {name: [name, str(store), *ANALYSES[name], "--no-save", "-q"] for name in names}
    return [export, *((name, *_one(own)) for name, own in words.items() if name != "export")]


def _one(words: list[str]) -> tuple[float, float]:
    cpu, _, peak, _ = measured(words)
    return cpu, peak / 2**20


if __name__ == "__main__":
    main()
