"""Weights that torch computes from other parameters: masks, weight norm, spectral norm.

Each follows what the module computes in evaluation mode. What a file does not define (a parametrization of
which only the argument was saved) is named as not understood.
"""

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.weightfiles.encodings.parameter import Encoding, FloatArray, Parameter, Part

_ORIGINAL = re.compile(r"((?:.*\.)?)parametrizations\.([^.]+)\.original(0?)")
_NORMED = re.compile(r"(.*\.)?[^.]*(weight|kernel|bias)[^.]*_g")
_TRANSPOSED = 3
"""Axes from which a weight may be that of a transposed convolution, whose outputs are the second axis."""


def apply(found: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Put the weights that modules compute in the place of what they compute them from.

    Args:
        found: Parameters by name, in file order.

    Returns:
        Parameters by name, in file order; those that others are made from do not stand alone.
    """
    made: dict[str, Parameter] = {}
    used: set[str] = set()
    for name in found:
        if name in used:
            continue
        result = _old_style(name, found) or _parametrised(name, found)
        if result is not None and result.name not in found:
            made[name] = result
            used.update(_names(result, found) - {name})
    return {
        parameter.name: parameter
        for name, given in found.items()
        if name not in used
        for parameter in [made.get(name, given)]
    }


def _names(result: Parameter, found: Mapping[str, Parameter]) -> set[str]:
    """Names of the parameters whose tensors a result is made from."""
    tensors = {result.tensor.name, *(part.tensor.name for part in result.parts)}
    return {name for name, parameter in found.items() if parameter.tensor.name in tensors}


def _old_style(name: str, found: Mapping[str, Parameter]) -> Parameter | None:
    if name.endswith("_orig"):
        base = name.removesuffix("_orig")
        mask, left, right = (found.get(base + end) for end in ("_mask", "_u", "_v"))
        if mask is not None and mask.shape == found[name].shape:
            return _masked(base, found[name], mask)
        if left is not None:
            return _spectral(base, found[name], left, right)
    if _NORMED.fullmatch(name) and f"{name[:-2]}_v" in found:
        return _normed(name[:-2], found[f"{name[:-2]}_v"], found[name])
    return None


def _parametrised(name: str, found: Mapping[str, Parameter]) -> Parameter | None:
    """A parameter of `torch.nn.utils.parametrize`; only the first function of a chain may have a state."""
    match = _ORIGINAL.fullmatch(name)
    if match is None:
        return None
    base, folder = match[1] + match[2], f"{match[1]}parametrizations.{match[2]}."
    siblings = [other for other in found if other.startswith(folder) and other != name]
    if match[3]:
        direction = found.get(f"{folder}original1")
        if direction is not None and siblings == [f"{folder}original1"]:
            made = _normed(base, direction, found[name])
            if made is not None:
                return made
    elif sorted(siblings) == [f"{folder}0._u", f"{folder}0._v"]:
        return _spectral(base, found[name], found[f"{folder}0._u"], found[f"{folder}0._v"])
    parts = [found[other] for other in siblings]
    why = "which function torch computes it with is not in the file"
    return _refused(base, found[name], "parametrized", why, parts)


def _masked(base: str, original: Parameter, mask: Parameter) -> Parameter:
    def decode() -> FloatArray:
        values: FloatArray = original.floats() * mask.tensor.array().astype(np.float32)
        return values

    return _made(base, original, "masked", [(mask, "buffer")], decode)


def _normed(base: str, direction: Parameter, size: Parameter) -> Parameter | None:
    """Size times direction over its length: over all axes but the one along which there are several sizes."""
    shape = direction.shape
    axes = tuple(axis for axis, length in enumerate(size.shape) if length != 1)
    fits = size.shape in {(), (1,)} or (
        len(size.shape) == len(shape) and len(axes) <= 1 and all(size.shape[a] == shape[a] for a in axes)
    )
    if not fits or not shape or 0 in shape:
        return None

    def decode() -> FloatArray:
        values = direction.floats().astype(np.float64)
        over = tuple(axis for axis in range(values.ndim) if axis not in axes)
        factor = size.floats().astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            length = np.sqrt((values * values).sum(axis=over, keepdims=True))
            result: FloatArray = values * ((factor if axes else factor.reshape(())) / length)
            return result.astype(np.float32)

    return _made(base, direction, "weight norm", [(size, "scale")], decode)


def _spectral(base: str, original: Parameter, left: Parameter, right: Parameter | None) -> Parameter:
    """Divided by the product of the weight, as a matrix, with the two stored vectors."""
    scheme = "spectral norm"
    held = [part for part in (left, right) if part is not None]
    if right is None:
        return _refused(base, original, scheme, "it was saved by a version that keeps one vector", held)
    candidates = _output_axes(original.shape, left.n_elements, right.n_elements)
    if not candidates:
        return _refused(base, original, scheme, "its vectors do not fit its shape", held)

    def decode() -> FloatArray:
        values = original.floats().astype(np.float64)
        u, v = (part.floats().astype(np.float64).reshape(-1) for part in (left, right))
        result: FloatArray = values / _sigma(values, u, v, candidates)
        return result.astype(np.float32)

    return _made(base, original, scheme, [(part, "buffer") for part in held], decode)


def _output_axes(shape: tuple[int, ...], n_left: int, n_right: int) -> list[int]:
    axes = (0, 1) if len(shape) >= _TRANSPOSED else (0,)
    total = int(np.prod(shape, dtype=object)) if shape else 0
    return [
        axis for axis in axes if axis < len(shape) and shape[axis] == n_left and total == n_left * n_right
    ]


def _sigma(
    values: NDArray[np.float64], u: NDArray[np.float64], v: NDArray[np.float64], axes: list[int]
) -> float:
    """U W v, with the axis of the outputs first.

    Where two axes fit (a square transposed convolution), the vectors tell: u is close to W v, scaled.
    """

    def image(axis: int) -> NDArray[np.float64]:
        moved: NDArray[np.float64] = np.moveaxis(values, axis, 0).reshape(u.size, -1) @ v
        return moved

    images = [image(axis) for axis in axes]
    best = max(images, key=lambda given: float(u @ given) / (float(np.linalg.norm(given)) or 1.0))
    return float(u @ best)


def _made(
    base: str, main: Parameter, scheme: str, others: list[tuple[Parameter, str]], decode: object
) -> Parameter:
    unknown = next((part.problem for part in (main, *(other for other, _ in others)) if part.problem), "")
    parts = tuple(Part(other.tensor, role) for other, role in others)
    encoding = Encoding(
        scheme=scheme,
        shape=main.shape,
        parts=(*main.parts, *(part for other, _ in others for part in other.parts), *parts),
        decode=None if unknown else decode,  # type: ignore[arg-type]
        problem=unknown,
    )
    return Parameter(name=base, tensor=main.tensor, encoding=encoding)


def _refused(base: str, main: Parameter, scheme: str, problem: str, others: list[Parameter]) -> Parameter:
    parts = tuple(Part(other.tensor, "buffer") for other in others)
    encoding = Encoding(scheme=scheme, shape=main.shape, parts=parts, problem=f"{scheme}: {problem}")
    return Parameter(name=base, tensor=main.tensor, encoding=encoding)
