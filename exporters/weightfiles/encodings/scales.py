"""Integers and small floats with scales: one for a tensor, a row, a group of inputs, or a block.

Compressed-tensors' formats are here too: integers packed into words (`weight_packed` with `weight_shape`),
and floats of 4 bits with scales of 8 (nvfp4, with a factor for the tensor; mxfp4, with powers of two).
"""

import re

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.weightfiles.encodings.bits import nibbles, unpack_columns, unpack_words
from emergraph.exporters.weightfiles.encodings.parameter import Encoding, FloatArray, scaled
from emergraph.exporters.weightfiles.encodings.stored import Stored, counts, quantization, weight_name
from emergraph.exporters.weightfiles.tensors import LazyTensor

_FLOAT8 = frozenset({"float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"})
_SCALED = frozenset({"int8", "uint8", *_FLOAT8})
_SCALE_SUFFIXES = ("_scale", ".scale", "_scale_inv", ".scales", "_scales", "._scale")
_ZERO_SUFFIXES = ("_zero_point", ".zero_point", ".zero_points", "_zero_points")
_ACTIVATIONS = tuple(
    f"{side}_{part}" for side in ("input", "output") for part in ("scale", "global_scale", "zero_point")
)
_FLOAT4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""Values of the codes of a float with two bits of exponent and one of mantissa."""
_BIAS = 127
"""Exponent of the scale 1 where scales are powers of two, stored as bytes."""
_GROUPS = {"nvfp4": 16, "mxfp4": 32}


def find(stored: Stored) -> None:
    """Take quantized weights with their scales.

    Known spellings: `x.qweight` with `x.scale`, and integers or 8-bit floats `x` with `x_scale`, `x.scale`,
    `x_scale_inv` (which multiplies all the same) or their plurals, each with an optional `zero_point`.
    """
    for base, packed in list(stored.ending("weight_packed")):
        if packed.dtype in {"int32", "uint32"}:
            _packed_integers(stored, f"{base}weight", packed)
        else:
            _packed_floats(stored, f"{base}weight", packed)
    for base, packed in list(stored.ending(".weight")):
        if packed.dtype == "uint8" and stored.get(f"{base}.weight_scale_2") is not None:
            _packed_floats(stored, f"{base}.weight", packed)
    for name, tensor in list(stored.file.tensors.items()):
        if tensor.dtype in _SCALED and name not in stored.taken:
            _one(stored, name, tensor)


def _one(stored: Stored, name: str, tensor: LazyTensor) -> None:
    base = re.sub(r"\.qweight$|\._data$", "", name)
    stems = (base, base.removesuffix(".weight")) if name.endswith((".qweight", ".weight")) else (base,)
    scale = _first(stored, stems, _SCALE_SUFFIXES)
    if scale is None:
        return
    zero = _first(stored, stems, _ZERO_SUFFIXES)
    named = base if base == name else weight_name(base)
    pair = [part for part in (scale, zero) if part is not None]
    held = [*pair, *_of_activations(stored, stems[-1])]
    blocks = _config_block(stored)
    powers = scale.dtype == "uint8" and tensor.dtype not in _FLOAT8
    if powers or not all(_fits(part.shape, tensor.shape, blocks) for part in pair):
        problem = f"scales of shape {scale.shape} for values of shape {tensor.shape}"
        stored.refuse(named, tensor, f"scaled {tensor.dtype}", problem, *held)
        return

    def decode() -> FloatArray:
        values = tensor.array()
        point = np.zeros(()) if zero is None else _spread(_numbers(zero), values.shape, blocks)
        return scaled(values, _spread(_factors(scale), values.shape, blocks), point)

    encoding = Encoding(
        scheme=f"scaled {tensor.dtype}", shape=tensor.shape, parts=quantization(*held), decode=decode
    )
    stored.make(named, tensor, encoding)


def _first(stored: Stored, stems: tuple[str, ...], suffixes: tuple[str, ...]) -> LazyTensor | None:
    for stem in stems:
        for suffix in suffixes:
            other = stored.get(stem + suffix)
            if other is not None and other.name not in stems:
                return other
    return None


def _of_activations(stored: Stored, module: str) -> list[LazyTensor]:
    """Scales of what goes into and out of a module, which are not weights."""
    found = (stored.get(f"{module}.{part}") for part in _ACTIVATIONS)
    return [part for part in found if part is not None]


def _packed_integers(stored: Stored, name: str, packed: LazyTensor) -> None:
    scale, zero, sizes, order = (
        stored.get(f"{name}_{part}") for part in ("scale", "zero_point", "shape", "g_idx")
    )
    held = [part for part in (scale, zero, sizes, order) if part is not None]
    held += _of_activations(stored, name.removesuffix(".weight"))
    plain = sizes is not None and sizes.dtype in {"int32", "int64"} and sizes.n_elements <= 8
    shape = counts(sizes.array().reshape(-1).tolist()) if plain and sizes is not None else None
    scheme = "packed integers (compressed-tensors)"
    if scale is None or shape is None or len(shape) != 2 or len(packed.shape) != 2:
        stored.refuse(name, packed, scheme, "no weight_scale and weight_shape of a matrix", *held)
        return
    rows, columns = shape
    possible = [
        bits
        for bits in _config_bits(stored)
        if packed.shape == (rows, -(-columns * bits // 32)) and (32 % bits == 0 or columns % 32 == 0)
    ]
    if len(possible) != 1 or not _fits(scale.shape, shape, None):
        problem = f"words {packed.shape} and scales {scale.shape} do not say how {shape} is packed"
        stored.refuse(name, packed, scheme, problem, *held)
        return
    bits = possible[0]
    groups = scale.shape[1] if len(scale.shape) == 2 else 1
    if (
        zero is not None
        and zero.dtype in {"int32", "uint32"}
        and zero.shape != (-(-rows * bits // 32), groups)
    ):
        stored.refuse(name, packed, scheme, f"zero points of shape {zero.shape}", *held)
        return
    if order is not None and order.n_elements != columns:
        stored.refuse(name, packed, scheme, "g_idx does not name a group for each input", *held)
        return

    def decode() -> FloatArray:
        offset = 1 << (bits - 1)
        codes = unpack_words(packed.array(), bits, columns).astype(np.float32) - offset
        factors = _spread(_factors(scale), shape, None, order)
        points = np.zeros(())
        if zero is not None and zero.dtype in {"int32", "uint32"}:
            unpacked = unpack_columns(zero.array(), bits, rows).astype(np.float64) - offset
            points = _spread(unpacked, shape, None, order)
        elif zero is not None:
            points = _spread(_numbers(zero), shape, None, order)
        return scaled(codes, factors, points)

    encoding = Encoding(scheme=f"{bits}-bit {scheme}", shape=shape, parts=quantization(*held), decode=decode)
    stored.make(name, packed, encoding)


def _packed_floats(stored: Stored, name: str, packed: LazyTensor) -> None:
    scale = stored.get(f"{name}_scale")
    whole, second = stored.get(f"{name}_global_scale"), stored.get(f"{name}_scale_2")
    extra = (stored.get(f"{name}_{part}") for part in ("shape", "zero_point"))
    held = [part for part in (scale, whole, second, *extra) if part is not None]
    held += _of_activations(stored, name.removesuffix(".weight"))
    kind = "mxfp4" if whole is None and second is None else "nvfp4"
    columns = packed.shape[1] * 2 if len(packed.shape) == 2 else 0
    shape: tuple[int, ...] = (packed.shape[0], columns) if columns else ()
    fits = (
        packed.dtype == "uint8"
        and scale is not None
        and columns % _GROUPS[kind] == 0
        and scale.shape == (packed.shape[0], columns // _GROUPS[kind])
        and scale.dtype in ({"uint8", "float8_e8m0fnu"} if kind == "mxfp4" else _FLOAT8)
        and all(part is None or part.n_elements == 1 for part in (whole, second))
        and not (whole is not None and second is not None)
        and stored.get(f"{name}_zero_point") is None
    )
    if not fits or scale is None or not columns:
        problem = f"bytes {packed.shape} without the scales of nvfp4 or mxfp4"
        stored.refuse(name, packed, "packed floats", problem, *held)
        return

    def decode() -> FloatArray:
        factors = _factors(scale)
        if whole is not None:
            factors = factors / _numbers(whole).reshape(())
        if second is not None:
            factors = factors * _numbers(second).reshape(())
        codes = nibbles(packed.array().astype(np.uint8), high_first=False)
        return scaled(_FLOAT4[codes], _spread(factors, shape, None), np.zeros(()))

    stored.make(name, packed, Encoding(scheme=kind, shape=shape, parts=quantization(*held), decode=decode))


def _numbers(tensor: LazyTensor) -> NDArray[np.float64]:
    return tensor.array().astype(np.float64)


def _factors(scale: LazyTensor) -> NDArray[np.float64]:
    """The numbers that scales stand for; bytes are exponents of two."""
    if scale.dtype == "uint8":
        return np.exp2(scale.array().astype(np.float64) - _BIAS)
    return _numbers(scale)


def _config_block(stored: Stored) -> tuple[int, ...] | None:
    """Sizes of blocks that share a scale, where the configuration gives them."""
    return counts(stored.config.get("weight_block_size"))


def _config_bits(stored: Stored) -> tuple[int, ...]:
    """The numbers of bits that the configuration has for weights; all there may be where it is silent."""
    groups = stored.config.get("config_groups")
    found: set[int] = set()
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        bits = weights.get("num_bits") if isinstance(weights, dict) else None
        if type(bits) is int and 1 <= bits <= 8:
            found.add(bits)
    return tuple(sorted(found)) or tuple(range(1, 9))


def _fits(shape: tuple[int, ...], target: tuple[int, ...], blocks: tuple[int, ...] | None) -> bool:
    """Whether scales fit: one value, or the leading axes of the weights (trailing ones may be left out).

    Along an axis there is one scale for all, for each index, or for blocks of equal size.
    """
    if shape in {(), (1,)}:
        return True
    if len(shape) > len(target) or 0 in target:
        return False
    sizes = _block_sizes(shape, target, blocks)
    return all(
        size * part >= whole > size * (part - 1)
        for part, whole, size in zip(shape, target, sizes, strict=False)
    )


def _block_sizes(
    shape: tuple[int, ...], target: tuple[int, ...], blocks: tuple[int, ...] | None
) -> list[int]:
    """Indices that share a scale, for each axis of the scales; 0 where that is not a whole number.

    Blocks of rows are told from the sizes alone only where they are a power of two: 130 rows with two scales
    are blocks of 128 in every format there is, not of 65.
    """
    if blocks is not None and len(blocks) == len(shape) == len(target):
        ends = zip(shape, target, blocks, strict=True)
        if all(part == -(-whole // block) for part, whole, block in ends):
            return list(blocks)
    sizes = [
        whole // part if part and whole % part == 0 else 0 for part, whole in zip(shape, target, strict=False)
    ]
    if shape[0] > 1 and sizes[0] & (sizes[0] - 1):
        sizes[0] = 0
    return sizes


def _spread(
    values: NDArray[np.float64],
    target: tuple[int, ...],
    blocks: tuple[int, ...] | None,
    order: LazyTensor | None = None,
) -> NDArray[np.float64]:
    """Return values that broadcast against the weights, one for each index where there are several.

    Args:
        values: Scales that `_fits` has accepted.
        target: Shape of the weights.
        blocks: Sizes of blocks, where the configuration gives them.
        order: The group of each column, where it is not the columns' order.
    """
    if values.size == 1:
        return values.reshape(())
    sizes = _block_sizes(values.shape, target, blocks)
    for axis, (size, whole) in enumerate(zip(sizes, target, strict=False)):
        if values.shape[axis] == 1:
            continue
        if order is not None and axis == 1:
            values = values[:, order.array().reshape(-1).astype(np.int64)]
        elif size > 1:
            values = np.repeat(values, size, axis=axis)
            values = values.take(range(whole), axis=axis)
    return values.reshape(values.shape + (1,) * (len(target) - values.ndim))
