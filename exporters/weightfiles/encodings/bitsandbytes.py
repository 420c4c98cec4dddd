"""Weights of bitsandbytes: 4 bits with a table and block-wise maxima, and int8 with a maximum for each row.

4 bits: two codes to a byte, high half first, in C order of the weights; each stands for a value of
`quant_map`, times the `absmax` of its block. With double quantization the maxima are codes themselves, of
`nested_quant_map` times `nested_absmax` of their block, plus an offset. Sizes stand as JSON in a tensor of
bytes. int8: row times SCB / 127.
"""

import json
import math
import re

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.weightfiles.encodings.bits import nibbles
from emergraph.exporters.weightfiles.encodings.parameter import Encoding, FloatArray
from emergraph.exporters.weightfiles.encodings.stored import Stored, as_bytes, count, counts, quantization
from emergraph.exporters.weightfiles.tensors import LazyTensor

_STATE = re.compile(r"(.+)\.quant_state\.bitsandbytes__([a-z0-9]+)")
_MOST_SETTINGS = 512
"""Bytes of the text about one weight; it is about 100."""
_SETTINGS = {
    *("quant_type", "blocksize", "dtype", "shape"),
    *("nested_blocksize", "nested_dtype", "nested_offset"),
}
_COMPANIONS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_ROW_MAJOR = 0
"""Value of `weight_format` for int8 in C order; others are layouts of a kernel."""


def is_settings(name: str, content: bytes) -> bool:
    """Whether a tensor is the short text in which bitsandbytes keeps how a weight was packed."""
    if _STATE.fullmatch(name) is None or len(content) > _MOST_SETTINGS:
        return False
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and set(found) <= _SETTINGS


def find(stored: Stored) -> None:
    """Take the weights that bitsandbytes packed."""
    for name in list(stored.file.tensors):
        match = _STATE.fullmatch(name)
        if match and stored.get(match[1]) is not None:
            _four_bits(stored, match[1], match[2], name)
    for base, absmax in list(stored.ending(".absmax")):
        tensor = stored.get(base)
        if tensor is not None:
            parts = [stored.get(f"{base}.{part}") for part in _COMPANIONS[1:]]
            stored.refuse(
                base,
                tensor,
                "4 bits (bitsandbytes)",
                "the file lacks quant_state, which holds its shape",
                absmax,
                *(part for part in parts if part is not None),
            )
    for base, maxima in list(stored.ending(".SCB")):
        tensor = stored.get(f"{base}.weight")
        if tensor is not None:
            _eight_bits(stored, base, tensor, maxima)


def _four_bits(stored: Stored, base: str, kind: str, state_name: str) -> None:
    tensor, state = stored.file.tensors[base], stored.file.tensors[state_name]
    companions = {part: stored.get(f"{base}.{part}") for part in _COMPANIONS}
    held = [part for part in companions.values() if part is not None]
    scheme = f"{kind} (bitsandbytes)"
    settings = stored.settings(state_name)
    shape = counts(settings.get("shape")) if settings else None
    block = count(settings.get("blocksize")) if settings else None
    problem = ""
    if shape is None or block is None:
        problem = "quant_state does not say shape and blocksize"
    elif tensor.n_bytes != -(-math.prod(shape) // 2):
        problem = f"{tensor.n_bytes} bytes, shape {shape} takes {-(-math.prod(shape) // 2)}"
    else:
        problem = _misfit(companions, settings or {}, -(-math.prod(shape) // block))
    if problem or shape is None or block is None or settings is None:
        stored.refuse(base, tensor, scheme, problem, state, *held)
        return
    sizes, size = shape, block
    given = settings

    def decode() -> FloatArray:
        return _values(tensor, companions, given, sizes, size)

    parts = quantization(*held, state)
    stored.make(base, tensor, Encoding(scheme=scheme, shape=shape, parts=parts, decode=decode))


def _misfit(companions: dict[str, LazyTensor | None], settings: dict[str, object], n_blocks: int) -> str:
    """Say what does not fit; "" where all does."""
    absmax, table = companions["absmax"], companions["quant_map"]
    if absmax is None or table is None or table.n_elements != 16:
        return "absmax or the 16 values of quant_map are not there"
    if absmax.n_elements != n_blocks:
        return f"{absmax.n_elements} maxima for {n_blocks} blocks"
    nested, nested_table = companions["nested_absmax"], companions["nested_quant_map"]
    if nested is None:
        return "" if absmax.dtype != "uint8" else "its maxima are codes, and nested_absmax is not there"
    size = count(settings.get("nested_blocksize"))
    offset = settings.get("nested_offset")
    if nested_table is None or nested_table.n_elements != 256 or absmax.dtype != "uint8" or size is None:
        return "its nested maxima do not fit together"
    if not isinstance(offset, (int, float)) or nested.n_elements != -(-n_blocks // size):
        return "its nested maxima do not fit together"
    return ""


def _values(
    tensor: LazyTensor,
    companions: dict[str, LazyTensor | None],
    settings: dict[str, object],
    shape: tuple[int, ...],
    block: int,
) -> FloatArray:
    absmax, table, nested, nested_table = (_flat(companions[part]) for part in _COMPANIONS)
    if nested.size:
        size, offset = settings["nested_blocksize"], settings["nested_offset"]
        blocks = np.arange(absmax.size) // size  # type: ignore[operator]
        codes = absmax.astype(np.uint8)
        absmax = nested_table[codes] * nested[blocks] + np.float32(offset)  # type: ignore[arg-type]
    codes = nibbles(as_bytes(tensor), high_first=True)[: math.prod(shape)]
    values: FloatArray = table[codes]
    values *= np.repeat(absmax, block)[: values.size]
    return values.reshape(shape)


def _flat(tensor: LazyTensor | None) -> NDArray[np.float32]:
    return np.empty(0, np.float32) if tensor is None else tensor.array().reshape(-1).astype(np.float32)


def _eight_bits(stored: Stored, base: str, tensor: LazyTensor, maxima: LazyTensor) -> None:
    layout = stored.get(f"{base}.weight_format")
    code = stored.value(f"{base}.weight_format")
    held = [part for part in (maxima, layout) if part is not None]
    fits = tensor.dtype == "int8" and len(tensor.shape) == 2 and maxima.n_elements == tensor.shape[0]
    name, scheme = tensor.name, "int8 (bitsandbytes)"
    if not fits:
        stored.refuse(name, tensor, scheme, "SCB has not one maximum for each row", *held)
        return
    if code not in {None, _ROW_MAJOR}:
        stored.refuse(name, tensor, scheme, f"weight_format {code} is the layout of a kernel", *held)
        return

    def decode() -> FloatArray:
        values: FloatArray = tensor.array().astype(np.float32)
        values *= (maxima.array().reshape(-1).astype(np.float32) / np.float32(127))[:, None]
        return values

    parts = quantization(*held)
    stored.make(name, tensor, Encoding(scheme=scheme, shape=tensor.shape, parts=parts, decode=decode))
