"""Operations that a file runs as in training: BatchNormalization over each batch, Dropout at random.

BatchNormalization stays as it is: its stored statistics do not count. Dropout is made to pass everything,
which is what it does on average: what one random mask hides would look like units without use.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from emergraph.exporters.nodes import attributes, input_name
from emergraph.exporters.operations import normal_domain
from emergraph.exporters.runtime.flat_model import Training

Constant = Callable[[str], NDArray[np.generic] | None]
"""Gives the values of a small constant by name; None for what is none."""

_MODE = 2
"""Position of Dropout's input `training_mode`."""
_DROPOUT_MODE_SINCE, _NORM_MODE_SINCE, _INFERENCE_SINCE = 12, 14, 7
"""Versions of the standard in which training became an input, an attribute; and in which `is_test` went."""
_SHOWN = 3
TRAINING = {
    "BatchNormalization": "normalises each batch by its own statistics; the stored ones do not count",
    "Dropout": "drops values at random; it is traced as the identity",
}
"""What an operation in training mode does, by type."""


def trains(node: onnx.NodeProto, version: int, constant: Constant) -> bool:
    """Whether an operation is in training mode.

    Args:
        node: The operation as the file has it.
        version: Of the standard's operations.
        constant: Gives the values of small constants.
    """
    if normal_domain(node.domain) or node.op_type not in TRAINING:
        return False
    given = attributes(node)
    if version < _INFERENCE_SINCE and (node.op_type == "Dropout" or "is_test" in given):
        return not given.get("is_test", 0)
    if node.op_type == "BatchNormalization":
        by_attribute = version >= _NORM_MODE_SINCE
        return bool(given.get("training_mode", 0)) if by_attribute else any(node.output[1:])
    mode = constant(input_name(node, _MODE)) if version >= _DROPOUT_MODE_SINCE else None
    return mode is not None and mode.size == 1 and bool(mode.reshape(-1)[0])


def settle(node: onnx.NodeProto, version: int, claim: Callable[[str], str]) -> Training:
    """Make an operation in training mode one that runs and that can be followed, in place.

    Args:
        node: The operation, with flat names.
        version: Of the standard's operations.
        claim: Returns a name like the one given that is still free.
    """
    if node.op_type == "Dropout":
        if version >= _DROPOUT_MODE_SINCE:
            del node.input[_MODE:]
        return Training(node.name, node.op_type)
    # onnxruntime takes the mode from the number of outputs, and wants all of them
    for position in range(3 if version >= _NORM_MODE_SINCE else 5):
        if position == len(node.output):
            node.output.append("")
        if not node.output[position]:
            node.output[position] = claim(f"{node.output[0]}/statistic")
    return Training(node.name, node.op_type)


def training_warnings(found: Sequence[Training]) -> list[str]:
    """What a user should know about a model with operations in training mode."""
    lines = []
    for op, what in TRAINING.items():
        names = [one.name for one in found if one.op == op]
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"training mode: {op} {what} ({', '.join(names[:_SHOWN])}{more})")
    return lines
