"""Tracing rules, one module per family of operations; importing this package registers all of them."""

from emergraph.exporters.tracing.rules import (  # noqa: F401
    attention,
    contraction,
    controlflow,
    convolution,
    einsum,
    elementwise,
    embedding,
    fourier,
    fused,
    heads,
    movement,
    normalisation,
    pooling,
    quantized,
    recurrent,
    reduction,
    scatter,
    sequences,
)
