"""What becomes of every operator test of the onnx package, by the whole of `export`, file to graph.

    python tests/operators/classify.py --jobs 2 > operators.md
    python tests/operators/classify.py --only test_gru --show

Each model is exported twice, as it is and with all inputs but the first float one as parameters, on the
inputs of its own test. It is traced, opaque for a reason, or refused for a reason. A rule that does not fit
its operation, and any error but an EmergraphError, is a failure.
"""

import argparse
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from nodecases import NodeCase, light_models, node_cases, stored_cases

from emergraph.errors import EmergraphError
from emergraph.exporters.counting import CountingSink
from emergraph.exporters.export import ExportOptions, dry_run
from emergraph.graphstore.records import Operation, TracedAs

_NO_WEIGHTS = ("no operation of this model has weights", "all weights of its operations are zero")
"""Refusals of models that were traced all the same."""


@dataclass(frozen=True)
class Outcome:
    """What became of one model."""

    name: str
    kind: str
    """traced, opaque, refused, or failed."""
    reason: str = ""


class _Kept(CountingSink):
    """Keeps how each operation was traced."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Sequence[Operation] = ()

    def write_operations(self, operations: Sequence[Operation]) -> None:
        self.operations = operations


def classify(case: NodeCase) -> Outcome:
    """Export one model, and say what became of it."""
    sink = _Kept()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        path.write_bytes(case.model.SerializeToString())
        try:
            given = {name: array for name, array in case.feeds.items() if array.dtype != object}
            dry_run(path, options=ExportOptions(inputs=given), sink=sink)
        except EmergraphError as error:
            if not any(text in str(error) for text in _NO_WEIGHTS):
                return _refused(case.name, str(error))
        except Exception as error:  # noqa: BLE001 - what the runner is there to find
            return Outcome(case.name, "failed", f"{type(error).__name__}: {error}")
    return _traced(case.name, sink.operations)


def _refused(name: str, text: str) -> Outcome:
    is_line = "\n" not in text.strip() and "unexpected" not in text and "Traceback" not in text
    if "no operation with weights is understood" in text:
        _, _, why = text.partition("not understood: ")
        return Outcome(name, "failed" if "does not fit" in text else "opaque", why or text)
    return Outcome(name, "refused" if is_line else "failed", text)


def _traced(name: str, operations: Sequence[Operation]) -> Outcome:
    opaque = [f"{op.op} ({op.reason})" for op in operations if op.traced_as is TracedAs.OPAQUE]
    if not operations:
        return Outcome(name, "refused", "nothing is left of the model once constants are folded")
    if any(op.endswith("(None)") or "does not fit" in op for op in opaque):
        return Outcome(name, "failed", "; ".join(opaque))
    return Outcome(name, "opaque" if opaque else "traced", "; ".join(dict.fromkeys(opaque)))


def variants(case: NodeCase) -> Iterator[NodeCase]:
    """The model as it is, and with its inputs but the first float one as parameters."""
    yield case
    floats = [name for name, array in case.feeds.items() if array.dtype == np.float32 and array.size]
    if floats and len(case.feeds) > 1:
        fixed = case.with_parameters({floats[0]})
        yield NodeCase(f"{case.name}+parameters", fixed.model, fixed.feeds)


def all_cases() -> list[NodeCase]:
    """Every operator test of the onnx package, in both variants."""
    cases = (*node_cases(tensors_only=False), *stored_cases(), *light_models())
    return [variant for case in cases for variant in variants(case)]


def main() -> int:
    """Classify, print the counts as Markdown, and return 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="part of the names")
    parser.add_argument("--show", action="store_true", help="print each model")
    options = parser.parse_args()
    chosen = [case for case in all_cases() if options.only in case.name]
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        outcomes = []
        for outcome in pool.map(classify, chosen, chunksize=4):
            outcomes.append(outcome)
            if options.show or outcome.kind == "failed":
                print(f"{outcome.kind}: {outcome.name}: {outcome.reason}", file=sys.stderr, flush=True)
    print(page(outcomes))
    return int(any(outcome.kind == "failed" for outcome in outcomes))


def page(outcomes: Sequence[Outcome]) -> str:
    """Counts, and every reason with how many models it is the reason of."""
    counts = Counter(outcome.kind for outcome in outcomes)
    lines = [f"{len(outcomes)} models with onnx {onnx.__version__}: "]
    lines[0] += ", ".join(f"{counts[kind]} {kind}" for kind in ("traced", "opaque", "refused", "failed"))
    for kind in ("opaque", "refused", "failed"):
        reasons = Counter(_general(outcome) for outcome in outcomes if outcome.kind == kind)
        lines += ["", f"| {kind} because | models |", "|---|---|"]
        lines += [f"| {reason} | {count} |" for reason, count in sorted(reasons.items())]
    return "\n".join(lines)


def _general(outcome: Outcome) -> str:
    text = outcome.reason.removeprefix("model.onnx: ").replace("|", "\\|")
    return text if len(text) <= 160 else f"{text[:157]}..."


if __name__ == "__main__":
    sys.exit(main())
