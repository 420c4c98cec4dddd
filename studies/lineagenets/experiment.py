"""Nets of known descent, read, compared and judged."""

import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import torch

from emergraph.analysis.comparison.model import Model, read_model
from emergraph.analysis.lineage.fingerprint import Fingerprint, candidates, sketch_of
from emergraph.analysis.lineage.kinds import Kind
from emergraph.analysis.lineage.lineage import judge
from emergraph.analysis.lineage.pairs import Relation, compared
from emergraph.analysis.statistics.permutation import share_as_extreme
from emergraph.exporters.export import ExportOptions
from emergraph.exporters.sources import export_any
from emergraph.graphstore.store import open_store
from lineagenets.derive import KINDS, loaded, write_all
from lineagenets.nets import ARCHITECTURES, Architecture, save, trained

SEEDS = 5
CALIBRATION_SEEDS = 34
"""Nets of one architecture and data."""
CALIBRATING = 26
"""Those whose 325 pairs the p value of the match score is read off."""
LEVEL = 1e-6


def make(folder: Path, seeds: int = SEEDS, only: Sequence[str] = ()) -> None:
    """Train the nets and write them and their derivations, where they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for kind in ARCHITECTURES:
        for seed in range(seeds):
            base = folder / f"{kind.name}-{seed}-base.onnx"
            if only and kind.name not in only:
                continue
            write_all(loaded(kind, base) if base.exists() else trained(kind, seed), kind, seed, folder)


def make_bases(kind: Architecture, folder: Path, seeds: int = CALIBRATION_SEEDS) -> None:
    """Train nets of one architecture that differ in nothing but their seed."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for seed in range(seeds):
        path = folder / f"{kind.name}-{seed}-base.onnx"
        if not path.exists():
            save(trained(kind, seed), kind, path)


ALIKE = {one: one for one in ("re-exported", "layer-removed", "quantized", "units-cut")}
"""Derivations with a graph of their own; the others have that of the net that they were made of."""


def read_all(folder: Path, store: Path) -> dict[str, Model]:
    """Return the model of each file.

    One file of each graph is exported; the others are the same graph with other numbers, which are read from
    the file.
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
        unrelated: Pairs of different seeds for each architecture; a third as many with a net that units were
            cut out of.
        siblings: Whether pairs of two derivations of one net are among them; else those that tell an average.
        seed: Of the sample.
    """
    rngs = random.Random(seed), random.Random(seed + 1)
    for kind in ARCHITECTURES:
        own = list(combinations([n for n in names if n.startswith(f"{kind.name}-")], 2))
        related = [pair for pair in own if truth(*pair) != "independent"]
        yield from [pair for pair in related if siblings or truth(*pair) or _parents(*pair)]
        others = [pair for pair in own if truth(*pair) == "independent"]
        cut = [pair for pair in others if any(name.endswith("-units-cut") for name in pair)]
        rest = [pair for pair in others if pair not in cut]
        for rng, some, most in zip(rngs, (rest, cut), (unrelated, unrelated // 3), strict=True):
            yield from rng.sample(some, min(most, len(some)))


def _parents(a: str, b: str) -> bool:
    """Whether one is an average of a net and the other."""
    return {one.split("-", 2)[2] for one in (a, b)} == {"averaged", "tuned-lot"}


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


def calibrated(folder: Path, store: Path) -> pl.DataFrame:
    """Compare independent nets of one architecture: those of 26 with each other, and others with all.

    The p value of a pair of the others is the share of pairs of the 26 whose match score is as high.
    """
    models = read_all(folder, store)
    names = sorted(models, key=lambda name: int(name.split("-")[1]))
    chosen = list(combinations(names, 2))
    frame = measured(models, chosen, n_pairs=len(chosen))
    known = set(names[:CALIBRATING])
    inside = pl.col("a").is_in(known) & pl.col("b").is_in(known)
    drawn = frame.filter(inside)["score"].to_numpy()
    p = [share_as_extreme(drawn, score) for score in frame["score"]]
    return frame.select("architecture", "a", "b", "p", "score", "matched").with_columns(
        calibrating=inside, match_p=pl.Series(p)
    )


def fingerprint_search(n: int, *, seed: int = 0) -> dict[str, float]:
    """Look for the derivation of each of n / 2 synthetic nets among n fingerprints.

    A net has three matrices of 24 units; its derivation is renumbered, rescaled, rounded to 8 bits, pruned by
    30 %, or trained on: noise of 5, 10 or 20 % of the weights.
    """
    rng = np.random.default_rng(seed)
    prints, kinds = [], []
    changes = ("renumbered and rescaled", "8 bits", "pruned 30 %", "noise 5 %", "noise 10 %", "noise 20 %")
    for place in range(n // 2):
        base = [rng.standard_normal((24, 24, 1)) * rng.lognormal(0, 0.5, (24, 1, 1)) for _ in range(3)]
        kinds.append(changes[place % len(changes)])
        for weights in (base, [_derived(one, kinds[-1], rng) for one in base]):
            sketches = tuple((one.shape, sketch_of(one)) for one in weights)
            prints += [Fingerprint(sketches=sketches)]
    begin = time.process_time()
    found = candidates(prints)
    seconds = time.process_time() - begin
    hits = np.array([(2 * place, 2 * place + 1) in found for place in range(n // 2)])
    shares = {kind: float(hits[[one == kind for one in kinds]].mean()) for kind in changes}
    return {
        "fingerprints": n,
        "bytes": prints[0].n_bytes,
        "cpu_seconds": round(seconds, 1),
        "candidates": len(found),
        "recall": float(hits.mean()),
        **{f"recall, {kind}": share for kind, share in shares.items()},
    }


def _derived(weights: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind.startswith("noise"):
        size = float(kind.split()[1]) / 100
        return weights + size * weights.std() * rng.standard_normal(weights.shape)
    if kind == "8 bits":
        step = np.abs(weights).max() / 127
        return np.round(weights / step) * step
    if kind.startswith("pruned"):
        return np.where(np.abs(weights) < np.quantile(np.abs(weights), 0.3), 0, weights)
    rows, columns = (rng.permutation(24) for _ in range(2))
    return weights[rows][:, columns] * rng.lognormal(0, 1, (24, 1, 1)) * rng.lognormal(0, 1, (1, 24, 1))


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
