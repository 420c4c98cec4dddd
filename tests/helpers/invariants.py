"""What holds for every graph that an exporter writes, whatever the model."""

from collections.abc import Mapping

import numpy as np
from edgesink import BlockEdges, EdgeSink
from numpy.typing import NDArray

from emergraph.graphstore.records import EdgeKind, LayerKind, Role, Tensor, TracedAs

_FREE_OF_ORDER = (EdgeKind.RECURRENT, EdgeKind.NORM)
_WITHOUT_WEIGHT = (EdgeKind.GATE, EdgeKind.ATTENTION, EdgeKind.NORM, EdgeKind.OPAQUE)


def check_graph(sink: EdgeSink, parameters: Mapping[str, NDArray[np.generic]], n_nodes: int) -> None:
    """Assert all invariants of a written graph.

    Args:
        sink: What was written.
        parameters: The model's initializers.
        n_nodes: Operations of the model.
    """
    _check_layers(sink)
    for number, found in enumerate(sink.blocks):
        assert found.block.id == number
        _check_block(sink, found)
    _check_depths(sink)
    _check_sharing(sink)
    for tensor in sink.tensors.values():
        _check_restored(sink, tensor, parameters[tensor.name])
    assert [op.index for op in sink.operations] == list(range(n_nodes))
    for operation in sink.operations:
        assert (operation.traced_as is not TracedAs.OPAQUE) or operation.reason


def _check_layers(sink: EdgeSink) -> None:
    first = 0
    for number, layer in enumerate(sink.layers):
        assert layer.id == number
        assert layer.first_unit == first
        assert layer.n_units >= 0
        assert (layer.activation_tensor is None) == (layer.activation_axes is None)
        first += layer.n_units
    names = [layer.name for layer in sink.layers]
    assert len(set(names)) == len(names)
    assert [c.layer for c in sink.columns] == [layer.id for layer in sink.layers]
    for layer, columns in zip(sink.layers, sink.columns, strict=True):
        for column in (columns.bias, columns.scale, columns.shift):
            assert column is None or column.shape == (layer.n_units,)
        is_source = layer.kind in (LayerKind.INPUT, LayerKind.EMBEDDING)
        assert (columns.role is Role.INPUT) == is_source


def _layer_of(sink: EdgeSink, units: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.repeat([layer.id for layer in sink.layers], [layer.n_units for layer in sink.layers])[units]


def _check_block(sink: EdgeSink, found: BlockEdges) -> None:
    block = found.block
    assert found.src.size == 0 or (found.src.min() >= 0 and found.src.max() < sink.n_units)
    assert (_layer_of(sink, found.dst) == block.layer).all()
    pairs = np.stack([found.src, found.dst], axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs), f"{block.name}: a pair repeats"
    if block.kind not in _FREE_OF_ORDER:
        assert (_layer_of(sink, found.src) < block.layer).all(), f"{block.name}: against the order of layers"
    if block.kind is EdgeKind.WEIGHT:
        assert found.has_weight
        assert block.tensor is not None or block.note
    if block.kind in _WITHOUT_WEIGHT:
        assert not found.has_weight
    if found.has_weight:
        assert (found.n_params >= 1).all()
        finite = np.isfinite(found.l1)
        slack = 1 + 1e-6
        assert (np.abs(found.weight[finite]) <= found.l1[finite] * slack).all()
        assert (found.l2[finite] <= found.l1[finite] * slack).all()
        assert (found.max_abs[finite] <= found.l2[finite] * slack).all()
        single = finite & (found.n_params == 1)
        assert np.allclose(found.max_abs[single], found.l1[single], rtol=1e-6)
    if found.matrix is not None:
        src, dst = found.matrix
        assert np.unique(src).size == src.size
        assert np.unique(dst).size == dst.size


def _check_depths(sink: EdgeSink) -> None:
    for found in sink.blocks:
        if found.block.kind in _FREE_OF_ORDER or not found.src.size:
            continue
        below = max(sink.layers[k].depth for k in np.unique(_layer_of(sink, found.src)))
        assert sink.layers[found.block.layer].depth > below


def _check_sharing(sink: EdgeSink) -> None:
    first: dict[str, int] = {}
    for found in sink.blocks:
        tensor = found.block.tensor
        if tensor is None:
            assert found.block.shared_with is None
        else:
            assert tensor in sink.tensors
            assert found.block.shared_with == first.get(tensor)
            first.setdefault(tensor, found.block.id)


def _check_restored(sink: EdgeSink, tensor: Tensor, original: NDArray[np.generic]) -> None:
    assert tensor.shape == original.shape
    assert tensor.n_params == original.size
    if tensor.data is not None:
        assert bytes(tensor.data) == np.ascontiguousarray(original).tobytes()
        assert tensor.block is None
        return
    assert tensor.block is not None
    restored = restored_tensor(sink, tensor)
    assert restored.tobytes() == np.ascontiguousarray(original).tobytes(), f"{tensor.name} is not restored"


def restored_tensor(sink: EdgeSink, tensor: Tensor) -> NDArray[np.float32]:
    """The values of a tensor that a block holds."""
    assert tensor.block is not None
    found = sink.blocks[tensor.block]
    assert found.matrix is not None
    assert not found.has_kernels
    src, dst = found.matrix
    matrix = np.zeros((src.size, dst.size), np.float32)
    row = {int(u): k for k, u in enumerate(src)}
    column = {int(u): k for k, u in enumerate(dst)}
    for s, d, w in zip(found.src.tolist(), found.dst.tolist(), found.weight.tolist(), strict=True):
        matrix[row[s], column[d]] = w
    whole = matrix.T if tensor.block_transposed else matrix
    assert whole.shape == tensor.shape
    return np.ascontiguousarray(whole)
