"""The parameter tensors of a pruned model: the model's own, with zeros where parameters were removed."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.edgesets.edgetable import BlockTable
from emergraph.analysis.edgesets.kernel_parameters import Taps, parameters_behind
from emergraph.analysis.modelruns.storedcodes import StoredCodes
from emergraph.analysis.pruning.items import TensorValues
from emergraph.analysis.pruning.options import PruningUnit
from emergraph.analysis.pruning.removal import Removal
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError
from emergraph.exporters.nodes import input_name
from emergraph.exporters.operations import CONVOLUTIONS, KEEPING, Kind, kind_of, spec_of
from emergraph.graphstore.text import printable

Zeroed = dict[str, NDArray[np.int64]]
"""Tensor name -> elements, raveled in C order, that become zero."""

_BIASED = CONVOLUTIONS | {Kind.GEMM}


@dataclass(frozen=True, eq=False)
class _Element:
    """Where the parameters of one block are in its tensor."""

    block: BlockTable
    edge: NDArray[np.int64]
    element: NDArray[np.int64]

    @cached_property
    def size(self) -> int:
        """Elements of the tensor up to the last one that is behind an edge."""
        return int(self.element.max(initial=-1)) + 1


TOLD_APART = "its parameters cannot be told apart in its tensor"


class ParameterPlaces:
    """Where in a model's tensors the parameters of a graph's blocks are; each block is looked for once.

    Args:
        graph: The graph.
        tensor_values: The graph's parameter tensors.
        zeros: Which of their stored values mean zero.
        there: Names of the tensors that the model has as it runs.
        shared: Accept that several units stand behind the same parameters, see `parameters_behind`.
    """

    def __init__(
        self,
        graph: UnitGraph,
        tensor_values: TensorValues,
        zeros: StoredCodes,
        there: Container[str],
        *,
        shared: bool,
    ) -> None:
        self._graph, self._values, self._zeros, self._there = graph, tensor_values, zeros, there
        self._shared = shared
        self._known: dict[int, Taps | str] = {}

    def of(self, block: BlockTable) -> Taps | str:
        """The parameters behind each edge of a block, or why they cannot be found."""
        number = block.block.id
        if number not in self._known:
            self._known[number] = self._found(block)
        return self._known[number]

    def unknown(self, blocks: Iterable[BlockTable]) -> dict[int, str]:
        """Block id -> why its parameters cannot be found, for those where that is so."""
        found = {block.block.id: self.of(block) for block in blocks}
        return {number: one for number, one in found.items() if isinstance(one, str)}

    def _found(self, block: BlockTable) -> Taps | str:
        name = block.block.tensor
        if name is None:
            return "its weights are made of several tensors"
        if name not in self._there:
            return "its tensor is not in the model as it runs"
        values = self._zeros.weights(name, self._values(name))
        taps = parameters_behind(block, self._graph, values, shared=self._shared)
        return TOLD_APART if taps is None else taps


class TensorElements:
    """Which element of which tensor every prunable parameter is; found once, used for every level.

    Args:
        removal: Any removal of the sweep.
        places: Where parameters are; blocks that it does not find must have been left alone.

    Raises:
        UsageError: The parameters of a block cannot be found.
    """

    def __init__(self, removal: Removal, places: ParameterPlaces) -> None:
        self._parts = tuple(_located(removal, places))

    def zeroed(self, removal: Removal, level: int) -> Zeroed:
        """The elements that are zero at a level."""
        found: dict[str, NDArray[np.bool_]] = {}
        for part in self._parts:
            name = part.block.block.tensor
            if removal.items.unit is PruningUnit.UNIT:
                gone = removal.edges[part.block.edges][part.edge] <= level
            elif part.block.block.id in removal.items.taps:
                gone = removal.gone_of(part.block) <= level
            else:
                gone = removal.gone_of(part.block)[part.edge] <= level
            if name is not None and gone.any():
                lost = np.zeros(part.size, dtype=bool)
                lost[part.element[gone]] = True
                # a parameter that several edges share stays as long as one of them does
                lost[part.element[~gone]] = False
                before = found.get(name)
                found[name] = lost if before is None else _either(before, lost)
        return {name: np.flatnonzero(lost) for name, lost in found.items()}


def _either(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Elements that are chosen in one of two masks; what a mask does not reach is not."""
    short, long = sorted((a, b), key=len)
    long[: len(short)] |= short
    return long


def _located(removal: Removal, places: ParameterPlaces) -> Iterator[_Element]:
    for block in removal.items.blocks:
        taps = removal.items.taps.get(block.block.id) or places.of(block)
        if isinstance(taps, str):
            name = printable(block.block.name or str(block.block.id), limit=60)
            raise UsageError(f"{name} cannot be pruned in the model: {taps}")
        yield _Element(block, taps.edge, taps.element)


def follow_units(
    nodes: Sequence[onnx.NodeProto],
    shapes: dict[str, tuple[int, ...]],
    removal: Removal,
    level: int,
) -> Zeroed:
    """Biases and normalisations of removed units, to be zero with them.

    From the operation that reads a unit's weights along element-wise operations with one reader each: the
    bias input, added constants, and scale and shift of batch normalisations, as long as they have one element
    per unit.

    Args:
        nodes: The model's operations, flat.
        shapes: Shape of every constant by name.
        removal: A removal of units.
        level: Index of the level.
    """
    graph = removal.items.table.graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    stored = _stored_names(nodes, shapes)
    found: Zeroed = {}
    for block in removal.items.blocks:
        layer = graph.layers[block.target]
        gone = np.flatnonzero(removal.units[layer.units] <= level)
        name = block.block.tensor
        if not len(gone) or name is None:
            continue
        for node in (node for made, root in stored.items() if root == name for node in readers.get(made, [])):
            for constant in _following(node, readers, shapes, stored, layer.n_units):
                found[constant] = np.union1d(found.get(constant, np.empty(0, np.int64)), gone)
    return found


_AS_IT_IS = KEEPING | {Kind.DEQUANTIZE}
"""What leads from a stored tensor to the operation that uses it."""


def _stored_names(nodes: Sequence[onnx.NodeProto], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Tensor name -> the stored tensor that it is, dequantized or turned."""
    found = {name: name for name in shapes}
    for node in nodes:
        if kind_of(node) in _AS_IT_IS and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _following(
    node: onnx.NodeProto,
    readers: dict[str, list[onnx.NodeProto]],
    shapes: dict[str, tuple[int, ...]],
    stored: Mapping[str, str],
    n_units: int,
) -> Iterator[str]:
    def per_unit(name: str) -> str | None:
        root = stored.get(name)
        return root if root is not None and int(np.prod(shapes[root])) == n_units else None

    if kind_of(node) in _BIASED:
        yield from _roots(node, per_unit)
    while len(readers.get(node.output[0], [])) == 1:
        (node,) = readers[node.output[0]]
        kind = kind_of(node)
        found = _roots(node, per_unit) if kind in (Kind.BATCH_NORM, Kind.SUM) else []
        yield from found
        if not found and kind not in (Kind.BATCH_NORM, Kind.QUANTIZE, Kind.DEQUANTIZE):
            return


def _roots(node: onnx.NodeProto, per_unit: Callable[[str], str | None]) -> list[str]:
    """The stored tensors behind an operation's biases, scales and shifts."""
    given = (input_name(node, position) for position in spec_of(node).vectors)
    return [root for name in given if (root := per_unit(name))]
