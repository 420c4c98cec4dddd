"""Blocks of ggml: what a GGUF file packs."""

from emergraph.exporters.weightfiles.encodings.parameter import Encoding
from emergraph.exporters.weightfiles.encodings.stored import Stored
from emergraph.exporters.weightfiles.gguf.elements import require_gguf


def find(stored: Stored) -> None:
    """Take the tensors whose bytes are blocks.

    Raises:
        MissingExtraError: There are some, and the gguf package is not installed.
    """
    for name, tensor in stored.file.tensors.items():
        if tensor.blocks is None:
            continue
        kind = tensor.blocks.type.name
        require_gguf(f"unpacking {kind}")
        encoding = Encoding(
            scheme=f"{kind} (ggml)", shape=tensor.blocks.shape, decode=tensor.blocks.floats, blocks=kind
        )
        stored.make(name, tensor, encoding)
