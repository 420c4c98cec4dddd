"""Which axis of a tensor has its features, where no rule says what an operation does to them."""

import re
from collections.abc import Sequence

from emergraph.exporters.tracing.labels import Labels, compress, core

_CHANNELS_SECOND = re.compile(r"Conv|Pool|BatchNorm|InstanceNorm|GroupNorm|Resize|Upsample|LRN|RoiAlign")
"""Types of operations whose tensors are (samples, channels, positions...)."""


def feature_axis(
    op_type: str, shape: Sequence[int], sources: Sequence[Labels], parameters: Sequence[Sequence[int]]
) -> int | None:
    """The axis of an output along which its features are; the others are samples and positions.

    The channels of what is called a convolution or the like; else the one axis that is as long as a side of a
    parameter; else the one along which the units of an input of the same shape differ; else the last one, or
    the channels of what looks like images.

    Args:
        op_type: Type of the operation.
        shape: Of the output.
        sources: Labels of the inputs that carry units.
        parameters: Shapes of the parameters.

    Returns:
        None for a scalar.
    """
    rank = len(shape)
    if rank < 2:
        return 0 if rank else None
    if _CHANNELS_SECOND.search(op_type):
        return 1
    sides = {side for parameter in parameters for side in parameter if side > 1}
    axes = [axis for axis in range(1, rank) if shape[axis] in sides]
    differing = [axis for labels in sources if labels.ndim == rank for axis in _differing(labels)]
    if len(axes) > 1:
        axes = [axis for axis in axes if axis in differing] or axes
    if not axes:
        axes = [axis for axis in differing if axis]
    usual = rank - 1 if rank == 3 else 1
    return axes[0] if len(set(axes)) == 1 else usual


def _differing(labels: Labels) -> list[int]:
    """Axes along which labels differ."""
    packed = core(compress(labels))
    return [axis for axis, size in enumerate(packed.shape) if size > 1]
