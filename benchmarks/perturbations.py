"""Try to contradict "cannot influence": `python benchmarks/perturbations.py [FILE.onnx ...] [--units 170]`.

A unit is changed at random, three times for each, and every other unit of the model that moves must be one
that the graph reaches from it. Without files, those of `tests/third_party_models.json` that `make models`
fetched. Each file is one line of the state; a stopped run goes on where it was.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / "build" / "perturbations.jsonl"
UNITS = 170
"""Units of each model; each is changed three times."""
SECONDS = 1800


def fetched() -> list[Path]:
    """The ONNX files of the list that are in the cache."""
    folder = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
    facts = json.loads((ROOT / "tests" / "third_party_models.json").read_text(encoding="utf-8"))
    found = [folder / one["package"] / one["path"] for one in facts if one["format"] == "onnx"]
    return [path for path in found if path.exists()]


def perturbed(path: Path, units: int) -> dict[str, object]:
    """Change units of one model, and count what the graph denies."""
    sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests" / "helpers")]
    from zoomodels.oracle import judge
    from zoomodels.tracing import traced_file

    from emergraph.exporters.onnxfile.reader import read_onnx

    found = judge(traced_file(read_onnx(path)), units=units, explain=False)
    return {
        "units": found.units,
        "layers": found.layers,
        "perturbations": found.units * found.draws,
        "denied": found.denied,
        "contradicted": found.missing,
        "shown": found.missing_shown,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--units", type=int, default=UNITS)
    parser.add_argument("--state", type=Path, default=STATE)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(perturbed(asked.files[0], asked.units)))
        return 0
    asked.state.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(row) for row in asked.state.read_text().splitlines()] if asked.state.exists() else []
    rows = [row for row in rows if "error" not in row]
    done = {row["file"] for row in rows}
    for path in asked.files or fetched():
        name = "/".join(path.parts[-3:])
        if name in done:
            continue
        start = time.monotonic()
        command = [sys.executable, __file__, "--one", "--units", str(asked.units), str(path)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        told = ran.stdout.strip().splitlines()
        row = json.loads(told[-1]) if not ran.returncode else {"error": ran.stderr.strip().splitlines()[-1]}
        row = {"file": name, **row, "seconds": round(time.monotonic() - start, 1)}
        with asked.state.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        rows.append(row)
        print(row, flush=True)
    whole = [row for row in rows if "error" not in row]
    tried, wrong, pairs = (
        sum(row[key] for row in whole) for key in ("perturbations", "contradicted", "denied")
    )
    print(
        f"{len(whole)} models, {tried:,} perturbations, {pairs:,} pairs without a path, {wrong} contradicted"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
