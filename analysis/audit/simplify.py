"""Changes of a model in memory that leave what it computes: folds, and what changes nothing left out."""

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import attributes, input_name, subgraphs
from emergraph.exporters.operations import DENSE, Kind, kind_of
from emergraph.exporters.runtime.flat_model import names_used

Array = NDArray[np.generic]
Floats = NDArray[np.float64]


class Simplifier:
    """Simplifies a model, in place.

    Args:
        model: Without local functions; values inside.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self._values = {proto.name: onnx.numpy_helper.to_array(proto) for proto in model.graph.initializer}
        self._fresh = 0

    def drop_identities(self, names: frozenset[str]) -> int:
        """Leave out operations that change nothing; return how many.

        Args:
            names: Of the operations. One that makes an output of the model stays: the name is needed.
        """
        outputs = {value.name for value in self.graph.output}
        inner = names_used([node for node in self.graph.node if any(True for _ in subgraphs(node))])
        chosen = {n.name for n in self.graph.node if n.name in names and n.output[0] not in outputs | inner}
        for node in self.graph.node:
            if node.name in chosen:
                self._read_instead(node.output[0], node.input[0])
        self._set_nodes([node for node in self.graph.node if node.name not in chosen])
        return len(chosen)

    def fold_norms(self, names: frozenset[str]) -> int:
        """Put batch normalisations into the layers before them; return how many."""
        done = 0
        for name in names:
            norm = next((node for node in self.graph.node if node.name == name), None)
            before = None if norm is None else self._maker(norm.input[0])
            if norm is not None and before is not None and self._fold_norm(before, norm):
                done += 1
        return done

    def _fold_norm(self, before: onnx.NodeProto, norm: onnx.NodeProto) -> bool:
        if not self._alone(before, norm) or not all(n in self._values for n in norm.input[1:]):
            return False
        weights = self._values.get(input_name(before, 1))
        held = self._values.get(input_name(before, 2)) if input_name(before, 2) else 0.0
        if weights is None or held is None or weights.dtype.kind != "f":
            return False
        axis = _out_axis(before)
        if axis is None:
            return False
        scale, shift, mean, variance = (self._values[n].astype(np.float64) for n in norm.input[1:5])
        factor = scale / np.sqrt(variance + float(str(attributes(norm).get("epsilon", 1e-5))))
        if weights.shape[axis] != factor.size:
            return False
        shape = [1] * weights.ndim
        shape[axis] = -1
        bias = (np.asarray(held, np.float64) - mean) * factor + shift
        self._set_input(before, 1, (weights.astype(np.float64) * factor.reshape(shape)).astype(weights.dtype))
        self._set_input(before, 2, bias.astype(weights.dtype))
        before.output[0] = norm.output[0]
        self._set_nodes([node for node in self.graph.node if node is not norm and node != norm])
        return True

    def fold_chains(self, pairs: list[tuple[str, str]]) -> int:
        """Put dense layers that directly follow each other into one; return how many pairs."""
        done = 0
        for first, second in pairs:
            nodes = {node.name: node for node in self.graph.node}
            if first in nodes and second in nodes and self._fold_chain(nodes[first], nodes[second]):
                done += 1
        return done

    def _fold_chain(self, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
        a, b = self._dense(first), self._dense(second)
        between = self._between(first, second)
        if a is None or b is None or between is None:
            return False
        (wa, ba), (wb, bb) = a, b
        for _, name in between:
            ba = ba + self._values[name].astype(np.float64)
        weights = wa @ wb
        if weights.size >= wa.size + wb.size:
            return False
        dtype = self._values[second.input[1]].dtype
        turned = kind_of(second) is Kind.GEMM and bool(attributes(second).get("transB"))
        bias = ba @ wb + bb if ba.size == wb.shape[0] else np.broadcast_to(ba, wb.shape[0]) @ wb + bb
        if kind_of(second) is Kind.MATMUL and np.any(bias):
            return False
        self._set_input(second, 1, (weights.T if turned else weights).astype(dtype))
        if kind_of(second) is Kind.GEMM:
            self._set_input(second, 2, bias.astype(dtype))
        second.input[0] = first.input[0]
        gone = [first, *(node for node, _ in between)]
        self._set_nodes([node for node in self.graph.node if all(node is not one for one in gone)])
        return True

    def _between(
        self, first: onnx.NodeProto, second: onnx.NodeProto
    ) -> list[tuple[onnx.NodeProto, str]] | None:
        """The sums with constants between two layers; None for anything else."""
        found: list[tuple[onnx.NodeProto, str]] = []
        name = first.output[0]
        while name != second.input[0]:
            readers = [node for node in self.graph.node if name in names_used([node])]
            if len(readers) != 1 or kind_of(readers[0]) is not Kind.SUM or self._is_output(name):
                return None
            others = [other for other in readers[0].input if other != name]
            if len(others) != 1 or others[0] not in self._values or self._values[others[0]].ndim != 1:
                return None
            found.append((readers[0], others[0]))
            name = readers[0].output[0]
        alone = [node for node in self.graph.node if name in names_used([node])]
        return found if len(alone) == 1 and not self._is_output(name) else None

    def _dense(self, node: onnx.NodeProto) -> tuple[Floats, Floats] | None:
        """(in, out) weights and the bias of a dense layer."""
        weights = self._values.get(input_name(node, 1))
        given = attributes(node)
        if weights is None or weights.ndim != 2 or weights.dtype.kind != "f" or kind_of(node) not in DENSE:
            return None
        if kind_of(node) is Kind.MATMUL:
            return weights.astype(np.float64), np.zeros(1)
        plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0 and not given.get("transA")
        name = input_name(node, 2)
        held = self._values.get(name) if name else np.zeros(1)
        if not plain or held is None or held.ndim != 1:
            return None
        turned = weights.T if given.get("transB") else weights
        return turned.astype(np.float64), held.astype(np.float64)

    def store_once(self) -> int:
        """Let readers of equal initializers read one of them; return how many copies went."""
        first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
        gone = 0
        for proto in list(self.graph.initializer):
            if proto.data_type == onnx.TensorProto.STRING:
                continue
            values = self._values[proto.name]
            key = (proto.data_type, values.shape, np.ascontiguousarray(values).tobytes())
            if key in first and not self._is_output(proto.name):
                self._read_instead(proto.name, first[key])
                gone += 1
            first.setdefault(key, proto.name)
        return gone

    def finish(self) -> None:
        """Leave out initializers and operations that nothing needs, and write values back."""
        used = names_used(list(self.graph.node)) | {value.name for value in self.graph.output}
        kept = [proto for proto in self.graph.initializer if proto.name in used]
        held = {proto.name: proto for proto in kept}
        added = [n for n in self._values if n in used and n not in held]
        copies = [onnx.TensorProto.FromString(proto.SerializeToString()) for proto in kept]
        del self.graph.initializer[:]
        self.graph.initializer.extend(copies)
        for name in added:
            self.graph.initializer.append(onnx.numpy_helper.from_array(np.array(self._values[name]), name))

    def _set_input(self, node: onnx.NodeProto, position: int, values: Array) -> None:
        name = f"audit/{self._fresh}"
        while name in self._values:
            self._fresh += 1
            name = f"audit/{self._fresh}"
        self._fresh += 1
        self._values[name] = values
        while len(node.input) <= position:
            node.input.append("")
        node.input[position] = name

    def _alone(self, before: onnx.NodeProto, reader: onnx.NodeProto) -> bool:
        name = before.output[0]
        readers = [node for node in self.graph.node if name in names_used([node])]
        return len(readers) == 1 and readers[0] == reader and not self._is_output(name)

    def _is_output(self, name: str) -> bool:
        return any(value.name == name for value in self.graph.output)

    def _maker(self, name: str) -> onnx.NodeProto | None:
        return next((node for node in self.graph.node if name in node.output), None)

    def _set_nodes(self, nodes: list[onnx.NodeProto]) -> None:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)

    def _read_instead(self, old: str, new: str) -> None:
        for node in _all_nodes(list(self.graph.node)):
            for position, name in enumerate(node.input):
                if name == old:
                    node.input[position] = new


def _out_axis(node: onnx.NodeProto) -> int | None:
    """Which axis of a layer's weights counts what it makes; None where a fold is not offered."""
    kind = kind_of(node)
    given = attributes(node)
    if kind is Kind.CONVOLUTION:
        return 0
    if kind is Kind.CONV_TRANSPOSE:
        return 1 if int(str(given.get("group", 1))) == 1 else None
    if kind is Kind.GEMM and given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0:
        return 0 if given.get("transB") else 1
    return None


def _all_nodes(nodes: list[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    stack = list(nodes)
    while stack:
        node = stack.pop()
        yield node
        for graph in subgraphs(node):
            stack.extend(graph.node)


def n_elements(model: onnx.ModelProto) -> int:
    """Elements of all initializers."""
    return sum(int(np.prod(proto.dims)) for proto in model.graph.initializer)
