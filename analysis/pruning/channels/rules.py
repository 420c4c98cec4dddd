"""How channels ride through each operation."""

from collections.abc import Callable

import numpy as np
import onnx

from emergraph.analysis.pruning.channels.constants import ModelConstants
from emergraph.analysis.pruning.channels.movement import MOVEMENT
from emergraph.analysis.pruning.channels.tracks import (
    ChannelMap,
    ChannelReader,
    ChannelTrack,
    Ids,
    Keeps,
    UnfollowedError,
)
from emergraph.exporters.nodes import is_unpadded
from emergraph.exporters.operations import CONVOLUTIONS, POINTWISE, Kind, kind_of
from emergraph.exporters.runtime.quoting import quoted

ChannelRule = Callable[[ChannelMap], None]


def pointwise(m: ChannelMap) -> None:
    """Channels of all inputs go together; constants with one value per channel go with them."""
    out = m.shape(m.node.output[0])
    tracked = [(k, track) for k in range(len(m.node.input)) if (track := m.track(k)) is not None]
    if not tracked:
        return
    axes = {track.axis + len(out) - len(m.shape(m.name(k))) for k, track in tracked}
    if len(axes) > 1:
        raise UnfollowedError("which joins channels of different axes")
    (axis,) = axes
    ids = tracked[0][1].ids
    for k, name in enumerate(m.node.input):
        own = axis - len(out) + len(m.shape(name)) if name else -1
        if own < 0 or m.shape(name)[own] == 1:
            if m.track(k) is not None and out[axis] != 1:
                raise UnfollowedError("which spreads one channel over several")
            continue
        track = m.track(k)
        if track is not None:
            if track is not tracked[0][1]:
                m.unite(ids, track.ids)
        elif m.is_constant(k):
            m.cut(k, own, ids)
        else:
            raise UnfollowedError("which joins them with something else")
    m.follow(ids, axis)


def convolution(m: ChannelMap) -> None:
    """Dense convolutions read channels and make others; depthwise ones carry channels on."""
    transposed = kind_of(m.node) is Kind.CONV_TRANSPOSE
    group = m.integer("group", 1)
    track = _contracted(m, 0, 1)
    if not m.is_constant(1) or (m.name(2) and not m.is_constant(2)):
        raise UnfollowedError("whose weights are computed")
    out_shape, in_shape = m.shape(m.node.output[0]), m.shape(m.name(0))
    n_in, n_out = in_shape[1], out_shape[1]
    positions = float(np.prod((in_shape if transposed else out_shape)[2:]) * in_shape[0])
    ids: Ids | None
    if group == 1:
        ids = m.new(n_out)
        in_axis, out_axis = (0, 1) if transposed else (1, 0)
        m.cut(1, out_axis, ids)
        foldable = is_unpadded(m.node) and not transposed
        _read(m, track, in_axis, (ids, out_axis), foldable=foldable, uses=positions)
    elif group == n_in == n_out:
        ids = None if track is None else track.ids
        m.readers.append(
            ChannelReader(m.index, 1, None, 1, ids, 0, False, positions, depthwise=ids is not None)
        )
        m.cut(1, 0, ids)
        if ids is not None:
            m.rewrite(_regroup(ids))
    else:
        m.readers.append(ChannelReader(m.index, 1, None, 1, None, 0, False, positions))
        if track is not None:
            m.fix(track.ids, f"is read by the grouped {m.node.op_type} {quoted(m.node.name)}")
        return
    if m.name(2):
        m.cut(2, 0, ids)
    m.follow(ids, 1)


def _regroup(ids: Ids) -> Callable[[onnx.NodeProto, Keeps, ModelConstants], list[onnx.NodeProto]]:
    def change(node: onnx.NodeProto, keeps: Keeps, constants: ModelConstants) -> list[onnx.NodeProto]:
        del constants
        for attribute in node.attribute:
            if attribute.name == "group":
                attribute.i = int(keeps(ids).sum())
        return [node]

    return change


def _contracted(m: ChannelMap, position: int, axis: int) -> ChannelTrack | None:
    """The channels of an input if they lie on the axis that is contracted; others are fixed."""
    track = m.track(position)
    if track is None or track.axis == axis:
        return track
    m.fix(track.ids, f"is read by {m.node.op_type} {quoted(m.node.name)}, along another axis")
    return None


def _read(
    m: ChannelMap,
    track: ChannelTrack | None,
    in_axis: int,
    made: tuple[Ids | None, int],
    *,
    foldable: bool,
    uses: float,
) -> None:
    """The current node contracts the channels of its input 0 with the weights of its input 1."""
    ids = None if track is None else track.ids
    m.cut(1, in_axis, ids)
    m.readers.append(ChannelReader(m.index, 1, ids, in_axis, *made, foldable, uses))


def gemm(m: ChannelMap) -> None:
    """A dense layer with its bias."""
    track = _contracted(m, 0, 1)
    if not m.is_constant(1) or m.integer("transA", 0):
        raise UnfollowedError("which joins several activations")
    out = m.shape(m.node.output[0])
    ids = m.new(out[1])
    in_axis = 1 if m.integer("transB", 0) else 0
    foldable = not m.name(2)
    if m.name(2):
        shape = m.shape(m.name(2))
        spread = not shape or shape[-1] == 1
        if not m.is_constant(2) and not spread:
            raise UnfollowedError("whose bias is computed")
        if not spread:
            m.cut(2, len(shape) - 1, ids)
        foldable = m.is_constant(2) and len(shape) == 1 and not spread
    foldable = foldable and m.attribute("beta", 1.0) == m.attribute("alpha", 1.0) == 1.0
    m.cut(1, 1 - in_axis, ids)
    _read(m, track, in_axis, (ids, 1 - in_axis), foldable=foldable, uses=float(out[0]))
    m.follow(ids, 1)


def matmul(m: ChannelMap) -> None:
    """A matrix of parameters on either side; a product of two activations needs all channels."""
    constant = [m.is_constant(k) for k in (0, 1)]
    out = m.shape(m.node.output[0])
    if constant[0] == constant[1]:
        raise UnfollowedError("which multiplies two activations")
    weights = m.shape(m.name(0 if constant[0] else 1))
    if len(weights) != 2 or len(out) < 2:
        raise UnfollowedError("whose weights are not a matrix")
    uses = float(np.prod(out)) / out[-2 if constant[0] else -1]
    activation = 1 if constant[0] else 0
    axis = len(out) - 2 if constant[0] else len(out) - 1
    rank = len(m.shape(m.name(activation)))
    if rank < len(weights):
        raise UnfollowedError("which multiplies a vector")
    track = _contracted(m, activation, rank - (2 if constant[0] else 1))
    ids = m.new(out[axis])
    read = None if track is None else track.ids
    if constant[0]:
        m.cut(0, 1, read)
        m.cut(0, 0, ids)
        m.readers.append(ChannelReader(m.index, 0, read, 1, ids, 0, False, uses))
    else:
        m.cut(1, 1, ids)
        _read(m, track, 0, (ids, 1), foldable=True, uses=uses)
    m.follow(ids, axis)


def recurrent(m: ChannelMap) -> None:
    """Cells read the channels of their input; their own units stay."""
    track = _contracted(m, 0, 2)
    shape = m.shape(m.name(0))
    if not m.is_constant(1) or not m.is_constant(2):
        raise UnfollowedError("which carries them through time")
    steps = float(shape[0] * shape[1])
    _read(m, track, 2, (None, 1), foldable=False, uses=steps)
    m.readers.append(ChannelReader(m.index, 2, None, 2, None, 1, False, steps))
    for k in range(1, len(m.node.input)):
        if (other := m.track(k)) is not None:
            m.fix(other.ids, f"is a state of {m.node.op_type} {quoted(m.node.name)}")


def per_channel_norm(m: ChannelMap) -> None:
    """Batch and instance normalisation: each channel by itself."""
    track = m.track(0)
    if track is None:
        return
    if track.axis != 1 or not all(m.is_constant(k) for k in range(1, len(m.node.input))):
        raise UnfollowedError("which normalises over them")
    for k in range(1, len(m.node.input)):
        m.cut(k, 0, track.ids)
    m.follow(track.ids, 1)


def pool(m: ChannelMap) -> None:
    """Windows over positions: each channel by itself."""
    track = m.track(0)
    if track is None:
        return
    if track.axis != 1 or any(name for name in m.node.output[1:]):
        raise UnfollowedError("which slides over them")
    m.follow(track.ids, 1)


def over_axis(m: ChannelMap) -> None:
    """Softmax and layer normalisation: what lies on other axes rides along."""
    track = m.track(0)
    if track is None:
        return
    rank = len(m.shape(m.name(0)))
    normal = kind_of(m.node) is Kind.LAYER_NORM
    whole = normal or m.opset < 13
    axis = m.integer("axis", 1 if whole and not normal else -1) % rank
    if track.axis == axis or (whole and track.axis >= axis):
        raise UnfollowedError("which compares all channels")
    m.follow(track.ids, track.axis)


def cast_like(m: ChannelMap) -> None:
    """Another type: what the second input holds does not count."""
    track = m.track(0)
    if track is not None:
        m.follow(track.ids, track.axis)


RULES: dict[Kind, ChannelRule] = {
    **dict.fromkeys(POINTWISE, pointwise),
    **dict.fromkeys(CONVOLUTIONS, convolution),
    Kind.CAST_LIKE: cast_like,
    Kind.GEMM: gemm,
    Kind.MATMUL: matmul,
    Kind.RECURRENT: recurrent,
    **dict.fromkeys((Kind.BATCH_NORM, Kind.INSTANCE_NORM), per_channel_norm),
    **dict.fromkeys((Kind.POOL, Kind.GLOBAL_POOL), pool),
    **dict.fromkeys((Kind.SOFTMAX, Kind.LAYER_NORM), over_axis),
    **MOVEMENT,
}
"""Channels that reach an operation of any other kind are fixed."""
