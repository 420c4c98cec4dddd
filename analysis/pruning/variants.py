"""The pruned model of one what-if as a file, and as a graph beside the one it was made from."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.options import Keeping, PruningUnit
from emergraph.analysis.pruning.storedwhatif import check_one_what_if
from emergraph.analysis.pruning.whatif import PruningResult
from emergraph.analysis.pruning.writing import write_masked
from emergraph.analysis.pruning.writingsmaller import Written, write_smaller
from emergraph.atomic import Outputs, joined, together
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.restore import restore_tensor
from emergraph.graphstore.store import StoreFile
from emergraph.graphstore.text import stored_object
from emergraph.leftovers import Scratch


def keep_variant(
    store: StoreFile, graph: int, result: PruningResult, keeping: Keeping, files: ModelFiles
) -> PruningResult:
    """Write the pruned model and store its graph, as far as asked for.

    Args:
        store: Open; for writing where a graph is to be stored.
        graph: Id of the graph that was pruned.
        result: The what-if.
        keeping: What to keep.
        files: The model, and samples to compare a smaller model on.

    Returns:
        The result with what was written.

    Raises:
        UsageError: The parameters cannot be found in their tensors.
        InvalidInputError: The file is not the graph's model.
    """
    reader = store.graph(graph)
    with _place(keeping, reader) as (outputs, out):
        written = write_stored(reader, result, files=files, out=out, smaller=keeping.smaller)
        if keeping.graph is not None:
            kept = stored_object(str(reader.summary["settings"]), f"settings of graph {graph}")
            inputs, shapes = _as_exported(kept)
            options = ExportOptions(
                name=keeping.graph,
                parent=graph,
                force=True,
                inputs={} if written.branches else inputs,
                input_shapes=shapes,
                run_limits=files.limits,
            )
            summary = export_onnx(outputs.staged(out) or out, store, options=options)
            written = replace(written, graph=summary.graph, graph_name=summary.name)
    return replace(result, written=written)


def write_stored(
    reader: GraphReader, result: PruningResult, *, files: ModelFiles, out: Path, smaller: bool | None = None
) -> Written:
    """Write the pruned model of the result's one what-if.

    Args:
        reader: The graph.
        result: With one row.
        files: The file that the graph was exported from, and samples to compare models on.
        out: The file to write.
        smaller: Cut out the channels that the pruned model does not need; False: same shapes, with zeros.
            None: smaller where units are removed.

    Raises:
        UsageError: There are several what-ifs, or the parameters cannot be found in their tensors.
        InvalidInputError: The file is not the graph's model.
    """
    check_one_what_if(result.options)
    removal, level = result.mask(0)
    values = functools.partial(restore_tensor, reader)
    if smaller is None:
        smaller = result.options.pruning_unit is PruningUnit.UNIT
    if smaller:
        return write_smaller(reader, removal, level, files=files, out=out, tensor_values=values)
    count, before, after = write_masked(reader, removal, level, files=files, out=out, tensor_values=values)
    return Written(zeroed_parameters=count, bytes_before=before, bytes_after=after)


@contextlib.contextmanager
def _place(keeping: Keeping, reader: GraphReader) -> Iterator[tuple[Outputs, Path]]:
    """Where the pruned model is written: the file that was asked for, or one for the moment."""
    if keeping.write is not None:
        with joined() as outputs:
            yield outputs, keeping.write
        return
    name = f"{Path(str(reader.summary['source'])).stem}-pruned.onnx"
    with Scratch() as scratch, together() as outputs:
        yield outputs, scratch.path / name


def _as_exported(
    settings: Mapping[str, object],
) -> tuple[dict[str, NDArray[np.generic]], dict[str, tuple[int, ...]]]:
    """Inputs and shapes that the parent was exported with; of large inputs only the shape is known."""
    inputs, shapes = {}, {}
    given, sizes = settings.get("inputs"), settings.get("input_shapes")
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if isinstance(value, Mapping):
            shapes[name] = tuple(int(size) for size in value["shape"])
        else:
            inputs[name] = np.asarray(value)
    for name, shape in sizes.items() if isinstance(sizes, Mapping) else ():
        shapes[name] = tuple(int(size) for size in shape)
    return inputs, shapes
