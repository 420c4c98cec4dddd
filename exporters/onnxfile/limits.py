"""Limits on what a file may claim, unless the caller raises them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReadLimits:
    """Caps that hold while an ONNX file is read; counted before memory is taken."""

    inline_bytes: int = 1024
    """Tensors with more stored bytes stay in the memory-mapped file, out of the weightless model."""
    model_memory: int = 1 << 30
    """Estimated bytes that the weightless model (the file without its tensors' values) takes once parsed."""
    expanded_nodes: int = 1_000_000
    """Operations after every local function is written out where it is called."""
    folded_elements: int = 1 << 27
    """Elements that a constant-making operation may claim before `check` reports it."""


DEFAULT_LIMITS = ReadLimits()
