"""Whether outputs agree: of a written model with the original's, or of one with other values in a tensor."""

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.audit.subject import Given, OnnxSubject, Subject
from emergraph.analysis.modelruns.running import ModelRuns, model_outputs
from emergraph.errors import UsageError
from emergraph.exporters.nodes import depends_on
from emergraph.exporters.operations import spec_of
from emergraph.exporters.runtime.assembly import assemble
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import InMemorySource

Array = NDArray[np.generic]

AGREEMENT = 1e-4
"""Outputs agree where |a - b| <= AGREEMENT * max(1, max |a|), element by element."""
SAMPLES = 4
"""Samples on which variants of a model are tried."""


def runs_of(subject: Subject, onnx_subject: OnnxSubject) -> ModelRuns:
    """Runs of a model and of variants of it on its first samples."""
    few = onnx_subject.prepared.first(SAMPLES)
    return ModelRuns(onnx_subject.run.flat, onnx_subject.source, few, limits=subject.limits)


def agreement(subject: OnnxSubject, model: onnx.ModelProto, given: Given) -> tuple[float, bool, int]:
    """Run both models on the samples; return the largest difference, whether all is equal, and samples.

    Outputs that depend on random numbers are left out.

    Raises:
        UsageError: All outputs do.
    """
    flat, source = subject.run.flat, InMemorySource(model)
    small = flatten(model, read_tensor=source.array)
    drawn = [name for node in flat.nodes if spec_of(node).is_random for name in node.output if name]
    chance = depends_on(flat.nodes, drawn)
    names = [name for name in flat.outputs if name not in chance]
    if not names:
        raise UsageError("every output depends on random numbers: no model can be shown to agree with it")
    wanted = {value.name for value in small.inputs}
    with ModelProcess(given.limits) as process:
        process.load(assemble(flat, names, subject.source))
        expected = model_outputs(process, subject.prepared, names)
        process.load(assemble(small, names, source))
        found = model_outputs(process, subject.prepared, names, only=wanted)
    worst = max((elementwise(a, b) for a, b in zip(expected, found, strict=True)), default=0.0)
    bitwise = all(_same_bits(a, b) for a, b in zip(expected, found, strict=True))
    return worst, bitwise, subject.prepared.samples.n


def elementwise(a: Array, b: Array) -> float:
    """The largest |a - b| over max(1, max |a|); infinite where shapes, types, integers or NaNs differ."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.dtype.kind != "f":
        return 0.0 if np.array_equal(a, b) else float("inf")
    if not a.size:
        return 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(x - y))
    finite = np.abs(x[np.isfinite(x)])
    scale = max(1.0, float(finite.max(initial=0.0)))
    return float(np.nan_to_num(gap, nan=np.inf).max()) / scale


def _same_bits(a: Array, b: Array) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())
