"""The blocks of a model, found in its graph by the residual stream that runs through them.

A residual step is a junction whose one source is the stream before it and whose other source was computed
from that stream. Adding positions to embeddings is none: the positions come from elsewhere. The longest row
of such steps of one width is the chain. Where steps hold attention, a block begins at each of these and ends
before the next (attention and feed-forward make one transformer block); else every step is a block.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from emergraph.errors import InvalidInputError
from emergraph.exporters.counting import CountingSink
from emergraph.graphstore.arrays import FloatArray, IntArray
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import Block, Kernels, LayerKind, MatrixKernels

ATTENTION = frozenset({LayerKind.SCORE, LayerKind.CONTEXT})


@dataclass(frozen=True)
class ChainLayer:
    """What the chain needs to know of a layer."""

    name: str
    """Also the name of the operation that makes its units."""
    kind: str
    n_units: int
    sources: frozenset[int]
    """Layers that edges lead from, by position in the list of layers."""
    tensor: str | None = None
    """Tensor with the activations, where the graph names one."""


@dataclass(frozen=True)
class BlockChain:
    """Blocks of equal width, one after the other."""

    boundaries: tuple[ChainLayer, ...]
    """The stream before the first block and after each."""
    width: int

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return len(self.boundaries) - 1


def layers_of_graph(reader: GraphReader) -> list[ChainLayer]:
    """The layers of a stored graph, with their sources."""
    layers, blocks = reader.layers(), reader.blocks()
    place = {int(layer): position for position, layer in enumerate(layers["id"])}
    sources: dict[int, set[int]] = {}
    for layer, from_layers in blocks.select("layer", "src_layers").iter_rows():
        sources.setdefault(place[layer], set()).update(place[source] for source in from_layers)
    columns = ("name", "kind", "n_units", "activation_tensor")
    return [
        ChainLayer(str(name), str(kind), int(count), frozenset(sources.get(position, ())), tensor)
        for position, (name, kind, count, tensor) in enumerate(layers.select(columns).iter_rows())
    ]


class ChainSink(CountingSink):
    """A sink that keeps which layers lead to which, and no edges."""

    def __init__(self) -> None:
        super().__init__()
        self._units: dict[int, set[int]] = {}

    def write_matrix(
        self,
        block: Block,
        src_units: IntArray,
        dst_units: IntArray,
        weights: FloatArray,
        kernels: MatrixKernels | None = None,
    ) -> int:
        """Note the sources."""
        self._units.setdefault(block.layer, set()).update(_ends(src_units))
        return super().write_matrix(block, src_units, dst_units, weights, kernels)

    def write_edges(
        self,
        block: Block,
        src: IntArray,
        dst: IntArray,
        weight: FloatArray | None = None,
        kernels: Kernels | None = None,
    ) -> int:
        """Note the sources."""
        self._units.setdefault(block.layer, set()).update(_ends(src))
        return super().write_edges(block, src, dst, weight, kernels)

    def chain_layers(self) -> list[ChainLayer]:
        """The layers with their sources, after everything was written."""
        order = sorted(self.layers, key=lambda layer: layer.first_unit)
        owner = {
            unit: position
            for position, layer in enumerate(order)
            for unit in range(layer.first_unit, layer.first_unit + layer.n_units)
        }
        return [
            ChainLayer(
                layer.name,
                str(layer.kind),
                layer.n_units,
                frozenset(owner[unit] for unit in self._units.get(layer.id, ())),
                layer.activation_tensor,
            )
            for layer in order
        ]


def _ends(units: IntArray) -> Iterable[int]:
    return set(units.reshape(-1).tolist())


def find_chain(layers: Sequence[ChainLayer]) -> BlockChain:
    """Return the chain of blocks of a graph.

    Args:
        layers: In topological order.

    Raises:
        InvalidInputError: There is no residual stream.
    """
    ancestors = _ancestors(layers)
    before = _longest_rows(layers, ancestors)
    if not before:
        raise InvalidInputError(
            "no residual stream was found in the graph: no junction adds to its source what was "
            "computed from it; name the hidden states with --blocks TENSOR,TENSOR,..."
        )
    end = max(before, key=lambda layer: (before[layer][1], layers[layer].n_units, -layer))
    row = [end]
    while row[-1] in before:
        row.append(before[row[-1]][0])
    row.reverse()
    starts = [step for step, (a, b) in enumerate(pairwise(row)) if _has_attention(layers, ancestors, a, b)]
    kept = [row[step] for step in starts] + [row[-1]] if starts else row
    return BlockChain(tuple(layers[layer] for layer in kept), layers[end].n_units)


def _ancestors(layers: Sequence[ChainLayer]) -> list[set[int]]:
    found: list[set[int]] = []
    for layer in layers:
        mine: set[int] = set()
        for source in layer.sources:
            if source < len(found):  # a recurrent edge leads from a layer that comes later, or from itself
                mine |= {source} | found[source]
        found.append(mine)
    return found


def _longest_rows(
    layers: Sequence[ChainLayer], ancestors: Sequence[set[int]]
) -> Mapping[int, tuple[int, int]]:
    """By junction at the end of a row: the layer before it, and how many steps the row has."""
    before: dict[int, tuple[int, int]] = {}
    for position, layer in enumerate(layers):
        if layer.kind != LayerKind.JUNCTION:
            continue
        for source in sorted(layer.sources):
            branches = layer.sources - {source}
            same = layers[source].n_units == layer.n_units
            if same and any(source in ancestors[branch] for branch in branches):
                steps = before[source][1] + 1 if source in before else 1
                if position not in before or steps > before[position][1]:
                    before[position] = (source, steps)
    return before


def _has_attention(layers: Sequence[ChainLayer], ancestors: Sequence[set[int]], start: int, end: int) -> bool:
    branch = ancestors[end] - ancestors[start] - {start}
    return any(layers[layer].kind in ATTENTION and start in ancestors[layer] for layer in branch)
