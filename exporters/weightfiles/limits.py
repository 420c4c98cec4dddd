"""Limits on what a weight file may claim, unless the caller raises them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WeightLimits:
    """Caps that hold while a weight file is read; counted before memory is taken."""

    pickle_bytes: int = 64 << 20
    """Bytes of one pickle, its storages not counted."""
    pickle_opcodes: int = 4_000_000
    """Instructions of one pickle; a tensor of a state dict takes about 30."""
    pickle_marks: int = 1_000
    """Groups that are open at once in a pickle: how deep lists, tuples and dicts nest."""
    header_bytes: int = 100_000_000
    """Bytes of a safetensors header, the format's own bound, and of the header of a GGUF file."""
    json_bytes: int = 64 << 20
    """Bytes of a JSON text: a shard index, the graph of an exported program."""
    metadata_entries: int = 65_536
    """Keys of the metadata of a GGUF file."""
    metadata_values: int = 2_000_000
    """Texts and arrays in the arrays of that metadata; a vocabulary has some 300,000."""
    zip_records: int = 200_000
    """Records of a zip archive."""
    tensors: int = 100_000
    """Tensors of a file."""
    inflated_bytes: int = 4 << 30
    """Bytes that the compressed records of an npz file may unpack to, in all."""
    member_bytes: int = 256 << 20
    """Bytes that one compressed member of an archive is unpacked to where `check` looks for code."""
    inflation_ratio: int = 200
    """Bytes out per byte in, for compressed records that unpack to 16 MiB or more."""
    dense_bytes: int = 256 << 20
    """Bytes that a sparse tensor may take when it is written out as a dense array."""
    view_factor: int = 16
    """Bytes of all distinct tensors per byte of the storages that they share."""
    shards: int = 10_000
    """Parts of a sharded file."""


DEFAULT_LIMITS = WeightLimits()
"""The caps that hold unless others are given."""
