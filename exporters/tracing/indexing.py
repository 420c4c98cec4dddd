"""Labels that move with the data, and the axes along which an index picks or places."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.runtime.reference import run_node


def values_into_places(op: str) -> tuple[int, int]:
    """Inputs of a scatter operation: what is there before, and what is put there."""
    return (0, 1) if op == "TensorScatter" else (0, 2)


def indexed_axes(
    op: str, attrs: Mapping[str, object], rank: int, index: tuple[int, ...], axes: NDArray[np.generic] | None
) -> tuple[int, ...]:
    """The axes of an operation's data along which its index picks or places.

    Args:
        op: An operation with inputs that say which or where.
        attrs: Its attributes.
        rank: Axes of the data.
        index: Shape of input 1.
        axes: Value of the input that lists axes (`Slice`).
    """
    if op in ("GatherND", "ScatterND"):
        batch = int(str(attrs.get("batch_dims", 0)))
        return tuple(range(batch, batch + index[-1]))
    if op == "Slice":
        listed = range(index[0]) if axes is None else np.ravel(axes).tolist()
        return tuple(int(a) % rank for a in listed)
    if op == "ReverseSequence":
        return (int(str(attrs.get("time_axis", 0))),)
    if op == "Compress" and "axis" not in attrs:
        return tuple(range(rank))
    axis = int(str(attrs.get("axis", -2 if op == "TensorScatter" else 0)))
    return (axis % rank,) if rank else ()


Array = NDArray[np.generic]


def move_labels(
    node: onnx.NodeProto, inputs: Sequence[Array | None], data: Collection[int], opsets: Mapping[str, int]
) -> list[NDArray[np.int64]]:
    """Run a node that moves data on labels; elements that it fills in are -1.

    Args:
        node: The operation.
        inputs: One array per input: labels, or what says where to move them.
        data: Positions of the inputs that are labels.
        opsets: Version per domain.

    Raises:
        EvaluationError: The reference implementation refuses the operation or its inputs.
    """
    if node.op_type == "GatherElements" and inputs[0] is not None and inputs[1] is not None:
        return [_gathered(node, inputs[0].astype(np.int64), inputs[1].astype(np.int64))]
    moved = onnx.NodeProto()
    moved.CopyFrom(node)
    del moved.attribute[:]
    moved.attribute.extend(a for a in node.attribute if a.name != "reduction")
    versions = dict(opsets)
    if node.op_type == "Scatter":
        moved.op_type = "ScatterElements"
        versions[""] = max(versions.get("", 1), 11)
    # What an operation fills in is 0, so that 0 is "no unit" while it runs.
    arrays = [a + 1 if a is not None and k in data else a for k, a in enumerate(inputs)]
    if node.op_type == "Pad":
        arrays[:2] = _cropped(moved, arrays)
        if len(arrays) > 2:
            arrays[2] = np.asarray(0, np.int64)
        for attribute in moved.attribute:
            if attribute.name == "value":
                attribute.f = 0.0
    return [np.asarray(result).astype(np.int64) - 1 for result in run_node(moved, arrays, versions)]


def _cropped(node: onnx.NodeProto, inputs: Sequence[Array | None]) -> list[Array | None]:
    """The data and pads of a Pad after what its negative pads remove, which the reference does not know.

    Pads that are an attribute are changed in place; the list then has the data alone.
    """
    data = np.asarray(inputs[0])
    stored = next((attribute for attribute in node.attribute if attribute.name == "pads"), None)
    pads = np.asarray(inputs[1] if stored is None else stored.ints, np.int64).ravel()
    if (pads >= 0).all():
        return list(inputs[:2])
    listed = inputs[3] if len(inputs) > 3 else None
    axes = range(data.ndim) if listed is None else np.ravel(listed).tolist()
    for axis, before, after in zip(axes, *np.minimum(pads, 0).reshape(2, -1).tolist(), strict=True):
        kept = [slice(None)] * data.ndim
        kept[axis] = slice(-before, data.shape[axis] + after)
        data = data[tuple(kept)]
    if stored is None:
        return [data, np.maximum(pads, 0)]
    stored.ints[:] = np.maximum(pads, 0).tolist()
    return [data]


def _gathered(
    node: onnx.NodeProto, labels: NDArray[np.int64], indices: NDArray[np.int64]
) -> NDArray[np.int64]:
    """GatherElements whose indices may cover a part of the other axes, which the reference does not know."""
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 0) % labels.ndim
    part = tuple(slice(None) if k == axis else slice(0, n) for k, n in enumerate(indices.shape))
    return np.take_along_axis(labels[part], indices, axis)
