"""Element-wise scales, shifts and biases by constants: columns of the unit, not edges."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.tracing.builder import GraphBuilder, LayerDraft
from emergraph.exporters.tracing.labels import Labels, compress, core, joint_core, spread, unit_axes
from emergraph.exporters.tracing.tracks import PerUnit, Track
from emergraph.graphstore.records import LayerKind

_WITH_BIAS = frozenset({LayerKind.DENSE, LayerKind.CONV})


def per_unit(labels: Labels, factor: NDArray[np.generic], layer: LayerDraft) -> PerUnit:
    """The one value that a constant has for each unit of a layer.

    Args:
        labels: Label array of the tensor.
        factor: Constant that broadcasts to the tensor's shape.
        layer: Whose units to look up.

    Returns:
        (layer.count,) float64; NaN for units over which the constant varies or that do not occur.
    """
    if 0 in labels.shape:
        return np.full(layer.count, np.nan)
    packed = compress(labels)
    fixed = tuple(k for k in range(packed.ndim) if packed.strides[k] == 0 or packed.shape[k] <= 1)
    # along axes where the unit does not change, what matters of a constant are its ends
    values = core(spread(np.asarray(factor), labels.shape))
    with np.errstate(invalid="ignore"):  # a NaN stays one
        ends = [find(values, axis=fixed, keepdims=True).astype(np.float64) for find in (np.min, np.max)]
    units, least, most = joint_core([packed, *(spread(end, packed.shape) for end in ends)])
    index = units.ravel().astype(np.int64) - layer.first
    inside = (index >= 0) & (index < layer.count)
    index = index[inside]
    low = np.full(layer.count, np.inf)
    high = np.full(layer.count, -np.inf)
    with np.errstate(invalid="ignore"):
        np.minimum.at(low, index, least.ravel()[inside].astype(np.float64))
        np.maximum.at(high, index, most.ravel()[inside].astype(np.float64))
    return np.where(low == high, low, np.nan)


def advanced(
    tracks: Mapping[int, Track],
    labels: Labels,
    name: str,
    builder: GraphBuilder,
    *,
    nonlinearity: str | None = None,
) -> dict[int, Track]:
    """Tracks after an element-wise operation whose output is `name`."""
    out: dict[int, Track] = {}
    for layer_id, track in tracks.items():
        layer = builder.layers[layer_id]
        axes = unit_axes(labels, layer.first, layer.count)
        activation = track.activation or nonlinearity
        if axes is not None:
            nonlinear = track.nonlinear or nonlinearity is not None
            out[layer_id] = replace(track, tensor=name, axes=axes, nonlinear=nonlinear, activation=activation)
        else:
            out[layer_id] = replace(track, activation=activation)
    return out


def scaled(
    tracks: Mapping[int, Track], labels: Labels, factor: NDArray[np.generic], builder: GraphBuilder
) -> dict[int, Track]:
    """Tracks after a multiplication by a constant."""
    out: dict[int, Track] = {}
    for layer_id, track in tracks.items():
        by = per_unit(labels, factor, builder.layers[layer_id])
        scale = by if track.scale is None else track.scale * by
        shift = None if track.shift is None else track.shift * by
        out[layer_id] = replace(track, scale=scale, shift=shift)
    return out


def shifted(
    tracks: Mapping[int, Track], labels: Labels, offset: NDArray[np.generic], builder: GraphBuilder
) -> dict[int, Track]:
    """Tracks after the addition of a constant: a bias directly behind a contraction, else a shift."""
    out: dict[int, Track] = {}
    for layer_id, track in tracks.items():
        layer = builder.layers[layer_id]
        by = per_unit(labels, offset, layer)
        plain = track.scale is None and track.shift is None and track.activation is None
        if layer.kind in _WITH_BIAS and plain:
            out[layer_id] = replace(track, bias=by if track.bias is None else track.bias + by)
        else:
            out[layer_id] = replace(track, shift=by if track.shift is None else track.shift + by)
    return out
