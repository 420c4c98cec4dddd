"""Whether an ONNX file computes what the module computes that it was exported from."""

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from emergraph.errors import InvalidInputError
from emergraph.exporters.pytorch.tensors import leaves
from emergraph.exporters.runtime.assembly import ModelSource, assemble
from emergraph.exporters.runtime.flatten import flatten
from emergraph.exporters.runtime.process import EVERYTHING, ModelProcess

Array = NDArray[np.generic]
RTOL, ATOL = 1e-3, 1e-4
"""How far outputs may be from the module's: relative, and absolute per unit of the largest one."""
ROUNDINGS = 8
"""Where elements have few digits, as many units in the last place as well."""


def feeds_of(source: ModelSource, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Array]:
    """The example inputs by the names that the export gave them: positional ones first, in order."""
    defaults = {tensor.name for tensor in source.model.graph.initializer}
    names = [value.name for value in source.model.graph.input if value.name not in defaults]
    found: dict[str, Array] = {}
    rest = list(names)
    for key, value in kwargs.items():
        if key in rest and len(leaves(value)) == 1:
            found[key] = leaves(value)[0]
            rest.remove(key)
    remaining = leaves([args, {key: value for key, value in kwargs.items() if key not in found}])
    if len(remaining) != len(rest):
        raise InvalidInputError(
            f"the export has the inputs {', '.join(names)}; {len(remaining) + len(found)} tensors were given"
        )
    found.update(zip(rest, remaining, strict=True))
    return {name: found[name] for name in names}


def compare(
    source: ModelSource,
    feeds: Mapping[str, Array],
    expected: Sequence[Array],
    label: str,
    process: ModelProcess,
) -> None:
    """Refuse an export whose outputs differ from the module's.

    Args:
        source: The export.
        feeds: Inputs by name.
        expected: What the module gives for them.
        label: Name of the module.
        process: Runs the export.

    Raises:
        InvalidInputError: The outputs differ, or the export does not run.
    """
    flat = flatten(source.model, read_tensor=source.array)
    try:
        process.load(assemble(flat, flat.outputs, source))
        results = process.run(feeds, list(flat.outputs), small=EVERYTHING)
    except InvalidInputError as error:
        raise InvalidInputError(
            f"torch exported {label} to an ONNX file that does not run: {error}; no graph was made"
        ) from error
    found = [results[name].values for name in flat.outputs]
    if len(found) != len(expected):
        raise InvalidInputError(
            f"torch exported {label} with {len(found)} outputs, the module has {len(expected)}"
        )
    for position, (theirs, ours) in enumerate(zip(found, expected, strict=True)):
        problem = _difference(theirs, ours)
        if problem:
            raise InvalidInputError(
                f"torch exported {label} to an ONNX file that computes something else: output {position} "
                f"{problem}; no graph was made"
            )


def _difference(theirs: Array | None, ours: Array) -> str | None:
    if theirs is None:
        return "is not a tensor"
    if theirs.shape != ours.shape:
        return f"has shape {list(theirs.shape)}, expected {list(ours.shape)}"
    a, b = theirs.astype(np.float64), ours.astype(np.float64)
    scale = max(1.0, float(np.abs(b).max(initial=0.0, where=np.isfinite(b))))
    digits = 0.0 if ours.dtype.kind in "iub" else float(ml_dtypes.finfo(ours.dtype).eps)  # type: ignore[no-untyped-call]
    rtol, atol = max(RTOL, ROUNDINGS * digits), max(ATOL, ROUNDINGS * digits) * scale
    if np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True):
        return None
    with np.errstate(invalid="ignore"):
        return f"differs by up to {float(np.nanmax(np.abs(a - b))):.3g}"
