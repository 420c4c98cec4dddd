"""Weights that a model puts together from constants (sliced, concatenated gates) as constants of their own.

Exporters write a fused LSTM's weights as slices and concatenations of the original tensors. What such a
subgraph makes is computed once, so that the contraction's weight is one tensor again; simple movers and
scales of a single tensor stay in the graph, since there the original tensor can be perturbed.
"""

from collections.abc import Mapping
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.landscape.parameters import is_followed
from emergraph.analysis.landscape.quantized import Rewriting
from emergraph.exporters.nodes import made_of_constants
from emergraph.exporters.operations import Kind, spec_of
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.folding import Folder

Array = NDArray[np.generic]


def fold_composed_weights(model: Rewriting, flat: FlatModel) -> None:
    """Replace weights that several operations make from constants by new constants, in place.

    Args:
        model: The model; its operations are copied where an input changes.
        flat: The model before it was rewritten, for the versions of its operations.
    """
    with Folder(flat.opsets, ir_version=flat.ir_version) as folder:
        _fold_composed(model, made_of_constants(model.nodes, model.constants), folder)


def _fold_composed(model: Rewriting, producers: Mapping[str, onnx.NodeProto], folder: Folder) -> None:
    def value(name: str) -> Array:
        return model.read(model.constants[name])

    folded = 0
    for at, node in enumerate(model.nodes):
        spec = spec_of(node)
        positions = (*spec.weights, *(spec.vectors[:1] if spec.kind is Kind.RECURRENT else ()))
        composed = [
            i
            for i in positions
            if i < len(node.input) and node.input[i] in producers and _is_composed(node.input[i], producers)
        ]
        if not composed or node.output[0] in producers:
            continue
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i in composed:
            made = folder.named(node.input[i], producers, value)
            if made.dtype.kind == "f":
                name = model.add(f"{node.input[i]}/folded", made)
                origin = _largest_root(node.input[i], producers, model)
                model.origins.setdefault(name, origin)
                copy.input[i] = name
                folded += 1
        model.nodes[at] = copy
    if folded:
        model.notes.append(f"{folded} weights put together from constants computed once")


def _is_composed(name: str, producers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether some operation behind a constant tensor is more than a mover or scale of one tensor."""
    stack, seen = [name], set[str]()
    while stack:
        current = stack.pop()
        if current in seen or current not in producers:
            continue
        seen.add(current)
        if not is_followed(producers[current]):
            return True
        stack.extend(producers[current].input)
    return False


def _largest_root(name: str, producers: Mapping[str, onnx.NodeProto], model: Rewriting) -> str:
    """The largest of the file's tensors that a constant was put together from."""
    stack, roots = [name], dict[str, int]()
    while stack:
        current = stack.pop()
        if current in producers:
            stack.extend(part for part in producers[current].input if part)
        elif current in model.constants:
            roots[current] = prod(int(d) for d in model.constants[current].dims)
    largest = max(roots, key=lambda root: roots[root])
    return model.origins.get(largest, largest)
