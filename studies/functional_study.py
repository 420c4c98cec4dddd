"""Structural and functional E: `python studies/functional_study.py [--quick] [--page] [--only FILE]`.

Of each trained ONNX file of `tests/third_party_models.json` that `make models` fetched: the count of paths,
how much of it lies along edges that carry something on samples, and a sample of units knocked out. Each file
is a line of the results, and a stopped run goes on where it was. Writes `docs/functional-study.md`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent))

from functional.page import write_page

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
UNITS = 64
"""Hidden units of each file that are knocked out."""
SOUNDS, SILERO = "silero-vad", "silero_vad_16k_op15.onnx"
"""A package whose files hold one network, and the one that is measured, on made-up sounds."""
SHARES = (0.001, 0.01, 0.1)
"""Of what flows into the target of an edge."""


def listed() -> list[tuple[str, Path]]:
    """The trained files that can run, the smallest first."""
    folder = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
    facts = json.loads((ROOT / "tests" / "third_party_models.json").read_text(encoding="utf-8"))
    facts = sorted((one for one in facts if one["format"] == "onnx"), key=lambda one: one["naive_edges"])
    facts = [one for one in facts if one["package"] != SOUNDS or Path(one["path"]).name == SILERO]
    facts = [one for one in facts if one["params"]]  # one file holds trees alone
    files = [(one["package"], Path(one["path"])) for one in facts]
    found = [(f"{package}: {path.name}", folder / package / path) for package, path in files]
    return [(name, path) for name, path in found if path.exists()]


def inputs_of(path: Path) -> dict[str, np.ndarray]:
    """All samples as arrays: random, or sounds where noise of that size would saturate the network."""
    if SOUNDS in path.parts:
        rng, t = np.random.default_rng(0), np.arange(576) / 16000
        tones = [
            sum(np.sin(2 * np.pi * f * k * t + rng.uniform(0, 6)) / k for k in range(1, 12))
            for f in rng.uniform(90, 260, SAMPLES // 2)
        ]
        noise = 0.1 * rng.standard_normal((SAMPLES // 2, t.size))
        return {"input": np.concatenate([0.25 * np.array(tones), noise]).astype(np.float32)}
    samples = random_samples(read_onnx(path), RandomInputs(SAMPLES, seed=0), TraceOptions()).samples
    each = [samples.feeds([k]) for k in range(SAMPLES)]
    return {
        name: each[0][name] if axis is None else np.concatenate([one[name] for one in each], axis)
        for name, axis in samples.axes.items()
    }


def measured(name: str, path: Path, folder: Path) -> dict[str, Any]:
    """One file: paths, those along edges that carry something, and knock-outs."""
    begin = time.process_time()
    graph = emergraph.export(path, folder / "net.duckdb")
    arrays = inputs_of(path)
    np.savez(folder / "inputs.npz", **arrays)
    axes = random_samples(read_onnx(path), RandomInputs(1, seed=0), TraceOptions()).samples.axes
    axes = {key: axis for key, axis in axes.items() if key in arrays}
    told = tuple(f"{key}={'none' if axis is None else axis}" for key, axis in axes.items())
    run = ModelRunOptions(model=path, inputs=folder / "inputs.npz", sample_axis=told)
    graph.trace(arrays, model=path, sample_axes=axes)
    flows = graph.analyse("contributions", run, ContributionOptions(top=0))
    has_source = pl.col("src").is_not_null()
    row: dict[str, Any] = {"file": name, "edges": flows.frame.filter(has_source).height}
    row["left_out"] = len(flows.left_out)
    for share in SHARES:
        found = graph.analyse("emergence", ExtentOptions(carried=share), save=False)
        whole, part = found.count("active").emergence, found.carried[0].emergence
        row["log10_paths"] = whole.to_dict()["log10"]
        row[f"share_{share}"] = float(10 ** (part.log10 - whole.log10)) if whole.value else None
    shares = flows.frame.filter(has_source)["share"].to_numpy()
    row["strong_edges"] = {str(share): float((shares > share).mean()) for share in SHARES}
    row |= knocked_out(graph, run)
    row["cpu_seconds"] = round(time.process_time() - begin, 1)
    return row


def knocked_out(graph: emergraph.Graph, run: ModelRunOptions) -> dict[str, Any]:
    """What knocking out some hidden units does."""
    hidden = emergraph.open(graph.path).sql(
        "SELECT l.name, u.position FROM units AS u JOIN layers AS l ON l.graph = u.graph AND l.id = u.layer "
        "WHERE u.role = 'hidden' AND u.neuron ORDER BY u.id"
    )
    drawn = hidden.sample(min(UNITS, hidden.height), seed=0)
    pairs = ", ".join(f"('{layer.replace(chr(39), 2 * chr(39))}', {at})" for layer, at in drawn.iter_rows())
    asked = InfluenceOptions(units=f"(layer, position) IN ({pairs})")
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
    for name, path in [] if asked.page else listed():
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
    write_page(rows, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
