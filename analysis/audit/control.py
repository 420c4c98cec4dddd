"""Influence that no edge stands for: what decides which value is taken, and where.

An index, a comparison or a mask is control, and has no edges. So that nothing is called constant or unread
for the lack of an edge, layers right behind such a decision count as reached, and those right before it as
read.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx

from emergraph.analysis.audit.network import Mask, Network
from emergraph.exporters.nodes import depends_on, has_subgraph
from emergraph.exporters.operations import Kind, kind_of, spec_of
from emergraph.exporters.runtime.flat_model import FlatModel, names_used
from emergraph.graphstore.records import TracedAs

_DECIDES = {Kind.CHOICE: (0,)}
"""Inputs that decide, where the operation's entry does not name them as steering."""


def note_decisions(network: Network, flat: FlatModel) -> None:
    """Tell a network which of its units lie right behind and right before decisions."""
    varying = depends_on(flat.nodes, [value.name for value in flat.inputs], shapes=False)
    traced = dict(network.reader.operations().select("name", "traced_as").iter_rows())
    deciding, behind = set(), set()
    for node in flat.nodes:
        found = {name for name in _steering(node) if name in varying}
        if traced.get(node.name) == TracedAs.CONTROL and varying & names_used([node]):
            found |= names_used([node]) & varying
        if found:
            deciding |= found
            behind |= {name for name in node.output if name}
    layers = _layers_by_operation(network)
    network.behind_decisions = _units(network, _next_layers(flat, behind, layers))
    network.before_decisions = _units(network, _last_layers(flat, deciding, layers))


def _steering(node: onnx.NodeProto) -> Iterator[str]:
    if has_subgraph(node):
        yield from names_used([node])
        return
    for position in (*spec_of(node).steering, *_DECIDES.get(kind_of(node), ())):
        if position < len(node.input) and node.input[position]:
            yield node.input[position]


def _layers_by_operation(network: Network) -> dict[str, set[int]]:
    """Layers by the name of the operation that makes them; of a fused one, by what its parts begin with."""
    found: dict[str, set[int]] = {}
    names = network.blocks.select("name", "layer").iter_rows()
    for name, layer in (*names, *network.layers.select("name", "id").iter_rows()):
        found.setdefault(str(name), set()).add(int(layer))
    return found


def _of(node: onnx.NodeProto, layers: dict[str, set[int]]) -> set[int]:
    return layers.get(node.name, set()) if node.name else set()


def _next_layers(flat: FlatModel, names: Iterable[str], layers: dict[str, set[int]]) -> set[int]:
    """The first layers that follow from some tensors."""
    live, found = set(names), set()
    for node in flat.nodes:
        if live.isdisjoint(names_used([node])):
            continue
        if own := _of(node, layers):
            found |= own
        else:
            live |= {name for name in node.output if name}
    return found


def _last_layers(flat: FlatModel, names: Iterable[str], layers: dict[str, set[int]]) -> set[int]:
    """The last layers that some tensors follow from."""
    live, found = set(names), set()
    for node in reversed(flat.nodes):
        if live.isdisjoint(node.output):
            continue
        if own := _of(node, layers):
            found |= own
        else:
            live |= names_used([node])
    inputs = {value.name for value in flat.inputs}
    for name in live & inputs:
        found |= layers.get(name, set())
    return found


def _units(network: Network, chosen: set[int]) -> Mask:
    per_layer = np.array([layer.id in chosen for layer in network.graph.layers], dtype=bool)
    return np.asarray(per_layer[network.graph.unit_layer])
