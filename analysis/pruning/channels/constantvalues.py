"""Channels that have one and the same value everywhere, whatever the input: removed neurons and what follows.

A neuron without incoming weights gives its bias at every position; behind an activation it gives f(bias),
behind a batch normalisation another constant. Where the value is known and the next contraction has no
zero padding, the channel can be cut out and its contribution be added to that contraction's bias.
"""

from collections.abc import Callable
from typing import TypeGuard

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.analysis.pruning.channels.constants import ModelConstants
from emergraph.analysis.pruning.channels.tracks import ChannelMap, ChannelReader, ChannelTrack
from emergraph.errors import EmergraphError
from emergraph.exporters.nodes import input_name, is_unpadded
from emergraph.exporters.operations import POINTWISE, Kind, kind_of, spec_of
from emergraph.exporters.runtime.reference import run_node
from emergraph.exporters.trainingmode import trains

Floats = NDArray[np.float64]
Weights = Callable[[ChannelReader], Floats]
"""Gives the sums of a reader's weights over taps, (channels made, channels read)."""


def constant_values(channels: ChannelMap, constants: ModelConstants, weights: Weights) -> dict[str, Floats]:
    """Tensor name -> (channels of its track,) the value of each, NaN where it varies.

    Args:
        channels: The channels of the model.
        constants: Of the pruned model.
        weights: Of the pruned model.
    """
    known: dict[str, Floats] = {}
    readers = {reader.node: reader for reader in channels.readers if reader.out is not None}
    for index, node in enumerate(channels.flat.nodes):
        if not any(name in channels.tracks for name in node.output):
            continue
        if index in readers:
            values = _contracted(constants, readers[index], node, known, weights)
            known[node.output[0]] = values
            continue
        for name in node.output:
            if (track := channels.tracks.get(name)) is not None:
                known[name] = _ridden(channels, constants, node, track, known)
    return known


def _contracted(
    constants: ModelConstants,
    reader: ChannelReader,
    node: onnx.NodeProto,
    known: dict[str, Floats],
    weights: Weights,
) -> Floats:
    n = 0 if reader.out is None else len(reader.out)
    total = weights(reader)
    present = weights_present(reader, constants, node)
    name = node.input[1 - reader.position] if kind_of(node) is Kind.MATMUL else node.input[0]
    if reader.depthwise:
        given = known[name]
        foldable = kind_of(node) is Kind.CONVOLUTION and is_unpadded(node)
        usable = (given == 0) | (~np.isnan(given) & foldable)
        values = np.where(usable, np.nan_to_num(given) * total[:, 0], np.nan)
        values[~present[:, 0]] = 0.0
    elif reader.ids is None:
        values = np.where(present.any(axis=1), np.nan, 0.0)
    else:
        given = known[name]
        usable = (given == 0) | ((~np.isnan(given)) & reader.foldable)
        values = total @ np.where(usable, np.nan_to_num(given), 0.0)
        values[(present & ~usable).any(axis=1)] = np.nan
    bias = input_name(node, 2)
    if bias:
        if bias not in constants or constants.value(bias).size not in (1, n):
            return np.full(n, np.nan)
        values = values + constants.value(bias).astype(np.float64).reshape(-1)
    plain = all(a.name not in ("alpha", "beta") or a.f == 1.0 for a in node.attribute)
    return values if plain else np.full(n, np.nan)


def weights_present(
    reader: ChannelReader, constants: ModelConstants, node: onnx.NodeProto
) -> NDArray[np.bool_]:
    """(channels made, channels read) whether a weight other than zero joins the two.

    Where all channels made are needed there is one row; a reader whose channels are not known has one column.
    """
    values = constants.value(node.input[reader.position])
    return np.asarray(_arranged(values != 0, reader).any(axis=1))


def weight_sums(reader: ChannelReader, constants: ModelConstants, node: onnx.NodeProto) -> Floats:
    """(channels made, channels read) sums over taps."""
    values = constants.value(node.input[reader.position])
    return np.asarray(_arranged(values.astype(np.float64), reader).sum(axis=1))


def _arranged(values: NDArray[np.generic], reader: ChannelReader) -> NDArray[np.generic]:
    """As (made, taps, read)."""
    if reader.out is None:
        moved = np.moveaxis(values, reader.in_axis, -1)
        flat = moved.reshape(1, -1, moved.shape[-1])
    elif reader.ids is None:
        moved = np.moveaxis(values, reader.out_axis, 0)
        flat = moved.reshape(moved.shape[0], -1, 1)
    else:
        moved = np.moveaxis(values, (reader.out_axis, reader.in_axis), (0, -1))
        flat = moved.reshape(moved.shape[0], -1, moved.shape[-1])
    return flat


def _ridden(
    channels: ChannelMap,
    constants: ModelConstants,
    node: onnx.NodeProto,
    track: ChannelTrack,
    known: dict[str, Floats],
) -> Floats:
    nothing = np.full(len(track.ids), np.nan)
    spec = spec_of(node)
    if spec.kind is Kind.BATCH_NORM:
        scale, shift, mean, variance = (
            constants.value(node.input[k]).astype(np.float64) for k in (1, 2, 3, 4)
        )
        if trains(node, channels.flat.opsets.get("", 1), lambda _: None):
            # a constant is its own mean
            return np.where(np.isnan(known[node.input[0]]), np.nan, shift)
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        return np.asarray((known[node.input[0]] - mean) / np.sqrt(variance + epsilon) * scale + shift)
    if spec.kind in POINTWISE:
        return _pointwise(channels, constants, node, track, known)
    padded = (
        spec.kind is Kind.PAD
        and not input_name(node, 2)
        and not any(
            (a.name == "value" and a.f) or (a.name == "mode" and a.s != b"constant") for a in node.attribute
        )
    )
    if not (spec.keeps_value or spec.keeps_zero or padded):
        return nothing
    of_channel = np.full(channels.n_channels, np.nan)
    for name in node.input:
        if name in known and name in channels.tracks:
            of_channel[channels.tracks[name].ids] = known[name]
    of_channel[0] = np.nan
    values = of_channel[track.ids]
    return values if spec.keeps_value else np.where(values == 0, 0.0, np.nan)


def _pointwise(
    channels: ChannelMap,
    constants: ModelConstants,
    node: onnx.NodeProto,
    track: ChannelTrack,
    known: dict[str, Floats],
) -> Floats:
    nothing = np.full(len(track.ids), np.nan)
    rank = len(channels.shape(node.output[0]))
    inputs: list[NDArray[np.generic] | None] = []
    for name in node.input:
        if name in known:
            inputs.append(known[name])
        elif name in constants:
            value = constants.value(name)
            own = track.axis - rank + value.ndim
            if value.size != (value.shape[own] if own >= 0 else 1):
                return nothing
            inputs.append(value.astype(np.float64).reshape(-1) if value.ndim else value)
        elif name:
            # A product with zero is zero, whatever the other factor is.
            if kind_of(node) is not Kind.PRODUCT:
                return nothing
            inputs.append(nothing)
        else:
            inputs.append(None)
    if kind_of(node) is Kind.PRODUCT:
        arrays = [array for array in inputs if array is not None]
        product = np.prod(np.broadcast_arrays(*arrays), axis=0)
        zero = np.any(np.broadcast_arrays(*(array == 0 for array in arrays)), axis=0)
        return np.broadcast_to(np.where(zero, 0.0, product), nothing.shape).astype(np.float64)
    wide = [None if a is None else (a.astype(np.float64) if a.dtype.kind == "f" else a) for a in inputs]
    try:
        (found,) = run_node(node, wide, channels.flat.opsets)[:1]
    except EmergraphError:
        return nothing
    if found.dtype.kind != "f" or found.size not in (1, len(nothing)):
        return nothing
    # what is not known is NaN here, of which some operations make a number (Shrink, ThresholdedRelu)
    unknown = np.any(np.broadcast_arrays(nothing == 0, *(np.isnan(a) for a in wide if _is_float(a))), axis=0)
    values = np.broadcast_to(found.astype(np.float64).reshape(-1), nothing.shape)
    return np.where(unknown, np.nan, values)


def _is_float(array: NDArray[np.generic] | None) -> TypeGuard[Floats]:
    return array is not None and array.dtype.kind == "f"
