"""Running the pruned model: how far its outputs are from the base model's, and how often it is right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import onnx
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.labels import ClassLabels, class_labels
from emergraph.analysis.modelruns.files import ModelFiles, model_of
from emergraph.analysis.modelruns.running import ModelRuns
from emergraph.analysis.modelruns.storedcodes import StoredCodes
from emergraph.analysis.pruning.analysis import COST_COLUMNS, REMEASURED, RUN_COLUMNS
from emergraph.analysis.pruning.items import TensorValues
from emergraph.analysis.pruning.maskedtensors import (
    ParameterPlaces,
    TensorElements,
    Zeroed,
    follow_units,
)
from emergraph.analysis.pruning.options import PruningUnit
from emergraph.analysis.pruning.removal import Removal
from emergraph.analysis.pruning.smaller import Shrinker
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError
from emergraph.exporters.onnxfile.file import OnnxFile
from emergraph.exporters.runtime.assembly import ModelSource
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.sources import FileSource, ReplacedSource
from emergraph.exporters.traces.options import TraceOptions
from emergraph.exporters.traces.prepare import Prepared, given_samples, random_samples
from emergraph.exporters.traces.running import Batching, SampleRunner
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.exporters.traces.statistics import UnitStatistics, kept_samples
from emergraph.exporters.traces.targets import recordable, targets_of
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.text import printable

Array = NDArray[np.generic]

RANDOM_SAMPLES = 4
"""Samples that are made up where none are given."""


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


Remeasure = Callable[[Removal, int, UnitTrace], Mapping[str, float | None]]
"""Columns that follow from the pruned model's own activations at a level."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PrunableModel:
    """The model behind a graph, opened and run once, and where in it parameters are."""

    reader: GraphReader
    places: ParameterPlaces
    files: ModelFiles
    """Labels and limits; the model and inputs are open already."""
    source: FileSource
    prepared: Prepared
    """The samples, and a run of the first."""
    file_bytes: int = 0
    """Size of the model with all its values."""


def open_prunable(
    reader: GraphReader,
    graph: UnitGraph,
    files: ModelFiles,
    tensor_values: TensorValues,
    unit: PruningUnit,
) -> PrunableModel:
    """Open the model behind a graph, and run it once.

    Args:
        reader: The graph.
        graph: The same with its edges.
        files: Model, inputs and labels.
        tensor_values: The graph's parameter tensors.
        unit: What is removed as one.

    Raises:
        InvalidInputError: The file is not the graph's model, or the samples do not fit it.
    """
    file = model_of(reader, files.model, root=files.root)
    source = FileSource(file)
    prepared = prepare_samples(file, files.arrays, files.limits)
    places = parameter_places(prepared.run.flat, source, graph, tensor_values, unit)
    return PrunableModel(
        reader=reader,
        places=places,
        files=files,
        source=source,
        prepared=prepared,
        file_bytes=file_bytes(file),
    )


def parameter_places(
    flat: FlatModel, source: ModelSource, graph: UnitGraph, tensor_values: TensorValues, unit: PruningUnit
) -> ParameterPlaces:
    """Where in a model the parameters of a graph are."""
    return ParameterPlaces(
        graph,
        tensor_values,
        stored_codes(flat, source),
        flat.initializers,
        shared=unit is PruningUnit.UNIT,
    )


def run_levels(
    model: PrunableModel,
    removals: Sequence[Removal],
    *,
    remeasure: Remeasure | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """Run the base model and every pruned one on the same samples, in a child process; count their FLOPs.

    Args:
        model: The model. Without inputs nothing is run but one small sample, for the FLOPs.
        removals: The masks, as in `PruningResult.removals`.
        remeasure: Gets the activations of every pruned model on the samples; None: they are not recorded.
        progress: Called with (models done, models in all).

    Returns:
        One row per what-if: `divergence_kl` (mean over samples of KL(base, pruned) in nats, where the first
        output is a distribution, or logits with labels), `relative_mse`, `argmax_agreement`, `accuracy`,
        `base_accuracy`; NULL where an output has no classes or there are no labels; and the columns of
        `smaller.ModelCosts` and of `remeasure`.

    Raises:
        InvalidInputError: The file is not the graph's model, or the samples do not fit it.
        UsageError: Parameters cannot be found in their tensors, or labels do not fit.
    """
    files = model.files
    rows: list[dict[str, float | None]] = []
    n_models = sum(removal.n_levels for removal in removals)
    with PrunedRuns(model, removals[0]) as runs:
        for removal in removals:
            for level in range(removal.n_levels):
                row = runs.costs(removal, level)
                if files.arrays is not None:
                    row |= runs.changes(removal, level)
                    if remeasure is not None:
                        row |= remeasure(removal, level, runs.activations(removal, level))
                rows.append(row)
                if progress is not None:
                    progress(len(rows), n_models)
    return pl.DataFrame(rows, schema=dict.fromkeys((*RUN_COLUMNS, *REMEASURED, *COST_COLUMNS), pl.Float64))


class PrunedRuns:
    """One model with many masks, in one child process; what a mask is not asked for is not computed.

    Args:
        model: The model.
        removal: Any removal of what is removed in it.
    """

    def __init__(self, model: PrunableModel, removal: Removal) -> None:
        self._reader, self._files = model.reader, model.files
        self._source, self._prepared = model.source, model.prepared
        self._file_bytes = model.file_bytes
        self._flat = self._prepared.run.flat
        self._shapes = {name: tuple(t.dims) for name, t in self._flat.initializers.items()}
        self._elements = TensorElements(removal, model.places)
        self._batching: Batching | None = None
        self._runs = ModelRuns(self._flat, self._source, self._prepared, limits=self._files.limits)
        self._zeroed: tuple[Removal, int, Zeroed] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self._runs.close()

    @cached_property
    def _shrinker(self) -> Shrinker:
        return Shrinker(self._prepared.run, self._source, file_bytes=self._file_bytes)

    @cached_property
    def labels(self) -> ClassLabels | None:
        """The labels, checked against the outputs."""
        return _checked_labels(self._files, self._runs.expected[0])

    def zeroed(self, removal: Removal, level: int) -> Zeroed:
        """The zeros that make the pruned model."""
        if self._zeroed is None or self._zeroed[0] is not removal or self._zeroed[1] != level:
            found = all_zeroed(self._elements, removal, level, self._flat.nodes, self._shapes)
            for name in found:
                _proto(self._flat.initializers, name)
            self._zeroed = removal, level, found
        return self._zeroed[2]

    def costs(self, removal: Removal, level: int) -> dict[str, float | None]:
        """FLOPs and size of a pruned model."""
        return dict(self._shrinker.costs(self.zeroed(removal, level)).to_dict())

    def changes(self, removal: Removal, level: int) -> dict[str, float | None]:
        """How far the outputs of a pruned model are from those of the model as it is, see `compare`."""
        expected, labels = self._runs.expected, self.labels
        return compare(expected, self._runs.of(self._pruned(removal, level)), labels)

    def activations(self, removal: Removal, level: int) -> UnitTrace:
        """Activations of a pruned model, as `emergraph trace` records them."""
        self._runs.process.renew()
        targets, _ = recordable(targets_of(self._reader.layers()), self._prepared.run)
        samples = self._prepared.samples
        kept = kept_samples(samples.n, sum(t.n_units for t in targets), TraceOptions().n_values)
        statistics = {target.layer: UnitStatistics(target.n_units, kept) for target in targets}
        pruned = self._pruned(removal, level)
        runner = SampleRunner(self._prepared.run, pruned, samples, targets, self._files.limits)
        self._batching = runner.record(
            statistics,
            TraceOptions().batch_size,
            self._prepared.fixed,
            lambda _done, _total: None,
            batching=self._batching,
            process=self._runs.process,
        )
        frame = pl.concat([statistics[target.layer].frame(target.first_unit) for target in targets])
        return UnitTrace.from_frame(frame, self._reader.n_units, name="measured again")

    def _pruned(self, removal: Removal, level: int) -> ReplacedSource:
        return pruned_source(self._source, self._flat, self.zeroed(removal, level))


def pruned_source(source: ModelSource, flat: FlatModel, zeroed: Zeroed) -> ReplacedSource:
    """A model with zeros where parameters were removed."""
    zeros = stored_codes(flat, source)
    protos = {name: _proto(flat.initializers, name) for name in zeroed}
    return ReplacedSource(
        source,
        {id(proto): zeros.put(name, source.array(proto), zeroed[name]) for name, proto in protos.items()},
    )


def stored_codes(flat: FlatModel, source: ModelSource) -> StoredCodes:
    """Which stored values of a model's tensors mean zero."""
    return StoredCodes(flat, lambda name: source.array(flat.initializers[name]))


def prepare_samples(file: OnnxFile, inputs: Mapping[str, Array] | None, limits: RunLimits) -> Prepared:
    """The samples given, or a few random ones, and a run of the first."""
    options = TraceOptions(run_limits=limits)
    if inputs:
        return given_samples(file, inputs, options)
    return random_samples(file, RandomInputs(n=RANDOM_SAMPLES, seed=0), options)


def file_bytes(file: OnnxFile) -> int:
    """Bytes of a model, external data included."""
    return len(file.content) + sum(len(one.content) for one in file.external_files.values())


def compare(
    expected: Sequence[Array], found: Sequence[Array], labels: ClassLabels | None = None
) -> dict[str, float | None]:
    """How far outputs are from those of the base model.

    Args:
        expected: Outputs of the base model, samples on the first axis.
        found: Outputs of the pruned one.
        labels: Classes of the first output's last axis, one for each of its rows.

    Returns:
        The measures by name; None where there is none: outputs that are not finite have no distance.
    """
    pairs = [
        (a.astype(np.float64), b.astype(np.float64))
        for a, b in zip(expected, found, strict=True)
        if a.dtype.kind == "f" and a.shape == b.shape
    ]
    row: dict[str, float | None] = dict.fromkeys(RUN_COLUMNS)
    if not pairs:
        return row
    finite = all(np.isfinite(values).all() for pair in pairs for values in pair)
    scale = sum(float((a**2).sum()) for a, _ in pairs)
    if scale > 0 and finite:
        row["relative_mse"] = sum(float(((a - b) ** 2).sum()) for a, b in pairs) / scale
    a, b = pairs[0]
    if a.ndim >= 2 and a.shape[-1] > 1:
        best, other = a.argmax(axis=-1), b.argmax(axis=-1)
        row["argmax_agreement"] = float((best == other).mean())
        distribution = bool((a >= 0).all() and np.allclose(a.sum(axis=-1), 1, atol=1e-3))
        if finite and (distribution or labels is not None):
            row["divergence_kl"] = _kl(a, b, distribution=distribution)
        if labels is not None:
            counted = labels.counted.reshape(-1)
            wanted = labels.classes.reshape(-1)[counted]
            row["accuracy"] = float((other.reshape(-1)[counted] == wanted).mean())
            row["base_accuracy"] = float((best.reshape(-1)[counted] == wanted).mean())
    return row


def _kl(a: NDArray[np.float64], b: NDArray[np.float64], *, distribution: bool) -> float:
    if distribution:
        log_a, log_b = np.log(np.maximum(a, 1e-30)), np.log(np.maximum(b, 1e-30))
    else:
        log_a = a - np.logaddexp.reduce(a, axis=-1, keepdims=True)
        log_b = b - np.logaddexp.reduce(b, axis=-1, keepdims=True)
    return float((np.exp(log_a) * (log_a - log_b)).sum(axis=-1).mean())


def _checked_labels(files: ModelFiles, output: Array) -> ClassLabels | None:
    if files.classes is None:
        return None
    n = int(np.prod(output.shape[:-1])) if output.ndim > 1 else 0
    if files.classes.size != n:
        raise UsageError(
            f"labels: expected {n}, one per row of the first output, found {files.classes.size} of "
            f"{files.classes.dtype}"
        )
    return class_labels(files.classes, output.shape[-1], ignored=files.ignore_label)


def _proto(initializers: Mapping[str, onnx.TensorProto], name: str) -> onnx.TensorProto:
    if name not in initializers:
        raise UsageError(f"tensor {printable(name, limit=60)!r} is not in the model as it runs")
    return initializers[name]
