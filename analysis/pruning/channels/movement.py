"""How channels ride through operations that move data: reshapes, slices, joins, paddings, reductions."""

import math
from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.pruning.channels.constants import ModelConstants, integers
from emergraph.analysis.pruning.channels.tracks import (
    FIXED,
    ChannelMap,
    ChannelTrack,
    Ids,
    Keeps,
    UnfollowedError,
)
from emergraph.exporters.operations import Kind, kind_of

MAX_ELEMENTS = 50_000_000


def transpose(m: ChannelMap) -> None:
    """Axes change places."""
    track = m.track(0)
    if track is None:
        return
    rank = len(m.shape(m.name(0)))
    order = list(m.attribute("perm") or reversed(range(rank)))  # type: ignore[call-overload]
    m.follow(track.ids, order.index(track.axis))


def squeeze(m: ChannelMap) -> None:
    """Axes of size 1 go or come."""
    track = m.track(0)
    if track is None:
        return
    given = m.attribute("axes")
    if given is None and not m.name(1):
        raise UnfollowedError("which looks at sizes")
    axes = integers(given if given is not None else m.value(1))  # type: ignore[arg-type]
    removing = len(m.shape(m.name(0))) > len(m.shape(m.node.output[0]))
    rank = len(m.shape(m.name(0) if removing else m.node.output[0]))
    axes = axes % rank
    if removing:
        if track.axis in axes:
            raise UnfollowedError("which drops their axis")
        m.follow(track.ids, track.axis - int((axes < track.axis).sum()))
        return
    places = [axis for axis in range(rank) if axis not in axes]
    m.follow(track.ids, places[track.axis])


def reshape(m: ChannelMap) -> None:
    """Elements keep their order: a channel may become a run or a comb of indices of another axis."""
    track = m.track(0)
    if track is None:
        return
    before, after = m.shape(m.name(0)), m.shape(m.node.output[0])
    axis, ids = _reshaped(track, before, after)
    if m.name(1):
        target = integers(m.value(1))
        copied = target[track.axis] == 0 if track.axis < len(target) else False
        if copied and track.axis != axis and not m.integer("allowzero", 0):
            raise UnfollowedError("which copies their number to another axis")
        if target[axis] > 0:
            m.rewrite(_resized(1, axis, ids))
    m.follow(ids, axis)


def _reshaped(track: ChannelTrack, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, Ids]:
    if math.prod(before) > MAX_ELEMENTS:
        raise UnfollowedError("of a tensor that is too large")
    spread = track.ids.reshape([-1 if axis == track.axis else 1 for axis in range(len(before))])
    labels = np.broadcast_to(spread, before).reshape(after)
    for axis in range(len(after)):
        line = np.moveaxis(labels, axis, 0).reshape(after[axis], -1)
        if (line == line[:, :1]).all():
            return axis, line[:, 0].copy()
    raise UnfollowedError("which spreads them over several axes")


def _resized(
    position: int, axis: int, ids: Ids
) -> Callable[[onnx.NodeProto, Keeps, ModelConstants], list[onnx.NodeProto]]:
    """A constant list of sizes follows the number of channels."""

    def change(node: onnx.NodeProto, keeps: Keeps, constants: ModelConstants) -> list[onnx.NodeProto]:
        target = integers(constants.value(node.input[position])).copy()
        target[axis] = int(keeps(ids).sum())
        node.input[position] = constants.add(target, node.input[position])
        return [node]

    return change


def concat(m: ChannelMap) -> None:
    """Side by side along the axis of channels; or along another, and then all go together."""
    axis = m.integer("axis", 0) % len(m.shape(m.node.output[0]))
    tracks = [m.track(k) for k in range(len(m.node.input))]
    known = [track for track in tracks if track is not None]
    if not known:
        return
    if any(track.axis != known[0].axis for track in known):
        raise UnfollowedError("which joins channels of different axes")
    if known[0].axis != axis:
        if len(known) < len(tracks):
            raise UnfollowedError("which joins them with something else")
        for track in known[1:]:
            m.unite(known[0].ids, track.ids)
        m.follow(known[0].ids, known[0].axis)
        return
    parts = [
        np.full(m.shape(m.name(k))[axis], FIXED) if track is None else track.ids
        for k, track in enumerate(tracks)
    ]
    m.follow(np.concatenate(parts), axis)


def split(m: ChannelMap) -> None:
    """Parts of an axis."""
    track = m.track(0)
    if track is None:
        return
    axis = m.integer("axis", 0) % len(m.shape(m.name(0)))
    if axis != track.axis:
        for output in range(len(m.node.output)):
            m.follow(track.ids, track.axis, output)
        return
    sizes = [m.shape(name)[axis] for name in m.node.output]
    ends = np.cumsum(sizes)
    parts = [track.ids[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    if len(sizes) != len(m.node.output) or ends[-1] != len(track.ids):
        raise UnfollowedError("which cuts them in parts")
    as_input = m.opset >= 13

    def change(node: onnx.NodeProto, keeps: Keeps, constants: ModelConstants) -> list[onnx.NodeProto]:
        left = [int(keeps(part).sum()) for part in parts]
        kept = [a for a in node.attribute if a.name not in ("split", "num_outputs")]
        del node.attribute[:]
        node.attribute.extend(kept)
        if as_input:
            del node.input[1:]
            node.input.append(constants.add(integers(left), "split"))
        else:
            node.attribute.append(onnx.helper.make_attribute("split", left))
        return [node]

    m.rewrite(change)
    for output, part in enumerate(parts):
        m.follow(part, axis, output)


def slices(m: ChannelMap) -> None:
    """A slice of the channels becomes a choice of the ones that stay."""
    track = m.track(0)
    if track is None:
        return
    shape = m.shape(m.name(0))
    starts, ends, axes, steps = _slice_settings(m, len(shape))
    if track.axis not in axes:
        m.follow(track.ids, track.axis)
        return
    here = axes.index(track.axis)
    start, end, step = int(starts[here]), int(ends[here]), int(steps[here])
    chosen = np.arange(shape[track.axis])[
        slice(start, None if step < 0 and end < -shape[track.axis] else end, step)
    ]
    if np.array_equal(chosen, np.arange(len(track.ids))) and end > 0:
        m.follow(track.ids, track.axis)
        return
    if len(axes) > 1:
        raise UnfollowedError("which cuts several axes at once")
    m.rewrite(_chosen(track, chosen))
    m.follow(track.ids[chosen], track.axis)


def _slice_settings(
    m: ChannelMap, rank: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[int], NDArray[np.int64]]:
    if m.attribute("starts") is not None:
        found = [m.attribute(name) for name in ("starts", "ends", "axes")]
        starts, ends = integers(found[0]), integers(found[1])  # type: ignore[arg-type]
        axes = integers(found[2]) if found[2] is not None else np.arange(len(starts))  # type: ignore[arg-type]
        steps = np.ones(len(starts), dtype=np.int64)
    else:
        track = m.track(0)
        axes = integers(m.value(3)) if m.name(3) else np.arange(m.shape(m.name(1))[0])
        if track is not None and track.axis not in axes % rank:
            starts = ends = steps = np.ones(len(axes), dtype=np.int64)
        else:
            starts, ends = integers(m.value(1)), integers(m.value(2))
            steps = integers(m.value(4)) if m.name(4) else np.ones(len(starts), dtype=np.int64)
    return starts, ends, (axes % rank).tolist(), steps


def _chosen(
    track: ChannelTrack, chosen: NDArray[np.int64]
) -> Callable[[onnx.NodeProto, Keeps, ModelConstants], list[onnx.NodeProto]]:
    """The node becomes a Gather of the channels that stay."""

    def change(node: onnx.NodeProto, keeps: Keeps, constants: ModelConstants) -> list[onnx.NodeProto]:
        kept = keeps(track.ids)
        new_place = np.cumsum(kept) - 1
        indices = constants.add(new_place[chosen[kept[chosen]]].astype(np.int64), "indices")
        gather = onnx.helper.make_node(
            "Gather", [node.input[0], indices], list(node.output), name=node.name, axis=track.axis
        )
        return [gather]

    return change


def gather(m: ChannelMap) -> None:
    """Chosen channels, or chosen positions of another axis."""
    track = m.track(0)
    if m.track(1) is not None:
        raise UnfollowedError("which takes them as places")
    if track is None:
        return
    rank = len(m.shape(m.name(0)))
    axis = m.integer("axis", 0) % rank
    n_axes = len(m.shape(m.name(1)))
    if axis != track.axis:
        m.follow(track.ids, track.axis if track.axis < axis else track.axis + n_axes - 1)
        return
    if n_axes != 1:
        raise UnfollowedError("which picks single channels")
    chosen = integers(m.value(1)) % len(track.ids)
    m.rewrite(_chosen(track, chosen))
    m.follow(track.ids[chosen], track.axis)


def pad(m: ChannelMap) -> None:
    """Paddings of other axes."""
    track = m.track(0)
    if track is None:
        return
    given = m.attribute("pads")
    pads = integers(given if given is not None else m.value(1))  # type: ignore[arg-type]
    if m.name(3):
        raise UnfollowedError("which names its axes")
    rank = len(m.shape(m.name(0)))
    if pads[track.axis] or pads[track.axis + rank]:
        raise UnfollowedError("which adds channels")
    m.follow(track.ids, track.axis)


def resize(m: ChannelMap) -> None:
    """Other axes grow or shrink."""
    track = m.track(0)
    if track is None:
        return
    before, after = m.shape(m.name(0)), m.shape(m.node.output[0])
    if before[track.axis] != after[track.axis] or m.attribute("axes") is not None:
        raise UnfollowedError("which resizes over them")
    if m.name(3):
        m.value(3)
        m.rewrite(_resized(3, track.axis, track.ids))
    m.follow(track.ids, track.axis)


def reduce(m: ChannelMap) -> None:
    """Sums, means, maxima over other axes."""
    track = m.track(0)
    if track is None:
        return
    rank = len(m.shape(m.name(0)))
    if kind_of(m.node) is Kind.ARGUMENT:
        axes = integers([m.integer("axis", 0)])
    else:
        given = m.attribute("axes")
        if given is None and not m.name(1):
            raise UnfollowedError("which reduces over them")
        axes = integers(given if given is not None else m.value(1))  # type: ignore[arg-type]
    axes = axes % rank
    if track.axis in axes:
        raise UnfollowedError("which reduces over them")
    shift = 0 if m.integer("keepdims", 1) else int((axes < track.axis).sum())
    m.follow(track.ids, track.axis - shift)


def shape_of(m: ChannelMap) -> None:
    """A size is read: harmless as long as it is not the number of channels."""
    track = m.track(0)
    if track is None:
        return
    first = m.integer("start", 0)
    for node in m.flat.nodes:
        if m.node.output[0] not in node.input:
            continue
        picks = kind_of(node) is Kind.GATHER and len(node.input) > 1 and node.input[1] in m.constants
        if not picks or first:
            raise UnfollowedError("which reads their number")
        rank = len(m.shape(m.name(0)))
        if track.axis in integers(m.constants.value(node.input[1])) % rank:
            raise UnfollowedError("which reads their number")
    if m.node.output[0] in m.flat.outputs:
        raise UnfollowedError("which reads their number")


MOVEMENT = {
    Kind.TRANSPOSE: transpose,
    Kind.UNIT_AXES: squeeze,
    Kind.RESHAPE: reshape,
    Kind.CONCAT: concat,
    Kind.SPLIT: split,
    Kind.SLICE: slices,
    Kind.GATHER: gather,
    Kind.PAD: pad,
    Kind.RESIZE: resize,
    Kind.REDUCTION: reduce,
    Kind.ARGUMENT: reduce,
    Kind.SHAPE: shape_of,
}
