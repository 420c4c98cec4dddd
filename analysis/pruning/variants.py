"""The pruned model of one what-if as a file, and as a graph beside the one it was made from."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.options import Keeping, PruningOptions
from emergraph.analysis.pruning.storedwhatif import check_one_what_if, write_stored
from emergraph.analysis.pruning.whatif import PruningResult
from emergraph.atomic import Outputs, joined, together
from emergraph.errors import UsageError
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.store import StoreFile
from emergraph.graphstore.text import stored_object
from emergraph.leftovers import Scratch


def check_keeping(keeping: Keeping, options: PruningOptions, files: ModelFiles | None) -> None:
    """Refuse to keep what cannot be made, before anything is computed.

    Raises:
        UsageError: There are several what-ifs, no model, or nothing to keep.
    """
    if not keeping.keeps:
        if keeping.smaller is not None:
            raise UsageError(
                "smaller or masked is about a model that is written: give --write or --save-graph"
            )
        return
    check_one_what_if(options)
    if files is None:
        raise UsageError("a pruned model is made from the model: give its file with --model")


def keep_variant(
    store: StoreFile, graph: int, result: PruningResult, keeping: Keeping, files: ModelFiles | None
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
    if files is None or (keeping.write is None and keeping.graph is None):
        return result
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
