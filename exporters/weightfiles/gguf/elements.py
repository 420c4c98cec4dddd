"""How a GGUF file stores numbers: element types by number, and values in packed blocks."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emergraph.errors import MissingExtraError

PLAIN: dict[int, str] = {
    0: "float32",
    1: "float16",
    24: "int8",
    25: "int16",
    26: "int32",
    27: "int64",
    28: "float64",
    30: "bfloat16",
}
"""Element types whose numbers stand in the file as such, by their number in it."""

GGML = "ggml"
"""What unpacks blocks, as a `Coding` names it."""
_CHUNK = 1 << 20
"""Values that are unpacked at once."""


@dataclass(frozen=True)
class BlockType:
    """An element type of which so many values share a scale and are packed together."""

    name: str
    values: int
    """Values of a block."""
    n_bytes: int
    """Bytes of a block."""
    decoded: bool = True
    """Whether the gguf package gives the values."""


BLOCKS: dict[int, BlockType] = {
    2: BlockType("Q4_0", 32, 18),
    3: BlockType("Q4_1", 32, 20),
    6: BlockType("Q5_0", 32, 22),
    7: BlockType("Q5_1", 32, 24),
    8: BlockType("Q8_0", 32, 34),
    9: BlockType("Q8_1", 32, 40, decoded=False),
    10: BlockType("Q2_K", 256, 84),
    11: BlockType("Q3_K", 256, 110),
    12: BlockType("Q4_K", 256, 144),
    13: BlockType("Q5_K", 256, 176),
    14: BlockType("Q6_K", 256, 210),
    15: BlockType("Q8_K", 256, 292, decoded=False),
    16: BlockType("IQ2_XXS", 256, 66),
    17: BlockType("IQ2_XS", 256, 74),
    18: BlockType("IQ3_XXS", 256, 98),
    19: BlockType("IQ1_S", 256, 50),
    20: BlockType("IQ4_NL", 32, 18),
    21: BlockType("IQ3_S", 256, 110),
    22: BlockType("IQ2_S", 256, 82),
    23: BlockType("IQ4_XS", 256, 136),
    29: BlockType("IQ1_M", 256, 56),
    34: BlockType("TQ1_0", 256, 54),
    35: BlockType("TQ2_0", 256, 66),
    39: BlockType("MXFP4", 32, 17),
    40: BlockType("NVFP4", 64, 36),
    41: BlockType("Q1_0", 128, 18, decoded=False),
}
"""Element types in blocks, by their number in a file; blocks lie along the innermost axis."""


@dataclass(frozen=True)
class Blocks:
    """A tensor whose stored bytes are blocks."""

    type: BlockType
    shape: tuple[int, ...]
    """Of the values, the innermost axis last."""
    read: Callable[[], NDArray[np.generic]] = field(repr=False)
    """Gives the bytes, a row of blocks per row of values."""

    def floats(self) -> NDArray[np.float32]:
        """All values, unpacked some rows at a time.

        Raises:
            MissingExtraError: The gguf package is not installed.
        """
        stored = self.read()
        stored = stored.reshape(-1, stored.shape[-1])
        width = self.shape[-1]
        result = np.empty((len(stored), width), np.float32)
        step = max(1, _CHUNK // max(width, 1))
        for start in range(0, len(stored), step):
            result[start : start + step] = unpacked(stored[start : start + step], self.type)
        return result.reshape(self.shape)


def require_gguf(what: str) -> Any:  # noqa: ANN401 - the module itself
    """Import the gguf package, or say how to get it.

    Args:
        what: What needs it, as the subject of the message.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise MissingExtraError(f'{what} needs the gguf package: pip install "emergraph[gguf]"') from error


def unpacked(stored: NDArray[np.generic], kind: BlockType) -> NDArray[np.float32]:
    """Return the values of rows of blocks.

    Args:
        stored: (rows, bytes).
        kind: What the blocks are.

    Raises:
        MissingExtraError: The gguf package is not installed.
    """
    gguf = require_gguf(f"unpacking {kind.name}")
    # codes may hold any bytes: scales that are not numbers stay what they are
    with np.errstate(all="ignore"):
        values = gguf.dequantize(np.ascontiguousarray(stored), gguf.GGMLQuantizationType[kind.name])
    return np.asarray(values, np.float32)
