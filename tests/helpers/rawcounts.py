"""Counting connections of a model file from its raw tensors alone, without the package under test."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Array = NDArray[np.generic]


class RawModel:
    """The tensors of an ONNX file and the nodes that read them, nothing more."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        self.nodes = list(self.model.graph.node)
        self.tensors: dict[str, Array] = {}
        for tensor in self.model.graph.initializer:
            self.tensors[tensor.name] = numpy_helper.to_array(tensor)
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.tensors[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)

    def stored(self, ending: str) -> Array:
        """The one tensor whose name ends like this."""
        found = [array for name, array in self.tensors.items() if name.endswith(ending)]
        assert len(found) == 1, (ending, len(found))
        return found[0]

    def uses(self, *op_types: str, position: int = 1) -> Iterator[Array]:
        """The tensors that nodes of some types read at a position."""
        alias = {n.output[0]: n.input[0] for n in self.nodes if n.op_type == "Identity"}
        for node in self.nodes:
            if node.op_type in op_types and len(node.input) > position:
                name = node.input[position]
                while name in alias:
                    name = alias[name]
                if name in self.tensors:
                    yield self.tensors[name]

    def convolutions(self) -> int:
        """Pairs (output channel, input channel of its group) whose kernel has a tap that is not zero."""
        return sum(pairs(kernel) for kernel in self.uses("Conv", "ConvTranspose"))

    def products(self) -> int:
        """Weights of Gemm and MatMul that are not zero."""
        return sum(int(np.count_nonzero(w)) for w in self.uses("Gemm", "MatMul"))


def pairs(kernel: Array) -> int:
    """Pairs of the first two axes between which some tap is not zero."""
    return int((kernel.reshape(*kernel.shape[:2], -1) != 0).any(axis=2).sum())


def nonzero(*arrays: Array) -> int:
    """Entries that are not zero."""
    return sum(int(np.count_nonzero(a)) for a in arrays)
