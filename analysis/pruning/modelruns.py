"""Running the pruned model: how far its outputs are from the base model's, and how often it is right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.pruning.items import PruningUnit, TensorValues
from emergraph.analysis.pruning.maskedtensors import TensorElements, Zeroed, follow_units, with_zeros
from emergraph.analysis.pruning.measures import RUN_COLUMNS
from emergraph.analysis.pruning.removal import Removal
from emergraph.errors import InvalidInputError, UsageError
from emergraph.exporters.onnxfile import OnnxFile, read_onnx
from emergraph.exporters.runtime.assembly import ModelSource, StoredTensor, assemble
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import FileSource
from emergraph.exporters.traces.prepare import Prepared, TraceOptions, given_samples
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.text import printable

Array = NDArray[np.generic]
_ALL = 1 << 40


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """The model behind a graph, and what to run it on."""

    model: Path
    inputs: Mapping[str, Array] | None = None
    """Samples by input name; None: the model is not run."""
    labels: Array | None = None
    """(n_samples,) class of each sample."""
    limits: RunLimits = field(default_factory=RunLimits)


@dataclass(frozen=True, eq=False)
class PrunedSource:
    """A model file with some tensors replaced."""

    base: ModelSource
    replaced: Mapping[int, Array]
    """By the identity of the tensor's proto."""

    @property
    def model(self) -> onnx.ModelProto:
        """The light model of the file."""
        return self.base.model

    def stored(self, tensor: onnx.TensorProto) -> StoredTensor:
        """The values of a tensor."""
        if id(tensor) not in self.replaced:
            return self.base.stored(tensor)
        values = self.replaced[id(tensor)]
        return StoredTensor(values.shape, tensor.data_type, values.tobytes())

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The same as an array."""
        found = self.replaced.get(id(tensor))
        return self.base.array(tensor) if found is None else found


def model_of(reader: GraphReader, path: Path) -> OnnxFile:
    """The file of a graph, checked.

    Raises:
        InvalidInputError: It is not the file that the graph was exported from.
    """
    file = read_onnx(path)
    if file.sha256 != str(reader.summary["sha256"]):
        raise InvalidInputError(
            f"{printable(str(path), limit=100)} is not the model of graph "
            f"{printable(reader.name, limit=60)!r}: their SHA-256 differ; give the file that was exported"
        )
    return file


def all_zeroed(
    elements: TensorElements,
    removal: Removal,
    level: int,
    nodes: Sequence[onnx.NodeProto],
    shapes: dict[str, tuple[int, ...]],
) -> Zeroed:
    """Zeros of weights at a level, and of what follows removed units; see `maskedtensors`."""
    zeroed = elements.zeroed(removal, level)
    if removal.items.unit is PruningUnit.UNIT:
        for name, places in follow_units(nodes, shapes, removal, level).items():
            zeroed[name] = np.union1d(zeroed.get(name, np.empty(0, np.int64)), places)
    return zeroed


def run_levels(
    reader: GraphReader,
    removals: Sequence[Removal],
    files: ModelFiles,
    tensor_values: TensorValues,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Run the base model and every pruned one on the same samples, in a child process.

    Args:
        reader: The graph.
        removals: The masks, as in `PruningResult.removals`.
        files: Model, inputs and labels.
        tensor_values: The graph's parameter tensors.
        progress: Called with (models run, models in all).

    Returns:
        One row per what-if: `divergence_kl` (mean over samples of KL(base, pruned) in nats, where the first
        output is a distribution, or logits with labels), `relative_mse`, `argmax_agreement`, `accuracy`,
        `base_accuracy`; NULL where an output has no classes or there are no labels.

    Raises:
        InvalidInputError: The file is not the graph's model, or the samples do not fit it.
        UsageError: Parameters cannot be found in their tensors, or labels do not fit.
    """
    file = model_of(reader, files.model)
    base = FileSource(file)
    prepared = given_samples(file, files.inputs or {}, TraceOptions(run_limits=files.limits))
    flat = prepared.run.flat
    shapes = {name: tuple(tensor.dims) for name, tensor in flat.initializers.items()}
    elements = TensorElements(removals[0], tensor_values)
    rows: list[dict[str, float | None]] = []
    n_models = sum(removal.n_levels for removal in removals)
    with ModelProcess(files.limits) as process:
        process.load(assemble(flat, flat.outputs, base), many_runs=True)
        expected = _outputs(process, prepared, flat.outputs)
        _check_labels(files.labels, expected[0])
        for removal in removals:
            for level in range(removal.n_levels):
                zeroed = all_zeroed(elements, removal, level, flat.nodes, shapes)
                replaced = {}
                for name, places in zeroed.items():
                    proto = _proto(flat.initializers, name)
                    replaced[id(proto)] = with_zeros(base.array(proto), places)
                process.load(assemble(flat, flat.outputs, PrunedSource(base, replaced)), many_runs=True)
                found = _outputs(process, prepared, flat.outputs)
                rows.append(compare(expected, found, files.labels))
                if progress is not None:
                    progress(len(rows), n_models)
    return pl.DataFrame(rows, schema=dict.fromkeys(RUN_COLUMNS, pl.Float64))


def compare(
    expected: Sequence[Array], found: Sequence[Array], labels: Array | None = None
) -> dict[str, float | None]:
    """How far outputs are from those of the base model.

    Args:
        expected: Outputs of the base model, samples on the first axis.
        found: Outputs of the pruned one.
        labels: (n_samples,) classes of the first output's last axis.
    """
    pairs = [
        (a.astype(np.float64), b.astype(np.float64))
        for a, b in zip(expected, found, strict=True)
        if a.dtype.kind == "f" and a.shape == b.shape
    ]
    row: dict[str, float | None] = dict.fromkeys(RUN_COLUMNS)
    if not pairs:
        return row
    scale = sum(float((a**2).sum()) for a, _ in pairs)
    if scale > 0:
        row["relative_mse"] = sum(float(((a - b) ** 2).sum()) for a, b in pairs) / scale
    a, b = pairs[0]
    if a.ndim >= 2 and a.shape[-1] > 1:
        best, other = a.argmax(axis=-1), b.argmax(axis=-1)
        row["argmax_agreement"] = float((best == other).mean())
        distribution = bool((a >= 0).all() and np.allclose(a.sum(axis=-1), 1, atol=1e-3))
        if distribution or labels is not None:
            row["divergence_kl"] = _kl(a, b, distribution=distribution)
        if labels is not None:
            wanted = labels.reshape(-1)
            row["accuracy"] = float((other.reshape(-1) == wanted).mean())
            row["base_accuracy"] = float((best.reshape(-1) == wanted).mean())
    return row


def _kl(a: NDArray[np.float64], b: NDArray[np.float64], *, distribution: bool) -> float:
    if distribution:
        log_a, log_b = np.log(np.maximum(a, 1e-30)), np.log(np.maximum(b, 1e-30))
    else:
        log_a = a - np.logaddexp.reduce(a, axis=-1, keepdims=True)
        log_b = b - np.logaddexp.reduce(b, axis=-1, keepdims=True)
    return float((np.exp(log_a) * (log_a - log_b)).sum(axis=-1).mean())


def _outputs(process: ModelProcess, prepared: Prepared, names: Sequence[str]) -> list[Array]:
    """Every output for all samples, samples on a first axis of their own or on the model's."""
    parts: list[list[Array]] = [[] for _ in names]
    size = prepared.fixed or 1
    n = prepared.samples.n
    for start in range(0, n, size):
        indices = [min(i, n - 1) for i in range(start, start + size)]
        fetched = process.run(prepared.samples.feeds(indices), list(names), small=_ALL)
        for part, name in zip(parts, names, strict=True):
            values = fetched[name].values
            if values is None:
                raise InvalidInputError(f"output {printable(name, limit=60)!r} is no tensor of numbers")
            whole = values if values.ndim and size == values.shape[0] else values[None]
            part.append(whole[: n - start] if size > 1 else whole)
    return [_stacked(part) for part in parts]


def _stacked(part: list[Array]) -> Array:
    """Samples one after another; of outputs with sizes of their own, all elements in a row."""
    if len({array.shape[1:] for array in part}) == 1:
        return np.concatenate(part)
    return np.concatenate([array.reshape(-1) for array in part])


def _check_labels(labels: Array | None, output: Array) -> None:
    if labels is None:
        return
    n = int(np.prod(output.shape[:-1])) if output.ndim > 1 else 0
    if labels.dtype.kind not in "iu" or labels.size != n:
        raise UsageError(
            f"labels: expected {n} whole numbers, one per row of the first output, found {labels.size} of "
            f"{labels.dtype}"
        )


def _proto(initializers: Mapping[str, onnx.TensorProto], name: str) -> onnx.TensorProto:
    if name not in initializers:
        raise UsageError(f"tensor {printable(name, limit=60)!r} is not in the model as it runs")
    return initializers[name]
