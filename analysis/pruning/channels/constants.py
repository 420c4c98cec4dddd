"""The constants of a flat model: initializers, and what follows from them alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.operations import POINTWISE, Kind, kind_of
from emergraph.exporters.runtime.flat_model import FlatModel
from emergraph.exporters.runtime.folding import Folder

Array = NDArray[np.generic]
Keep = NDArray[np.bool_]


@dataclass
class ModelConstants:
    """Values of constants, and copies of them with channels cut out."""

    flat: FlatModel
    values: Callable[[str], Array]
    """Gives an initializer; masked ones with their zeros."""
    makers: Mapping[str, onnx.NodeProto]
    """By name, the constants that operations make, see `made_of_constants`."""
    folder: Folder
    """Computes the others."""
    added: dict[str, onnx.TensorProto] = field(default_factory=dict)
    """New initializers by name."""
    added_nodes: list[onnx.NodeProto] = field(default_factory=list)
    """New constant operations, in order."""
    _known: dict[str, Array] = field(default_factory=dict)
    _copies: dict[tuple[object, ...], str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.flat.initializers or name in self.makers

    def value(self, name: str) -> Array:
        """The values of a constant."""
        if name not in self._known:
            if name in self.flat.initializers:
                return self.values(name)
            self._known[name] = self.folder.named(name, self.makers, self.values)
        return self._known[name]

    def cut(self, name: str, keeps: Mapping[int, Keep]) -> str:
        """The name of a copy of a constant that keeps some indices of some axes.

        The operations that make the constant (dequantization, transposition) are kept where they work
        element by element, so that stored integers stay integers; other results are stored as they are.
        """
        wanted = {axis: keep for axis, keep in keeps.items() if not keep.all()}
        if not wanted:
            return name
        key = (name, *((axis, wanted[axis].tobytes()) for axis in sorted(wanted)))
        if key not in self._copies:
            self._copies[key] = self._cut(name, wanted)
        return self._copies[key]

    def add(self, values: Array, like: str = "constant") -> str:
        """The name of a new initializer."""
        name = self._fresh(like)
        self.added[name] = onnx.numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def _fresh(self, like: str) -> str:
        return f"{like}/cut{len(self.added) + len(self.added_nodes)}"

    def _cut(self, name: str, keeps: Mapping[int, Keep]) -> str:
        node = self.makers.get(name)
        inputs = None if node is None else self._cut_inputs(node, keeps)
        if node is None or inputs is None:
            values = self.value(name)
            for axis, keep in keeps.items():
                values = np.compress(keep, values, axis=axis)
            return self.add(values, name)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(inputs)
        new = self._fresh(name)
        del copy.output[:]
        copy.output.append(new)
        copy.name = new
        self.added_nodes.append(copy)
        return new

    def _cut_inputs(self, node: onnx.NodeProto, keeps: Mapping[int, Keep]) -> list[str] | None:
        """Inputs of an element-wise constant operation, cut likewise; None for other operations."""
        rank = self.value(node.output[0]).ndim
        if kind_of(node) is Kind.TRANSPOSE:
            given = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), None)
            order = given or tuple(reversed(range(rank)))
            return [self.cut(node.input[0], {order[axis]: keep for axis, keep in keeps.items()})]
        if kind_of(node) is Kind.DEQUANTIZE:
            return self._cut_quantized(node, keeps)
        if kind_of(node) not in POINTWISE or len([n for n in node.output if n]) != 1:
            return None
        found = []
        for name in node.input:
            if not name:
                found.append(name)
                continue
            shape = self.value(name).shape
            mine = {
                axis - rank + len(shape): keep
                for axis, keep in keeps.items()
                if axis - rank + len(shape) >= 0 and shape[axis - rank + len(shape)] != 1
            }
            found.append(self.cut(name, mine))
        return found

    def _cut_quantized(self, node: onnx.NodeProto, keeps: Mapping[int, Keep]) -> list[str] | None:
        if any(a.name == "block_size" and a.i for a in node.attribute):
            return None
        rank = self.value(node.input[0]).ndim
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % rank
        found = [self.cut(node.input[0], keeps)]
        for name in node.input[1:]:
            per_channel = bool(name) and self.value(name).size > 1 and axis in keeps
            found.append(self.cut(name, {0: keeps[axis]}) if per_channel else name)
        return found


def integers(values: Sequence[int] | Array) -> NDArray[np.int64]:
    """As whole numbers, one axis."""
    return np.asarray(values, dtype=np.int64).reshape(-1)
