"""Structural and functional E: `python studies/functional_study.py [--quick] [--page] [--only FILE]`.

Of each file of `tests/third_party_models.json` that runs: the count of paths, how much of it lies along edges
that carry something on samples, and a sample of units knocked out. Each file is a line of the results, and a
stopped run goes on where it was. Writes `docs/functional-study.md`, which names the others with the reason.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent))

from functional.page import SOUNDS, write_page

import emergraph
from emergraph.analysis.emergence.options import ExtentOptions
from emergraph.analysis.influence.options import ContributionOptions, InfluenceOptions, ModelRunOptions
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import random_samples
from emergraph.exporters.traces.samples import RandomInputs

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "studies" / "results" / "functional" / "files.jsonl"
PAGE = ROOT / "docs" / "functional-study.md"
SAMPLES = 8
FEW, COSTLY = 2, ("pdnsmos", "open-nsfw", "minilm")
"""Samples, and files that contributions and knock-outs take so many of: minutes of processor time each."""
UNITS = 64
"""Hidden units of each file that are knocked out."""
SHARES = (0.001, 0.01, 0.1)
"""Of what flows into the target of an edge."""


def listed() -> tuple[list[tuple[str, Path]], dict[str, str]]:
    """The trained files that can run, the smallest first; and why each of the others does not."""
    folder = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
    facts = json.loads((ROOT / "tests" / "third_party_models.json").read_text(encoding="utf-8"))
    facts = sorted(facts, key=lambda one: one["naive_edges"])
    named = Counter((one["package"], Path(one["path"]).name) for one in facts)
    files: list[tuple[str, Path]] = []
    others: dict[str, str] = {}
    for one in facts:
        package, path = one["package"], Path(one["path"])
        several = named[package, path.name] > 1
        name = f"{package}: {path.parent.name + '/' if several else ''}{path.name}"
        if one["format"] != "onnx":
            others[name] = f"{one['format']}: holds no network that onnxruntime runs"
        elif not one["params"]:
            others[name] = "no weights: it looks up neighbours"
        elif (folder / package / path).exists():
            files.append((name, folder / package / path))
        else:
            others[name] = "not fetched"
    return files, others


def inputs_of(path: Path) -> tuple[dict[str, np.ndarray], dict[str, int | None]]:
    """All samples with their axes: random, or sounds where such noise would saturate the network."""
    if SOUNDS in path.parts:
        rng, t = np.random.default_rng(0), np.arange(576) / 16000
        tones = [
            sum(np.sin(2 * np.pi * f * k * t + rng.uniform(0, 6)) / k for k in range(1, 12))
            for f in rng.uniform(90, 260, SAMPLES // 2)
        ]
        noise = 0.1 * rng.standard_normal((SAMPLES // 2, t.size))
        return {"input": np.concatenate([0.25 * np.array(tones), noise]).astype(np.float32)}, {"input": 0}
    samples = random_samples(read_onnx(path), RandomInputs(SAMPLES, seed=0), TraceOptions()).samples
    each = [samples.feeds([k]) for k in range(SAMPLES)]
    arrays = {
        name: each[0][name] if axis is None else np.concatenate([one[name] for one in each], axis)
        for name, axis in samples.axes.items()
    }
    return arrays, dict(samples.axes)


def cpu_seconds() -> float:
    """Of this process and the children that have ended: models run in those."""
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in each)


def measured(name: str, path: Path, folder: Path) -> dict[str, Any]:
    """One file: paths, those along edges that carry something, and knock-outs."""
    begin = cpu_seconds()
    graph = emergraph.export(path, folder / "net.duckdb")
    arrays, axes = inputs_of(path)
    np.savez(folder / "inputs.npz", **arrays)
    told = tuple(f"{key}={'none' if axis is None else axis}" for key, axis in axes.items())
    run = ModelRunOptions(model=path, inputs=folder / "inputs.npz", sample_axis=told)
    graph.trace(arrays, model=path, sample_axes=axes)
    n = FEW if any(part in str(path) for part in COSTLY) else SAMPLES
    flows = graph.analyse("contributions", run, ContributionOptions(top=0, samples=n))
    has_source = pl.col("src").is_not_null()
    row: dict[str, Any] = {"file": name, "samples": n, "edges": flows.frame.filter(has_source).height}
    row["left_out"] = len(flows.left_out)
    for share in SHARES:
        found = graph.analyse("emergence", ExtentOptions(carried=share), save=False)
        whole, part = found.count("active").emergence, found.carried[0].emergence
        row["log10_paths"] = whole.to_dict()["log10"]
        row[f"share_{share}"] = float(10 ** (part.log10 - whole.log10)) if whole.value else None
    shares = flows.frame.filter(has_source)["share"].to_numpy()
    row["strong_edges"] = {str(share): float((shares > share).mean()) for share in SHARES}
    row |= knocked_out(graph, run, n)
    row["cpu_seconds"] = round(cpu_seconds() - begin, 1)
    return row


def knocked_out(graph: emergraph.Graph, run: ModelRunOptions, n: int) -> dict[str, Any]:
    """What knocking out some hidden units does."""
    hidden = emergraph.open(graph.path).sql(
        "SELECT l.name, u.position FROM units AS u JOIN layers AS l ON l.graph = u.graph AND l.id = u.layer "
        "WHERE u.role = 'hidden' AND u.neuron ORDER BY u.id",
        rows=10_000_000,
    )
    drawn = hidden.sample(min(UNITS, hidden.height), seed=0)
    pairs = ", ".join(f"('{layer.replace(chr(39), 2 * chr(39))}', {at})" for layer, at in drawn.iter_rows())
    asked = InfluenceOptions(units=f"(layer, position) IN ({pairs})", samples=n)
    found = graph.analyse("influence", run, asked, save=False)
    units = found.frame.filter((found.frame["what"] == "unit") & found.frame["effect"].is_not_null())
    effects = np.sort(units["effect"].to_numpy())[::-1]
    total = float(effects.sum())
    half = int(np.searchsorted(np.cumsum(effects), total / 2) + 1) if total else 0
    return {
        "hidden": hidden.height,
        "units": len(effects),
        "moved": int(units["moved"].sum()),
        "half_of_effect": half,
        "below_percent": int((effects < 0.01 * effects[0]).sum()) if len(effects) else 0,
        "measure": found.measure,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small file of the demo, nothing kept")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    parser.add_argument("--only", nargs="+", default=[], help="files whose name holds one of these")
    asked = parser.parse_args()
    if asked.quick:
        with tempfile.TemporaryDirectory() as folder:
            demo = ROOT / "cli" / "demo-data" / "digits_conv.onnx"
            print(json.dumps(measured("demo", demo, Path(folder))))
        return 0
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(row) for row in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    files, others = listed()
    for name, path in [] if asked.page else files:
        if any(row["file"] == name for row in rows) or not any(part in name for part in asked.only or [""]):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = measured(name, path, Path(folder))
            except emergraph.EmergraphError as error:
                row = {"file": name, "refused": str(error)}
        rows.append(row)
        with RESULTS.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        print(row, flush=True)
    write_page(rows, others, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
