"""HQQ: codes packed by rows, with a scale and a zero point, not rounded, for each group.

`W_q` holds (groups, size of a group) codes, or the other way round; its bytes hold a code of each of 8 / bits
equal parts of the rows, the first part in the high bits. Sizes stand beside it: as plain values in a
checkpoint of torch, as small tensors in safetensors.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from emergraph.exporters.weightfiles.encodings.parameter import Encoding, FloatArray
from emergraph.exporters.weightfiles.encodings.stored import Stored, as_bytes, counts, quantization
from emergraph.exporters.weightfiles.tensors import LazyTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCHEME = "HQQ"
_PACKINGS = {"8bit_u8": (8, 1), "4bit_u8": (4, 2), "2bit_u8": (2, 4), "1bit_u8": (1, 8), "3bit_32": (3, 10)}
"""Bits of a code and codes of a byte (of a word of 32 bits for three)."""
_SETTINGS = (
    *("nbits", "group_size", "axis", "packing", "shape", "view_as_float", "unpack_view_dtype", "optimize"),
    *("compute_dtype", "quant_zero", "quant_scale", "channel_wise", "round_zero", "offload_meta"),
    *("encoded_state_dict", "stores_quant_config"),
)


def find(stored: Stored) -> None:
    """Take the weights that HQQ packed."""
    for base, packed in list(stored.ending(".W_q")):
        name = f"{base}.weight"
        places = [place for place in (base, f"{base}.meta") if stored.get(f"{place}.scale") is not None]
        place = places[0] if places else base
        scale, zero = stored.get(f"{place}.scale"), stored.get(f"{place}.zero")
        settings = [stored.get(f"{place}.{key}") for key in _SETTINGS]
        held = [part for part in (scale, zero, *settings) if part is not None]
        shape, packing = _shape(stored, place), _packing(stored, place)
        if scale is None or zero is None:
            problem = "no scale and zero that are plain numbers"
        elif shape is None or packing not in _PACKINGS:
            problem = "the file does not say its shape and packing"
        else:
            bits, parts = _PACKINGS[packing]
            problem = _misfit(packed, scale, zero, shape, bits, parts)
            if not problem:
                _take(stored, name, packed, (scale, zero), shape, (bits, parts), held)
                continue
        stored.refuse(name, packed, _SCHEME, problem, *held)


def _shape(stored: Stored, place: str) -> tuple[int, ...] | None:
    tensor = stored.get(f"{place}.shape")
    if tensor is not None and tensor.dtype in {"int32", "int64"} and tensor.n_elements <= 8:
        return counts(tensor.array().reshape(-1).tolist())
    sizes: list[object] = []
    while (size := stored.value(f"{place}.shape.{len(sizes)}")) is not None:
        sizes.append(size)
    return counts(sizes)


def _packing(stored: Stored, place: str) -> str:
    packing = stored.value(f"{place}.packing")
    return packing if isinstance(packing, str) else stored.text(f"{place}.packing") or ""


def _misfit(
    packed: LazyTensor, scale: LazyTensor, zero: LazyTensor, shape: tuple[int, ...], bits: int, parts: int
) -> str:
    """Say what does not fit; "" where all does."""
    if len(packed.shape) != 2 or 0 in packed.shape:
        return "W_q is not a matrix"
    rows, columns = _stored_rows(packed, bits)
    needed = math.prod(shape)
    unpacked = rows * parts
    wanted = needed // columns if columns and needed % columns == 0 else -1
    if not (wanted == unpacked or (bits == 3 and 0 <= unpacked - wanted < parts)):
        return f"{unpacked} rows of {columns} codes are not shape {shape}"
    fits = {(wanted, 1), (1, columns), (1, 1)}
    if any(part.shape not in fits and part.n_elements != 1 for part in (scale, zero)):
        return "its scales and zero points are not one for each group"
    return ""


def _stored_rows(packed: LazyTensor, bits: int) -> tuple[int, int]:
    """Rows and columns of W_q once its bytes are read as bytes, or as words for three bits."""
    size = packed.n_bytes // packed.n_elements
    return packed.shape[0], packed.shape[1] * size // (4 if bits == 3 else 1)


def _take(
    stored: Stored,
    name: str,
    packed: LazyTensor,
    pair: tuple[LazyTensor, LazyTensor],
    shape: tuple[int, ...],
    packing: tuple[int, int],
    held: list[LazyTensor],
) -> None:
    def decode() -> FloatArray:
        bits, parts = packing
        rows, columns = _stored_rows(packed, bits)
        raw: NDArray[np.unsignedinteger] = as_bytes(packed).view(np.uint32 if bits == 3 else np.uint8)
        raw = raw.reshape(rows, columns)
        shifts = [bits * place for place in reversed(range(parts))]
        codes = np.concatenate([(raw >> shift) & ((1 << bits) - 1) for shift in shifts]) if parts > 1 else raw
        values: FloatArray = codes[: math.prod(shape) // columns].astype(np.float32)
        scale, zero = (part.array().astype(np.float32) for part in pair)
        values = (values - zero) * scale
        return values.reshape(shape)

    scheme = f"{packing[0]}-bit {_SCHEME}"
    parts = quantization(*held)
    stored.make(name, packed, Encoding(scheme=scheme, shape=shape, parts=parts, decode=decode))
