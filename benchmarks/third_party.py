"""Export every third-party ONNX file of the tests and print what was understood.

This is the table of docs/models.md. Run `make models` once, then `python benchmarks/third_party.py`. Files
that hold several networks are given the input that selects one (`--input sr=16000`).
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from emergraph.errors import InvalidInputError
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.graphstore.store import open_store

FACTS = Path(__file__).parents[1] / "tests" / "third_party_models.json"
MODELS = Path(os.environ.get("EMERGRAPH_MODELS") or Path.home() / ".cache" / "emergraph" / "models")
SELECTED = {
    "silero_vad.onnx": {"sr": np.asarray(16000)},
    "silero_vad_op18_ifless.onnx": {"sr": np.asarray(16000)},
}


def row(path: Path, label: str, folder: Path) -> str:
    target = folder / f"{label.replace('/', '_')}.duckdb"
    options = ExportOptions(inputs=SELECTED.get(path.name, {}))
    try:
        with open_store(target, mode="create") as store:
            summary = export_onnx(path, store, options=options)
    except InvalidInputError as error:
        return f"| {label} | refused: {str(error).split(': ', 1)[1]} | | | | | |"
    trace = summary.trace
    if trace is None:
        sys.exit(f"{label}: the store already held the graph")
    return (
        f"| {label} | {trace.n_parameters:,} | {100 * trace.coverage:.0f} % | {trace.n_units:,} "
        f"| {trace.n_weight_edges:,} | {trace.n_edges:,} | {summary.seconds:.1f} |"
    )


def main() -> None:
    facts = [f for f in json.loads(FACTS.read_text(encoding="utf-8")) if f["path"].endswith(".onnx")]
    print("| file | parameters | understood | units | weight connections | edges | seconds |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for fact in facts:
            label = f"{fact['package']} {fact['version']}: {'/'.join(Path(fact['path']).parts[-2:])}"
            print(row(MODELS / fact["package"] / fact["path"], label, Path(name)), flush=True)


if __name__ == "__main__":
    main()
