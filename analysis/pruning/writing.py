"""Writing the pruned model: the file that was analysed, with zeros where parameters were removed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.modelruns.files import ModelFiles, model_of
from emergraph.analysis.pruning.items import TensorValues
from emergraph.analysis.pruning.maskedtensors import TensorElements
from emergraph.analysis.pruning.modelruns import all_zeroed, file_bytes, parameter_places, stored_codes
from emergraph.analysis.pruning.removal import Removal
from emergraph.atomic import write_atomically
from emergraph.errors import UsageError
from emergraph.exporters.runtime.assembly import stored_array
from emergraph.exporters.runtime.concrete import concrete_run
from emergraph.exporters.runtime.flatten import is_constant
from emergraph.exporters.runtime.frames import Buffer
from emergraph.exporters.runtime.sources import FileSource
from emergraph.exporters.runtime.wholemodel import fill, model_bytes, tensors_of
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.text import printable


def write_masked(
    reader: GraphReader,
    removal: Removal,
    level: int,
    *,
    files: ModelFiles,
    out: Path,
    tensor_values: TensorValues,
) -> tuple[int, int, int]:
    """Write a masked copy of a model: same operations and shapes, removed parameters zero.

    Args:
        reader: The graph.
        removal: The masks.
        level: Index of the level.
        files: The file that the graph was exported from.
        out: The file to write; replaced at once when all is there. Values of external data go into it.
        tensor_values: The graph's parameter tensors.

    Returns:
        Parameters that the file has zero and the model had not, the size of the model, and that of the file.

    Raises:
        InvalidInputError: The file is not the graph's model.
        UsageError: The file to write is the model itself, or parameters cannot be found in their tensors.
        LimitError: The copy would not fit one protobuf message, or not the disk.
    """
    check_target(files.model, out)
    file = model_of(reader, files.model, root=files.root)
    before = file_bytes(file)
    source = FileSource(file)
    flat = concrete_run(file).flat
    shapes = {name: tuple(tensor.dims) for name, tensor in flat.initializers.items()}
    zeros = stored_codes(flat, source)
    where = parameter_places(flat, source, removal.items.table.graph, tensor_values, removal.items.unit)
    elements = TensorElements(removal, where)
    zeroed = all_zeroed(elements, removal, level, flat.nodes, shapes)
    replaced = {}
    count = 0
    for name, places in zeroed.items():
        proto = flat.initializers[name]
        values = source.array(proto)
        pruned = zeros.put(name, values, places)
        count += int(np.count_nonzero(values != pruned))
        replaced[id(proto)] = pruned
    fill(_changed(file.model, source, replaced))
    made = {name: id(flat.initializers[name]) for name in zeroed}
    if not all(_put(file.model.graph, name, replaced[made[name]]) for name in made if made[name] in replaced):
        raise UsageError("pruned tensors are not in the file under their own names; nothing was written")
    content = model_bytes(file.model)
    write_atomically(out, content)
    return count, before, len(content)


def _changed(
    model: onnx.ModelProto, source: FileSource, replaced: dict[int, NDArray[np.generic]]
) -> Iterator[tuple[onnx.TensorProto, Buffer]]:
    """Tensors with the values that the file is to have: pruned ones, taken from `replaced`, and external."""
    for tensor in tensors_of(model):
        if id(tensor) in replaced:
            yield tensor, stored_array(replaced.pop(id(tensor)), tensor.data_type).raw
        elif tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor, source.stored(tensor).raw


def _put(graph: onnx.GraphProto, name: str, values: NDArray[np.generic]) -> bool:
    """Put a plain tensor where the main graph has a sparse one or a Constant; False: it has neither."""
    for position, sparse in enumerate(graph.sparse_initializer):
        if sparse.values.name == name:
            del graph.sparse_initializer[position]
            graph.initializer.append(onnx.numpy_helper.from_array(values, name))
            return True
    for node in graph.node:
        if is_constant(node) and list(node.output) == [name]:
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(values)))
            return True
    return False


def check_target(model: Path, out: Path) -> None:
    """Refuse to write over the model itself, or into no folder.

    Raises:
        UsageError: It would be.
    """
    shown = printable(str(out), limit=100)
    if not out.parent.is_dir():
        raise UsageError(f"--write {shown}: no such folder")
    if out.exists() and model.exists() and out.samefile(model):
        raise UsageError(f"--write {shown}: that is the model itself; give another name")
