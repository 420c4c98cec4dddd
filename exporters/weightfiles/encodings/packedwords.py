"""GPTQ and AWQ: integers packed into words of 32 bits, with scales and zero points for groups of inputs.

Both keep `qweight`, `qzeros` and `scales` (groups, outputs), and the shapes tell them apart. GPTQ packs
consecutive inputs of one output into a word, (inputs * bits / 32, outputs), and its zero points along the
outputs; `g_idx` names the group of each input. Version 1 stores zero points less one. AWQ packs eight outputs
of one input into a word, (inputs, outputs / 8), in an order of its own.
"""

import numpy as np
from numpy.typing import NDArray

from emergraph.exporters.weightfiles.encodings.bits import CodeArray, unpack_columns, unpack_words
from emergraph.exporters.weightfiles.encodings.parameter import Encoding, FloatArray
from emergraph.exporters.weightfiles.encodings.stored import Stored, quantization, weight_name
from emergraph.exporters.weightfiles.tensors import LazyTensor

_GPTQ_BITS = (2, 3, 4, 8)
_AWQ_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word the code of each of eight outputs lies."""
_WORDS = frozenset({"int32", "uint32"})
_NO_VERSION = (
    "the file does not say whether its zero points are stored less one (version 1) or not; put the model's "
    "config.json or quantize_config.json beside it"
)


def find(stored: Stored) -> None:
    """Take the weights that GPTQ or AWQ packed."""
    for base, words in list(stored.ending(".qweight")):
        if words.dtype not in _WORDS:
            continue  # integers that are not packed: see `scales`
        name = weight_name(base)
        zeros, scales, groups = (stored.get(f"{base}.{part}") for part in ("qzeros", "scales", "g_idx"))
        held = [part for part in (zeros, scales, groups) if part is not None]
        if scales is None or len(scales.shape) != 2 or len(words.shape) != 2 or 0 in scales.shape:
            stored.refuse(name, words, "packed integers", "no scales (groups, outputs)", *held)
        elif words.shape[1] == scales.shape[1]:
            _gptq(stored, name, words, scales, zeros, groups)
        elif words.shape[1] * 8 == scales.shape[1]:
            _awq(stored, name, words, scales, zeros, held)
        else:
            problem = f"words {words.shape} and scales {scales.shape} are those of neither GPTQ nor AWQ"
            stored.refuse(name, words, "packed integers", problem, *held)


def _gptq(
    stored: Stored,
    name: str,
    words: LazyTensor,
    scales: LazyTensor,
    zeros: LazyTensor | None,
    groups: LazyTensor | None,
) -> None:
    held = [part for part in (scales, zeros, groups) if part is not None]
    scheme = "GPTQ"
    n_groups, outputs = scales.shape
    possible = _bits(stored, words, zeros, outputs, groups)
    if zeros is None or len(possible) != 1:
        problem = (
            f"its sizes fit {possible} bits alike" if possible else "qweight, qzeros and g_idx do not fit"
        )
        stored.refuse(name, words, scheme, problem, *held)
        return
    bits = possible[0]
    scheme = f"{bits}-bit GPTQ"
    inputs = words.shape[0] * 32 // bits
    codes = unpack_words(zeros.array(), bits, outputs) if zeros.shape[0] == n_groups else None
    named = _groups_of(groups, inputs, n_groups)
    if codes is None or named is None:
        stored.refuse(name, words, scheme, "the groups of g_idx, scales and qzeros do not fit", *held)
        return
    less_one = _less_one(stored, codes, bits)
    if less_one is None:
        stored.refuse(name, words, scheme, _NO_VERSION, *held)
        return
    points = ((codes + np.uint8(less_one)) & np.uint8((1 << bits) - 1)).astype(np.float32)

    def decode() -> FloatArray:
        factors = scales.array().astype(np.float32)
        values = unpack_columns(words.array(), bits, inputs).astype(np.float32)
        values = (values - points[named]) * factors[named]
        return values.T

    parts = quantization(*held)
    stored.make(name, words, Encoding(scheme=scheme, shape=(outputs, inputs), parts=parts, decode=decode))


def _bits(
    stored: Stored, words: LazyTensor, zeros: LazyTensor | None, outputs: int, groups: LazyTensor | None
) -> list[int]:
    """The numbers of bits that the configuration, and the sizes of zero points and of g_idx, allow."""
    if zeros is None or len(zeros.shape) != 2 or zeros.dtype not in _WORDS:
        return []
    given = stored.config.get("bits")
    return [
        bits
        for bits in ((given,) if given in _GPTQ_BITS else _GPTQ_BITS)
        if isinstance(bits, int)
        and zeros.shape[1] == -(-outputs * bits // 32)
        and words.shape[0] * 32 % bits == 0
        and (groups is None or groups.n_elements == words.shape[0] * 32 // bits)
    ]


def _groups_of(groups: LazyTensor | None, inputs: int, n_groups: int) -> NDArray[np.int64] | None:
    """The group of each input; None where that is none of those that there are."""
    if groups is None:
        return np.arange(inputs) // -(-inputs // n_groups) if inputs >= n_groups else None
    if groups.dtype not in {"int32", "int64"} or groups.n_elements != inputs:
        return None
    named = groups.array().reshape(-1).astype(np.int64)
    inside = named.size > 0 and named.min() >= 0 and named.max() < n_groups
    return named if inside else None


def _less_one(stored: Stored, zeros: CodeArray, bits: int) -> bool | None:
    """Whether zero points are stored less one: as the configuration says, or as the middle code shows."""
    config = stored.config
    if config and config.get("quant_method", "gptq") == "gptq":
        version = config.get("checkpoint_format", "gptq")
        return {"gptq": True, "gptq_v2": False}.get(version) if isinstance(version, str) else None
    middle = 1 << (bits - 1)
    if (zeros == middle - 1).all():
        return True  # symmetric in version 1
    return False if (zeros == middle).all() else None


def _awq(
    stored: Stored,
    name: str,
    words: LazyTensor,
    scales: LazyTensor,
    zeros: LazyTensor | None,
    held: list[LazyTensor],
) -> None:
    n_groups, outputs = scales.shape
    inputs = words.shape[0]
    if zeros is None or zeros.shape != (n_groups, outputs // 8) or inputs % n_groups:
        stored.refuse(name, words, "AWQ", "the groups of qweight, scales and qzeros do not fit", *held)
        return
    if zeros.dtype not in _WORDS or stored.config.get("version", "gemm") not in {"gemm", "GEMM"}:
        stored.refuse(name, words, "AWQ", "a layout of another version than GEMM", *held)
        return

    def decode() -> FloatArray:
        size = inputs // n_groups
        points = _awq_codes(zeros).astype(np.float32)
        factors = scales.array().astype(np.float32)
        values = _awq_codes(words).astype(np.float32).reshape(n_groups, size, outputs)
        values = (values - points[:, None]) * factors[:, None]
        return values.reshape(inputs, outputs).T

    parts = quantization(*held)
    encoding = Encoding(scheme="4-bit AWQ", shape=(outputs, inputs), parts=parts, decode=decode)
    stored.make(name, words, encoding)


def _awq_codes(words: LazyTensor) -> CodeArray:
    rows, columns = words.shape
    codes = unpack_words(words.array(), 4, columns * 8).reshape(rows, columns, 8)
    return codes[..., _AWQ_PLACES].reshape(rows, -1)
