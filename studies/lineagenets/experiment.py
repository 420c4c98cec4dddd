"""Nets of known descent, read, compared and judged."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import torch

from emergraph.analysis.lineage.kinds import Kind
from emergraph.analysis.lineage.lineage import judge
from emergraph.analysis.lineage.model import Model, read_model
from emergraph.analysis.lineage.pairs import Relation, compared
from emergraph.exporters.export import ExportOptions
from emergraph.exporters.sources import export_any
from emergraph.graphstore.store import open_store
from lineagenets.derive import KINDS, write_all
from lineagenets.nets import ARCHITECTURES, Architecture, save, trained

SEEDS = 5
CALIBRATION_SEEDS = 26
"""Nets of one architecture and data: 325 independent pairs."""
LEVEL = 1e-6


def make(folder: Path, seeds: int = SEEDS, only: Sequence[str] = ()) -> None:
    """Train the nets and write them and their derivations, where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for kind in ARCHITECTURES:
        for seed in range(seeds):
            if (only and kind.name not in only) or (folder / f"{kind.name}-{seed}-quantized.onnx").exists():
                continue
            write_all(trained(kind, seed), kind, seed, folder)


def make_bases(kind: Architecture, folder: Path, seeds: int = CALIBRATION_SEEDS) -> None:
    """Train nets of one architecture that differ in nothing but their seed."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for seed in range(seeds):
        path = folder / f"{kind.name}-{seed}-base.onnx"
        if not path.exists():
            save(trained(kind, seed), kind, path)


ALIKE = {"re-exported": "re-exported", "layer-removed": "layer-removed", "quantized": "quantized"}
"""Derivations with a graph of their own; the others have that of the net that they were made of."""


def read_all(folder: Path, store: Path) -> dict[str, Model]:
    """Return the model of each file.

    One file of each graph is exported; the others are the same graph with other numbers, which are read from
    the file. `tests/studies/test_lineage_nets.py` holds one of each against its own export.
    """
    templates: dict[tuple[str, str], tuple[Model, Places]] = {}
    found = {}
    with open_store(store, mode="create") as opened:
        there = set(opened.graphs()["name"].to_list())
        paths = sorted(
            folder.glob("*.onnx"), key=lambda path: (path.stem.split("-", 2)[2] != "base", path.stem)
        )
        for path in paths:
            name, seed, label = path.stem.split("-", 2)
            own = "base" if label == "quantized" and int(seed) % 2 else ALIKE.get(label, "base")
            if (name, own) not in templates:
                if path.stem not in there:
                    export_any(path, opened, options=ExportOptions(name=path.stem))
                model = read_model(opened.graph(path.stem), path.stem)
                known = templates[name, "base"][1] if own == "quantized" else _places(model, path)
                templates[name, own] = model, known
            found[path.stem] = _with_numbers(*templates[name, own], path)
    return found


Places = dict[str, np.ndarray]
"""By tensor: which element of the file's tensor each entry of the matrix is."""


def _numbers(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name; quantized ones under the name of what they stand for."""
    found = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    for name in [name for name in found if name.endswith("_q")]:
        whole, scale = found[name].astype(np.float32), found[f"{name.removesuffix('_q')}_scale"]
        found[name.removesuffix("_q")] = whole * scale.reshape(-1, *[1] * (whole.ndim - 1))
    return found


def _places(model: Model, path: Path) -> Places:
    """Where the entries of a model's matrices are in its file, by their values, which all differ."""
    numbers, found = _numbers(path), {}
    for name, values in model.values.items():
        place = np.empty(values.size, dtype=np.int64)
        place[np.argsort(values, axis=None)] = np.argsort(numbers[name], axis=None)
        found[name] = place
    return found


def _with_numbers(template: Model, places: Places, path: Path) -> Model:
    """The same graph with the numbers of a file."""
    numbers = _numbers(path)
    values = {}
    for name, own in template.values.items():
        plain = name.removesuffix("_q")
        values[name] = numbers[plain].ravel()[places[plain]].reshape(own.shape).astype(np.float64)
    weights = tuple(replace(weight, sha256=None) for weight in template.weights)
    facts = {**template.graph, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return replace(template, name=path.stem, values=values, weights=weights, graph=facts)


def truth(a: str, b: str) -> str | None:
    """The kind of relation between two files: None where it is known that there is one, and not which."""
    first, second = a.split("-", 2), b.split("-", 2)
    if first[:2] != second[:2]:
        return "independent"
    if "base" not in (first[2], second[2]):
        return None
    return KINDS[second[2] if first[2] == "base" else first[2]]


def pairs(
    names: Sequence[str], *, unrelated: int, siblings: bool, seed: int = 0
) -> Iterator[tuple[str, str]]:
    """Yield pairs of related nets, and a sample of other pairs of one architecture.

    Args:
        names: All files.
        unrelated: Pairs of different seeds for each architecture.
        siblings: Whether pairs of two derivations of one net are among them.
        seed: Of the sample.
    """
    rng = random.Random(seed)
    for kind in ARCHITECTURES:
        own = list(combinations([n for n in names if n.startswith(f"{kind.name}-")], 2))
        related = [pair for pair in own if truth(*pair) != "independent"]
        yield from related if siblings else [pair for pair in related if truth(*pair)]
        others = [pair for pair in own if truth(*pair) == "independent"]
        yield from rng.sample(others, min(unrelated, len(others)))


def row(a: str, b: str, found: Relation) -> dict[str, Any]:
    """One pair as a row."""
    test, alike = found.test, found.alike
    return {
        "architecture": a.split("-", maxsplit=1)[0],
        "a": a,
        "b": b,
        "truth": truth(a, b),
        "kind": found.judged.kind.value,
        "related": found.related,
        "by": found.by,
        "p": found.p,
        "p_corrected": found.p_corrected,
        "rho": None if test is None else test.rho,
        "refused": 0 if test is None else len(test.refused),
        "cosine": None if alike is None else alike.cosine,
        "matched": None if alike is None else alike.matched,
        "score": found.score,
        "evidence": found.judged.evidence,
    }


def measured(models: dict[str, Model], chosen: Sequence[tuple[str, str]], *, n_pairs: int) -> pl.DataFrame:
    """Compare pairs; p values are corrected over as many as there are."""
    names = sorted(models)
    number = {name: place for place, name in enumerate(names)}
    found = [compared((number[a], number[b]), models[a], models[b], seed=0) for a, b in chosen]
    architectures = [models[name].architecture for name in names]
    judged = judge(found, lambda place: models[names[place]], architectures, n_pairs=n_pairs, level=LEVEL)
    rows = [row(names[one.a], names[one.b], one) for one in judged]
    return pl.DataFrame(rows, infer_schema_length=None)


def strength(frame: pl.DataFrame) -> pl.Series:
    """What pairs are ordered by: the larger of the cosine as stored and, beyond 0.5, that after matching."""
    beyond = ((pl.col("matched") - 0.5) / 0.5).clip(0, 1)
    return frame.select(pl.max_horizontal(pl.col("cosine").clip(0, 1), beyond).fill_null(0)).to_series()


def auroc(frame: pl.DataFrame) -> float:
    """Probability that a related pair is ordered before an unrelated one."""
    from scipy.stats import rankdata

    positive = frame["truth"].fill_null("related").to_numpy() != Kind.INDEPENDENT.value
    ranks = rankdata(strength(frame).to_numpy())
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))
