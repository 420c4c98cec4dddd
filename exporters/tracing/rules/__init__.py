"""Tracing rules, one module per family of operations; importing this package registers all of them."""

from emergraph.exporters.tracing.rules import (
    attention,
    contraction,
    controlflow,
    convolution,
    elementwise,
    embedding,
    fused,
    heads,
    indicators,
    movement,
    normalisation,
    pooling,
    quantized,
    recurrent,
    reduction,
    sequences,
)

__all__ = [
    "attention",
    "contraction",
    "controlflow",
    "convolution",
    "elementwise",
    "embedding",
    "fused",
    "heads",
    "indicators",
    "movement",
    "normalisation",
    "pooling",
    "quantized",
    "recurrent",
    "reduction",
    "sequences",
]
