"""Which axes of an input are its units: position ids are propagated until something contracts them.

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
from emergraph.exporters.nodes import attributes, depends_on, has_subgraph
from emergraph.exporters.operations import COPYING, MOVING, Kind, kind_of, spec_of
from emergraph.exporters.tracing.context import TracedModel
from emergraph.exporters.tracing.contraction_axes import CONTRACTIONS, contracted_axes
from emergraph.exporters.tracing.facts import BodyRun, TensorFacts
from emergraph.exporters.tracing.indexing import indexed_axes, move_labels, values_into_places
from emergraph.exporters.tracing.labels import NO_UNIT, Labels
from emergraph.exporters.tracing.subgraphs import (
    RepeatedBody,
    body_of,
    outer_names,
    repeated_body,
    run_graph,
)

# Which positions of a tensor are one unit: a partition that grows as operations are met.


class Positions:
    """The positions 0 .. size - 1 of a tensor (C order), and which of them are known to be one unit."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.size = int(np.prod(shape, dtype=np.int64))
        self.pairs: list[NDArray[np.int64]] = []
        self.covered = np.zeros(self.size, bool)
        """Positions that some contraction has contracted."""
        self.behind: dict[int, NDArray[np.int64]] = {}
        """Positions that a reduction mixed, by the one that stands for them."""

    @property
    def resolved(self) -> bool:
        """Whether every position has met its first contraction."""
        return bool(self.covered.all())

    def unite(self, groups: Labels, axes: Sequence[int]) -> None:
        """Positions are one unit when they differ only along axes other than these."""
        if not groups.size:
            return
        kept = [a % groups.ndim for a in axes]
        rest = [k for k in range(groups.ndim) if k not in kept]
        flat = groups.transpose([*kept, *rest]).reshape(int(np.prod([groups.shape[k] for k in kept])), -1)
        # Padding inside a row must not cut it: link each id to the row's first real one.
        first = np.max(np.where(flat >= 0, flat, -1), axis=1, keepdims=True, initial=-1)
        left = np.broadcast_to(first, flat.shape)
        both = np.stack([left.ravel(), flat.ravel()], axis=1)
        self.pairs.append(np.unique(both[(both >= 0).all(axis=1)], axis=0))

    def unite_along(self, ids: Labels, axis: int) -> None:
        """Positions that differ only along an axis that is walked through are one unit."""
        self.unite(ids, [k for k in range(ids.ndim) if k != axis % ids.ndim])

    def contracted(self, groups: Labels, axes: Sequence[int], *, reduced: bool = False) -> None:
        """Of the positions that a contraction is the first to meet, what it does not contract is one unit.

        Args:
            groups: Positions, laid out as the contracted tensor.
            axes: The axes that are contracted.
            reduced: Whether each of them stands for those that a reduction mixed with it.
        """
        fresh = np.where((groups >= 0) & ~self.covered[groups], groups, NO_UNIT)
        met = np.unique(fresh[fresh >= 0])
        if met.size == 0:
            return
        self.unite(fresh, axes)
        self.covered[met] = True
        for position in met.tolist() if reduced else []:
            members = self.behind.get(position)
            if members is not None:
                self.pairs.append(np.stack([np.full(members.size, position), members], axis=1))
                self.covered[members] = True

    def classes(self) -> Labels:
        """Connected positions are one unit; without a contraction, the channel axis decides."""
        if not self.size:
            return np.empty(self.shape, np.int64)
        if not self.pairs:
            ids = np.arange(self.size).reshape(self.shape)
            self.unite(ids, [1] if len(self.shape) > 1 else list(range(len(self.shape))))
        component = self._components()
        if self.covered.any() and not self.covered.all():
            self._follow_the_covered(component.reshape(self.shape))
            component = self._components()
        _, index, inverse = np.unique(component, return_index=True, return_inverse=True)
        rank = np.empty(index.size, np.int64)
        rank[np.argsort(index, kind="stable")] = np.arange(index.size)
        return rank[inverse].reshape(self.shape)

    def _components(self) -> NDArray[np.int64]:
        links = np.concatenate(self.pairs) if self.pairs else np.empty((0, 2), np.int64)
        graph = coo_array(
            (np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(self.size, self.size)
        )
        _, component = connected_components(graph, directed=False)
        return np.asarray(component, np.int64)

    def _follow_the_covered(self, component: Labels) -> None:
        """Positions that nothing contracts are one unit along the axes along which contracted ones are."""
        ids = np.arange(self.size).reshape(self.shape)
        covered = self.covered.reshape(self.shape)
        for axis, length in enumerate(self.shape):
            here, there = range(length - 1), range(1, length)
            both = np.take(covered, here, axis=axis) & np.take(covered, there, axis=axis)
            same = np.take(component, here, axis=axis) == np.take(component, there, axis=axis)
            if both.any() and same[both].all():
                self.unite_along(ids, axis)


_MOVERS = MOVING | COPYING
_POOLS = frozenset({Kind.POOL, Kind.GLOBAL_POOL, Kind.RESIZE})
_MISFITS = (KeyError, IndexError, ValueError)
_CUT = frozenset({Kind.SHAPE, Kind.ARGUMENT, Kind.CONTROL})


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
    return ride.positions.classes()


class _Ride:
    """Position ids of one input on their way to its first contraction."""

    def __init__(self, model: TracedModel, name: str) -> None:
        self.model = model
        self.positions = Positions(model.facts[name].shape)
        self.ids: dict[str, Labels] = {name: np.arange(self.positions.size).reshape(self.positions.shape)}
        self.used_as_value = name in model.outputs
        self.reduced: set[str] = set()
        """Carried tensors that come from a reduction of positions."""
        self.mixed: set[str] = set()
        """Carried tensors in which other data plays a part."""
        self.dynamic = depends_on(model.nodes, model.inputs)
        self.steered = depends_on(model.nodes, model.inputs, shapes=False)
        self.depth = 0
        """Within how many bodies of loops the ride is."""

    def run(self) -> None:
        """Carry the ids through the nodes until each of them has met its first contraction."""
        for node in self.model.nodes:
            if has_subgraph(node):
                self._enter(node)
            elif any(i in self.ids for i in node.input):
                try:
                    self.step(node)
                except _MISFITS:
                    # The concrete run did not reach it, or its sizes contradict each other: it is opaque.
                    self.used_as_value = True
            if self.positions.resolved:
                return

    def _enter(self, node: onnx.NodeProto) -> None:
        """Go on inside the body of a Loop or a Scan that reads a carried tensor."""
        bodies = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
        inner = set().union(*(outer_names(body) for body in bodies))
        if not any(name in self.ids for name in (*node.input, *inner)):
            return
        if kind_of(node) is Kind.BRANCH:
            self._enter_branches(node)
            return
        body = self._repeated(node)
        if body is None:
            self.used_as_value = True
            return
        for inside, outside, axis in body.slices:
            if outside in self.ids:
                self.positions.unite_along(self.ids[outside], axis)
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
            if self.model.run_body is None or self.positions.resolved:
                break
            try:
                run = run_graph(self.model.run_body, branch, self._facts, {})
            except EmergraphError:
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
        if kind_of(node) is not Kind.LOOP or self.model.run_body is None:
            return None
        try:
            return repeated_body(node, self.model.run_body, self._facts)
        except EmergraphError:
            return None

    def _leave(self, name: str, ids: Labels, stacked: int | None, shape: tuple[int, ...]) -> None:
        """Carry ids out of a body; what is stacked repeats along the new axis."""
        ids = ids if stacked is None else np.expand_dims(ids, stacked)
        if ids.ndim == len(shape):
            self._carry(name, np.broadcast_to(ids, shape))

    def _facts(self, name: str) -> TensorFacts | None:
        tensor = self.model.initializers.get(name)
        if tensor is not None:
            array = tensor.array()
            return TensorFacts(tuple(array.shape), array.dtype, array)
        return self.model.facts.get(name)

    def step(self, node: onnx.NodeProto) -> None:
        """One operation that reads at least one carried tensor."""
        spec = spec_of(node)
        kind = spec.kind
        carried = [k for k, i in enumerate(node.input) if i in self.ids]
        if kind in _CUT or not set(carried) - set(spec.steering):
            return  # an index decides where, and carries nothing
        ids = self.ids[node.input[carried[0]]]
        if spec.plain_kind in CONTRACTIONS:
            for position in carried:
                self._contract(node, position)
        elif kind is Kind.CONCAT or (kind in _MOVERS and carried[0] == 0):
            self._move(node)
        elif kind is Kind.SCATTER:
            self._scatter(node)
        elif kind in _MOVERS:
            return  # a shape: it decides where, too
        elif kind in _POOLS and carried[0] == 0:
            self._pool(node, ids)
        else:
            self._pass(node, carried)
        source = node.input[max(carried, key=lambda k: self.ids[node.input[k]].size)]
        carried_on = [name for name in node.output if name in self.ids]
        if source in self.reduced:
            self.reduced.update(carried_on)
        if any(node.input[k] in self.mixed for k in carried):
            self.mixed.update(carried_on)

    def _contract(self, node: onnx.NodeProto, position: int) -> None:
        ids = self.ids[node.input[position]]
        given = (
            self._known(node.input[2]) if kind_of(node) is Kind.TRANSFORM and len(node.input) > 2 else None
        )
        axes = contracted_axes(node, position, ids.ndim, axis=given, opset=self.model.opsets.get("", 1))
        if axes is None:
            return
        others = [name for k, name in enumerate(node.input[:2]) if k != position]
        if (
            kind_of(node) is Kind.MATMUL
            and others[0] in self.dynamic
            and not self._over_last_axis(ids, axes[0])
        ):
            # Two activations that are contracted over tokens: they are mixed like the positions of a pool.
            self.positions.unite_along(ids, axes[0])
            name, shape = node.output[0], self.model.facts[node.output[0]].shape
            if position == 1 and ids.ndim == len(shape):
                self._carry(name, np.broadcast_to(np.take(ids, [0], axis=axes[0]), shape))
            return
        self.used_as_value = True
        self.positions.contracted(ids, axes, reduced=node.input[position] in self.reduced)

    def _over_last_axis(self, ids: Labels, axis: int) -> bool:
        """Whether the input's own last axis, the usual one for features, runs along an axis of a tensor."""
        if not self.positions.shape or ids.shape[axis] < 2:
            return True
        lines = np.moveaxis(ids, axis, -1).reshape(-1, ids.shape[axis])
        # Beside what is concatenated with it (a cache) or padded, the fullest line tells.
        line = lines[np.argmax((lines >= 0).sum(axis=1))]
        last = line[line >= 0] % self.positions.shape[-1]
        return bool(np.unique(last).size > 1) or self.positions.shape[-1] == 1

    def _move(self, node: onnx.NodeProto) -> None:
        if self._picks_by_data(node):
            self._unite_picked(node)
        kind = kind_of(node)
        if kind in (Kind.RESHAPE, Kind.UNIT_AXES):
            results: list[NDArray[np.generic]] = [
                np.reshape(self.ids[node.input[0]], self.model.facts[node.output[0]].shape)
            ]
        elif kind in COPYING:
            results = [self.ids[node.input[0]]]
        else:
            try:
                data = range(len(node.input)) if kind is Kind.CONCAT else (0,)
                results = list(move_labels(node, self._moved_inputs(node), data, self.model.opsets))
            except EmergraphError:
                return
        for name, result in zip(node.output, results, strict=False):
            self._carry(name, np.asarray(result).astype(np.int64))

    def _picks_by_data(self, node: onnx.NodeProto) -> bool:
        """Whether an index from the data, or made in a loop, walks along its axes like a kernel."""
        steering = spec_of(node).steering
        if not steering or len(node.input) < 2:
            return False
        where = node.input[steering[0]]
        return where in self.steered or bool(self.depth and where not in self.model.initializers)

    def _unite_picked(self, node: onnx.NodeProto) -> None:
        ids = self.ids[node.input[0]]
        axes = self._known(node.input[3]) if kind_of(node) is Kind.SLICE and len(node.input) > 3 else None
        for axis in indexed_axes(node.op_type, attributes(node), ids.ndim, self._shape(node.input[1]), axes):
            self.positions.unite_along(ids, axis)

    def _scatter(self, node: onnx.NodeProto) -> None:
        """Ids of what is there pass; else those that are put there, mixed along the axes of the index."""
        before, put = (node.input[k] for k in values_into_places(node.op_type))
        name, shape = node.output[0], self.model.facts[node.output[0]].shape
        if before in self.ids:
            self._carry(name, self.ids[before])
            self.used_as_value |= put in self.ids
            return
        ids = self.ids[put]
        if node.op_type == "ScatterND":
            axes = tuple(range(len(self._shape(node.input[1])) - 1))
        else:
            axes = indexed_axes(node.op_type, attributes(node), ids.ndim, self._shape(node.input[1]), None)
        for axis in axes:
            self.positions.unite_along(ids, axis)
        first = ids[tuple(0 if k in axes else slice(None) for k in range(ids.ndim))]
        if node.op_type != "ScatterND":
            first = np.expand_dims(first, axes)
        self._carry(name, np.broadcast_to(first, shape))

    def _moved_inputs(self, node: onnx.NodeProto) -> list[NDArray[np.generic] | None]:
        arrays: list[NDArray[np.generic] | None] = []
        for name in node.input:
            if not name:
                arrays.append(None)
            elif name in self.ids:
                arrays.append(self.ids[name])
            elif kind_of(node) is Kind.CONCAT:
                arrays.append(np.full(self._shape(name), NO_UNIT, np.int64))
            else:
                arrays.append(self._known(name))
        return arrays

    def _shape(self, name: str) -> tuple[int, ...]:
        tensor = self.model.initializers.get(name)
        return self.model.facts[name].shape if tensor is None else tuple(tensor.shape)

    def _known(self, name: str) -> NDArray[np.generic] | None:
        if name in self.model.facts and self.model.facts[name].value is not None:
            return self.model.facts[name].value
        tensor = self.model.initializers.get(name)
        return None if tensor is None else tensor.array()

    def _pool(self, node: onnx.NodeProto, ids: Labels) -> None:
        """Positions that a window slides over, or that are resampled, are mixed."""
        name = node.output[0]
        shape = self.model.facts[name].shape
        slid = list(range(2, ids.ndim))
        if kind_of(node) is Kind.RESIZE:
            slid = [k for k in range(ids.ndim) if ids.shape[k] != shape[k]]
        kept = [k for k in range(ids.ndim) if k not in slid]
        self.positions.unite(ids, kept)
        first = ids[tuple(slice(0, 1) if k in slid else slice(None) for k in range(ids.ndim))]
        if all(first.shape[k] in (1, shape[k]) for k in range(ids.ndim)):
            self._carry(name, np.broadcast_to(first, shape))

    def _pass(self, node: onnx.NodeProto, carried: Sequence[int]) -> None:
        """Element-wise, normalisation, reduction, or anything else: ids pass where shapes allow."""
        widest = max(carried, key=lambda k: self.ids[node.input[k]].size)
        ids = self.ids[node.input[widest]]
        others = [name for name in node.input if name and name not in self.ids]
        mixed = any(name in self.dynamic for name in others) or any(
            node.input[k] in self.mixed for k in carried
        )
        if kind_of(node) is Kind.SOFTMAX and mixed:
            # A mask on attention scores: which key is masked is a matter of position.
            axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
            self.positions.unite_along(ids, int(axis))
        for name in node.output:
            facts = self.model.facts.get(name)
            if not name or facts is None:
                continue
            if mixed:
                self.mixed.add(name)
            if kind_of(node) is Kind.ONE_HOT and widest == 0:
                self._carry(name, self._one_hot(node, ids, facts.shape))
                continue
            try:
                self._carry(name, np.broadcast_to(ids, facts.shape))
            except ValueError:
                self._reduce(node, name, ids, facts.shape)

    def _one_hot(self, node: onnx.NodeProto, ids: Labels, shape: tuple[int, ...]) -> Labels:
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        return np.broadcast_to(np.expand_dims(ids, int(axis)), shape)

    def _reduce(self, node: onnx.NodeProto, name: str, ids: Labels, shape: tuple[int, ...]) -> None:
        """A reduction mixes positions; one of them stands for the others from here on."""
        if kind_of(node) is not Kind.REDUCTION:
            self.used_as_value = True  # an operation that is not known here reads the values
            return
        axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
        if axes is None and len(node.input) > 1:
            known = self._known(node.input[1])
            axes = None if known is None else [int(x) for x in np.ravel(known)]
        gone = {a % ids.ndim for a in axes} if axes else set(range(ids.ndim))
        kept = [k for k in range(ids.ndim) if k not in gone]
        rows = ids.transpose([*kept, *sorted(gone)]).reshape([*(ids.shape[k] for k in kept), -1])
        taken = rows[..., 0]
        for row in rows.reshape(-1, rows.shape[-1]):
            self.positions.behind.setdefault(int(row[0]), row[row >= 0])
        self._carry(name, taken.reshape(shape))
        self.reduced.add(name)

    def _carry(self, name: str, ids: Labels) -> None:
        if name:
            self.ids[name] = ids
            if name in self.model.outputs:
                self.used_as_value = True
