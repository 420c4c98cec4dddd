"""Which axes of an input are its units: position ids ride forward until something contracts them.

An input's units are the positions that its first contraction contracts as features or channels; positions
that a kernel slides over, tokens and batch items are never units. So every position of an input gets an id,
the ids ride through movement and element-wise operations, and the first contraction tells which of them are
one unit: those that differ only along axes that it does not contract.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emergraph.errors import EmergraphError
from emergraph.exporters.tracing.context import TracedModel, op_names
from emergraph.exporters.tracing.evaluate import attributes, has_subgraph, run_node
from emergraph.exporters.tracing.facts import BodyRun, TensorFacts
from emergraph.exporters.tracing.labels import NO_UNIT, Labels
from emergraph.exporters.tracing.subgraphs import (
    RepeatedBody,
    body_of,
    outer_names,
    repeated_body,
    run_graph,
)

_MOVERS = frozenset(
    [
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Expand",
        "Tile",
        "Pad",
        "DepthToSpace",
        "SpaceToDepth",
        "Slice",
        "Split",
        "Concat",
        "Gather",
        "Identity",
        "Cast",
        "CenterCropPad",
        "ReverseSequence",
        "Trilu",
    ]
)
_SLIDING = frozenset(op_names("Conv ConvTranspose ConvInteger QLinearConv"))
_POOLS = frozenset(
    [
        "MaxPool",
        "AveragePool",
        "LpPool",
        "GlobalMaxPool",
        "GlobalAveragePool",
        "GlobalLpPool",
        "Resize",
        "Upsample",
        "InstanceNormalization",
        "GroupNormalization",
        "BatchNormalization",
    ]
)
_DENSE = frozenset(op_names("MatMul Gemm MatMulInteger QLinearMatMul"))
_RECURRENT = frozenset(op_names("LSTM GRU RNN"))
_CUT = frozenset(op_names("Shape Size ArgMax ArgMin NonZero NonMaxSuppression TopK Range ConstantOfShape"))


def input_units(model: TracedModel, name: str) -> Labels | None:
    """Number an input's units.

    Args:
        model: The flat model.
        name: One of its inputs.

    Returns:
        Labels 0..n-1 of the input's shape, in order of first appearance, or None when the input only decides
        which or where (token ids of an embedding, lengths).
    """
    ride = _Ride(model, name)
    ride.run()
    if not ride.used_as_value:
        return None
    return ride.classes()


class _Ride:
    """Position ids of one input on their way to its first contraction."""

    def __init__(self, model: TracedModel, name: str) -> None:
        self.model = model
        self.shape = model.facts[name].shape
        self.size = int(np.prod(self.shape, dtype=np.int64))
        self.ids: dict[str, Labels] = {name: np.arange(self.size).reshape(self.shape)}
        self.pairs: list[NDArray[np.int64]] = []
        self.used_as_value = name in model.outputs
        self.resolved = False
        self.depth = 0
        """Within how many bodies of loops the ride is."""

    def run(self) -> None:
        """Carry the ids through the nodes until the first contraction has been met."""
        for node in self.model.nodes:
            if has_subgraph(node):
                self._enter(node)
            elif any(i in self.ids for i in node.input):
                self.step(node)
            if self.resolved:
                return

    def _enter(self, node: onnx.NodeProto) -> None:
        """Go on inside the body of a Loop or a Scan that reads a carried tensor."""
        bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        inner = set().union(*(outer_names(body) for body in bodies))
        if not any(name in self.ids for name in (*node.input, *inner)):
            return
        if node.op_type == "If":
            self._enter_branches(node)
            return
        body = self._repeated(node)
        if body is None:
            self.used_as_value = True
            return
        for inside, outside, axis in body.slices:
            if outside in self.ids:
                self._unite_along(self.ids[outside], axis)
                self.ids[inside] = np.take(self.ids[outside], 0, axis=axis)
        self.ids.update({inside: self.ids[out] for inside, out, _ in body.states if out in self.ids})
        self._ride_through(body.run, body.own, depth=1)
        for name, (inside, stacked) in zip(node.output, body.results, strict=False):
            if inside in self.ids and name in self.model.facts:
                self._leave(name, self.ids[inside], stacked, self.model.facts[name].shape)

    def _enter_branches(self, node: onnx.NodeProto) -> None:
        """Go on inside the first branch of an open If that tells what its inputs' units are."""
        for key in ("then_branch", "else_branch"):
            branch = body_of(node, key)
            if self.model.run_body is None or self.resolved:
                break
            try:
                run = run_graph(self.model.run_body, branch, self._facts, {})
            except (EmergraphError, KeyError):
                continue
            self._ride_through(run, {}, depth=0)
            for name, value in zip(node.output, branch.output, strict=True):
                if value.name in self.ids and name in self.model.facts:
                    self._leave(name, self.ids[value.name], None, self.model.facts[name].shape)
        self.used_as_value = True

    def _ride_through(self, run: BodyRun, own: Mapping[str, TensorFacts], *, depth: int) -> None:
        outer = self.model
        facts = {**outer.facts, **own, **run.facts}
        self.model, self.depth = replace(outer, nodes=run.nodes, facts=facts, outputs=()), self.depth + depth
        self.run()
        self.model, self.depth = outer, self.depth - depth

    def _repeated(self, node: onnx.NodeProto) -> RepeatedBody | None:
        if node.op_type not in ("Loop", "Scan") or self.model.run_body is None:
            return None
        try:
            return repeated_body(node, self.model.run_body, self._facts)
        except (EmergraphError, KeyError):
            return None

    def _leave(self, name: str, ids: Labels, stacked: int | None, shape: tuple[int, ...]) -> None:
        """Carry ids out of a body; what is stacked repeats along the new axis."""
        ids = ids if stacked is None else np.expand_dims(ids, stacked)
        if ids.ndim == len(shape):
            self._carry(name, np.broadcast_to(ids, shape))

    def _unite_along(self, ids: Labels, axis: int) -> None:
        """Positions that differ only along an axis that is walked through are one unit."""
        moved = np.moveaxis(ids, axis, -1)
        self.unite(moved.reshape(-1, moved.shape[-1]), 0)

    def _facts(self, name: str) -> TensorFacts | None:
        tensor = self.model.initializers.get(name)
        if tensor is not None:
            array = tensor.array()
            return TensorFacts(tuple(array.shape), array.dtype, array)
        return self.model.facts.get(name)

    def unite(self, groups: Labels, axis: int | None) -> None:
        """Positions are one unit when they differ only along axes other than `axis` (None: all are one)."""
        flat = (
            groups.reshape(1, -1)
            if axis is None
            else np.moveaxis(groups, axis, 0).reshape(groups.shape[axis], -1)
        )
        # Padding inside a row must not cut it: link each id to the row's first real one.
        first = np.max(np.where(flat >= 0, flat, -1), axis=1, keepdims=True)
        left = np.broadcast_to(first, flat.shape)
        both = np.stack([left.ravel(), flat.ravel()], axis=1)
        self.pairs.append(np.unique(both[(both >= 0).all(axis=1)], axis=0))

    def contracted(self, groups: Labels, axis: int | None) -> None:
        """The first contraction: what it does not contract is one unit."""
        self.unite(groups, axis)
        self.used_as_value = True
        self.resolved = True

    def step(self, node: onnx.NodeProto) -> None:
        """One operation that reads at least one carried tensor."""
        op = node.op_type
        carried = [k for k, i in enumerate(node.input) if i in self.ids]
        ids = self.ids[node.input[carried[0]]]
        if op in _CUT:
            return
        if op in _SLIDING and carried[0] == 0:
            self.contracted(ids, 1)
        elif op in _DENSE:
            self._dense(node, carried[0], ids)
        elif op == "Einsum":
            self._einsum(node, carried[0], ids)
        elif op in _RECURRENT:
            self.contracted(ids, ids.ndim - 1)
        elif op == "Concat" or (op in _MOVERS and carried[0] == 0):
            self._move(node)
        elif op in _MOVERS:
            return  # a shape or an index: it decides where, and carries nothing
        elif op in _POOLS:
            self.unite(ids, 1 if ids.ndim > 1 else None)
            self._spread_channels(node, ids)
        else:
            self._pass(node, carried)

    def _dense(self, node: onnx.NodeProto, position: int, ids: Labels) -> None:
        if node.op_type == "Gemm":
            flipped = any(a.name == ("transA", "transB")[min(position, 1)] and a.i for a in node.attribute)
            axis = position if flipped else 1 - position
            if position == 2:
                axis = 1
        elif position == 0:
            axis = ids.ndim - 1
        else:
            axis = max(ids.ndim - 2, 0)
        self.contracted(ids, axis)

    def _einsum(self, node: onnx.NodeProto, position: int, ids: Labels) -> None:
        equation = str(attributes(node).get("equation", "")).replace(" ", "").replace("...", "")
        terms, _, out = equation.partition("->")
        own = terms.split(",")[position]
        summed = [k for k, c in enumerate(own) if c not in out]
        offset = ids.ndim - len(own)
        self.contracted(ids, summed[-1] + offset if summed else ids.ndim - 1)

    def _move(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Gather" and self.depth and node.input[1] not in self.model.initializers:
            # Inside a loop an index that is made there walks along its axis, like a kernel.
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            self._unite_along(self.ids[node.input[0]], int(axis))
        arrays: list[NDArray[np.generic] | None] = []
        for position, name in enumerate(node.input):
            if not name:
                arrays.append(None)
            elif name in self.ids:
                arrays.append(self.ids[name])
            elif node.op_type == "Concat":
                arrays.append(np.full(self.model.facts[name].shape, NO_UNIT, np.int64))
            elif node.op_type == "Pad" and position == 2:
                arrays.append(np.asarray(NO_UNIT, np.int64))
            else:
                arrays.append(self._known(name))
        if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            results: list[NDArray[np.generic]] = [
                np.reshape(self.ids[node.input[0]], self.model.facts[node.output[0]].shape)
            ]
        elif node.op_type in ("Identity", "Cast"):
            results = [self.ids[node.input[0]]]
        else:
            try:
                results = run_node(node, arrays, self.model.opsets)
            except EmergraphError:
                return
        for name, result in zip(node.output, results, strict=False):
            self._carry(name, np.asarray(result).astype(np.int64))

    def _known(self, name: str) -> NDArray[np.generic] | None:
        if name in self.model.facts and self.model.facts[name].value is not None:
            return self.model.facts[name].value
        tensor = self.model.initializers.get(name)
        return None if tensor is None else tensor.array()

    def _spread_channels(self, node: onnx.NodeProto, ids: Labels) -> None:
        name = node.output[0]
        shape = self.model.facts[name].shape
        first = ids[(slice(None), slice(None), *(slice(0, 1) for _ in range(ids.ndim - 2)))]
        self._carry(name, np.broadcast_to(first, shape))

    def _pass(self, node: onnx.NodeProto, carried: Sequence[int]) -> None:
        """Element-wise, normalisation, reduction, or anything else: ids pass where shapes allow."""
        if node.op_type in ("Softmax", "LogSoftmax"):
            axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
            moved = np.moveaxis(self.ids[node.input[0]], axis, -1)
            for row in moved.reshape(-1, moved.shape[-1])[:4096]:
                self.unite(row, None)
        for name in node.output:
            facts = self.model.facts.get(name)
            if not name or facts is None:
                continue
            for position in carried:
                ids = self.ids[node.input[position]]
                try:
                    self._carry(name, np.broadcast_to(ids, facts.shape))
                except ValueError:
                    self._reduce(node, name, ids, facts.shape)
                break

    def _reduce(self, node: onnx.NodeProto, name: str, ids: Labels, shape: tuple[int, ...]) -> None:
        """A reduction mixes positions; one of them stands for the others from here on."""
        if node.op_type.startswith("Reduce"):
            kept = list(range(ids.ndim))
            axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
            if axes is None and len(node.input) > 1:
                known = self._known(node.input[1])
                axes = None if known is None else [int(x) for x in np.ravel(known)]
            gone = {a % ids.ndim for a in axes} if axes is not None else set(kept)
            taken = ids[tuple(slice(0, 1) if k in gone else slice(None) for k in kept)]
            self._carry(name, taken.reshape(shape))
        else:
            self.used_as_value = True  # an operation that is not known here reads the values

    def _carry(self, name: str, ids: Labels) -> None:
        if name:
            self.ids[name] = ids
            if name in self.model.outputs:
                self.used_as_value = True

    def classes(self) -> Labels:
        """Connected positions are one unit; without a contraction, the channel axis decides."""
        if not self.resolved and not self.pairs:
            ids = np.arange(self.size).reshape(self.shape)
            self.unite(ids, 1 if len(self.shape) > 1 else (0 if self.shape else None))
        links = np.concatenate(self.pairs) if self.pairs else np.empty((0, 2), np.int64)
        graph = coo_array(
            (np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(self.size, self.size)
        )
        _, component = connected_components(graph, directed=False)
        _, index, inverse = np.unique(component, return_index=True, return_inverse=True)
        rank = np.empty(index.size, np.int64)
        rank[np.argsort(index, kind="stable")] = np.arange(index.size)
        return rank[inverse].reshape(self.shape)
