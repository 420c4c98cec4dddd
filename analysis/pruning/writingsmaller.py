"""Writing the smaller model of a structured removal, after running it beside the masked one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.modelruns.files import ModelFiles, model_of
from emergraph.analysis.modelruns.running import model_outputs
from emergraph.analysis.modelruns.storedcodes import StoredCodes
from emergraph.analysis.pruning.items import TensorValues
from emergraph.analysis.pruning.maskedtensors import TensorElements, Zeroed
from emergraph.analysis.pruning.modelruns import (
    all_zeroed,
    file_bytes,
    parameter_places,
    prepare_samples,
    pruned_source,
    stored_codes,
)
from emergraph.analysis.pruning.removal import Removal
from emergraph.analysis.pruning.smaller import CutReport, Shrinker, largest_difference
from emergraph.analysis.pruning.writing import check_target
from emergraph.atomic import write_atomically
from emergraph.errors import UsageError
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess
from emergraph.exporters.runtime.sources import FileSource, InMemorySource
from emergraph.exporters.runtime.wholemodel import model_bytes
from emergraph.exporters.traces.prepare import Prepared
from emergraph.graphstore.reader import GraphReader

Array = NDArray[np.generic]
TOLERANCE = 1e-4
"""Largest difference of outputs, over the largest output, that rounding in another order can explain."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a pruned model that was written has."""

    zeroed_parameters: int
    """Parameters that are zero in it and were not in the model."""
    report: CutReport | None = None
    """Of a smaller model."""
    bytes_before: int = 0
    bytes_after: int = 0
    difference: float | None = None
    """Largest difference from the outputs of the masked model, over their largest value or 1."""
    branches: Sequence[str] = ()
    """Branches of If operations that the smaller model holds alone."""
    graph: int | None = None
    """Id of the graph that was stored."""
    graph_name: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = {**vars(self), "branches": list(self.branches)}
        return {**found, "report": None if self.report is None else self.report.to_dict()}


def write_smaller(
    reader: GraphReader,
    removal: Removal,
    level: int,
    *,
    files: ModelFiles,
    out: Path,
    tensor_values: TensorValues,
) -> Written:
    """Cut the channels that a pruned model does not need, compare its outputs with the masked model's, write.

    Args:
        reader: The graph.
        removal: The masks.
        level: Index of the level.
        files: The file that the graph was exported from, and samples to compare the two models on; without
            them, on four random ones.
        out: The file to write; replaced at once when all is there.
        tensor_values: The graph's parameter tensors.

    Raises:
        InvalidInputError: The file is not the graph's model, or the samples do not fit it.
        UsageError: The file to write is the model itself, or the two models' outputs differ.
        LimitError: The model would not fit one protobuf message, or not the disk.
    """
    check_target(files.model, out)
    file = model_of(reader, files.model, root=files.root)
    source = FileSource(file)
    prepared = prepare_samples(file, files.arrays, files.limits)
    flat = prepared.run.flat
    shapes = {name: tuple(tensor.dims) for name, tensor in flat.initializers.items()}
    zeros = stored_codes(flat, source)
    places = parameter_places(flat, source, removal.items.table.graph, tensor_values, removal.items.unit)
    elements = TensorElements(removal, places)
    zeroed = all_zeroed(elements, removal, level, flat.nodes, shapes)
    shrinker = Shrinker(prepared.run, source)
    smaller, unneeded = shrinker.smaller(zeroed)
    content = model_bytes(smaller)
    difference = compare_models(prepared, source, zeroed, smaller, files.limits)
    if difference > TOLERANCE:
        raise UsageError(
            f"the smaller model's outputs differ from the masked one's by {difference:.3g} of their size; "
            "nothing was written: write the masked model with --masked, and report this"
        )
    write_atomically(out, content)
    return Written(
        zeroed_parameters=sum(
            _lost(source.array(flat.initializers[name]), name, places, zeros)
            for name, places in zeroed.items()
        ),
        report=shrinker.report(unneeded, removal, level),
        bytes_before=file_bytes(file),
        bytes_after=len(content),
        difference=difference,
        branches=flat.branches,
    )


def compare_models(
    prepared: Prepared, source: ModelSource, zeroed: Zeroed, smaller: onnx.ModelProto, limits: RunLimits
) -> float:
    """The largest difference between the outputs of the masked and of the smaller model."""
    flat = prepared.run.flat
    own = InMemorySource(smaller)
    small = flatten(smaller, read_tensor=own.array)
    wanted = {value.name for value in small.inputs}
    with ModelProcess(limits) as process:
        process.load(assemble(flat, flat.outputs, pruned_source(source, flat, zeroed)))
        expected = model_outputs(process, prepared, flat.outputs)
        process.load(assemble(small, small.outputs, own))
        found = model_outputs(process, prepared, small.outputs, only=wanted)
    return largest_difference(expected, found)


def _lost(values: Array, name: str, places: NDArray[np.int64], zeros: StoredCodes) -> int:
    return int(np.count_nonzero(values != zeros.put(name, values, places)))
