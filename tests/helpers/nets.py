"""Small ONNX models for tests, written one operation at a time."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import helper, numpy_helper

_FLOAT = onnx.TensorProto.FLOAT
_INT64 = onnx.TensorProto.INT64
_ELEMENT = {
    np.dtype(np.float32): _FLOAT,
    np.dtype(np.int64): _INT64,
    np.dtype(np.bool_): onnx.TensorProto.BOOL,
}


class Net:
    """A model under construction.

    Example:
        >>> net = Net()
        >>> net.output(net.op("Relu", net.dense(net.input(1, 4), 3)))
        >>> [node.op_type for node in net.model().graph.node]
        ['MatMul', 'Add', 'Relu']
    """

    def __init__(self, *, opset: int = 17, seed: int = 0, domains: dict[str, int] | None = None) -> None:
        self.rng = np.random.default_rng(seed)
        self.opsets = {"": opset, **(domains or {})}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[str] = []
        self._count = 0

    def fresh(self, stem: str) -> str:
        """A name that was not given before."""
        self._count += 1
        return f"{stem}_{self._count}"

    def input(self, *shape: int, name: str | None = None, dtype: type[np.generic] = np.float32) -> str:
        """A graph input of fixed shape."""
        name = name or self.fresh("x")
        self.inputs.append(helper.make_tensor_value_info(name, _ELEMENT[np.dtype(dtype)], shape))
        return name

    def value(
        self, values: ArrayLike, *, name: str | None = None, dtype: type[np.generic] | None = None
    ) -> str:
        """An initializer with these values."""
        array = np.asarray(values, dtype)
        if array.dtype == np.float64 and dtype is None:
            array = array.astype(np.float32)
        name = name or self.fresh("c")
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        """A vector of int64."""
        return self.value(np.asarray(values, np.int64))

    def random(self, *shape: int, zeros: float = 0.0) -> NDArray[np.float32]:
        """Values of both signs, none near zero except for a share of exact zeros.

        No slice along the first or the second axis is all zero, so that no unit of a layer is dead.
        """
        values = self.rng.uniform(0.3, 1.0, shape) * self.rng.choice([-1.0, 1.0], shape)
        pruned = np.where(self.rng.random(shape) < zeros, 0.0, values)
        for axis in range(min(2, len(shape))):
            flat, whole = np.moveaxis(pruned, axis, 0), np.moveaxis(values, axis, 0)
            for k in range(shape[axis]):
                if not flat[k].any():
                    spot = tuple(self.rng.integers(0, n) for n in flat[k].shape)
                    flat[k][spot] = whole[k][spot]
        return pruned.astype(np.float32)

    def param(self, *shape: int, zeros: float = 0.0, name: str | None = None) -> str:
        """An initializer with random values."""
        return self.value(self.random(*shape, zeros=zeros), name=name or self.fresh("w"))

    def op(
        self, op_type: str, *inputs: str, name: str | None = None, domain: str = "", **attributes: Any
    ) -> str:
        """Append an operation with one output and return its name."""
        return self.ops(op_type, 1, *inputs, name=name, domain=domain, **attributes)[0]

    def ops(
        self,
        op_type: str,
        count: int,
        *inputs: str,
        name: str | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Append an operation with several outputs."""
        name = name or self.fresh(op_type)
        outputs = [f"{name}.{k}" if count > 1 else f"{name}.out" for k in range(count)]
        self.nodes.append(
            helper.make_node(op_type, list(inputs), outputs, name=name, domain=domain, **attributes)
        )
        return outputs

    def dense(
        self, x: str, width: int, *, fan_in: int | None = None, zeros: float = 0.0, bias: bool = True
    ) -> str:
        """x W + b over the last axis, whose size is `fan_in` (default: of an input, its declared one)."""
        product = self.op("MatMul", x, self.param(fan_in or self.size(x, -1), width, zeros=zeros))
        self._sizes[product] = width
        if not bias:
            return product
        out = self.op("Add", product, self.param(width))
        self._sizes[out] = width
        return out

    @property
    def _sizes(self) -> dict[str, int]:
        found: dict[str, int] = self.__dict__.setdefault("sizes", {})
        return found

    def size(self, name: str, axis: int) -> int:
        """Size of an axis of an input, or the width of what `dense` made."""
        for given in self.inputs:
            if given.name == name:
                return int(given.type.tensor_type.shape.dim[axis].dim_value)
        return self._sizes[name]

    def output(self, *names: str) -> None:
        """Make tensors outputs of the graph."""
        self.outputs.extend(names)

    def model(self) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            self.inputs,
            [onnx.ValueInfoProto(name=name) for name in self.outputs],
            self.initializers,
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def initializer(model: onnx.ModelProto, name: str) -> NDArray[Any]:
    """Values of an initializer."""
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))
