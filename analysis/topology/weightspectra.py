"""Spectral diagnostics of every weight tensor of a stored graph."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.blockmatrix import block_matrix
from emergraph.analysis.topology.quantizedtensors import scaled_values
from emergraph.analysis.topology.spectral import spectral_fit, squared_singular_values
from emergraph.graphstore.blockinfo import BlockInfo
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import LayerKind
from emergraph.graphstore.restore import restore_tensor
from emergraph.graphstore.text import listed

ROLES = ("weight", "embedding")
MAX_SMALL_SIDE = 8192
"""Tensors whose matrices are larger on both sides are left out: their spectrum takes minutes."""

CONV2D_FACTOR = 0.5
"""What WeightWatcher multiplies the eigenvalues of two-dimensional convolutions by (`conv2d_norm`).
Exponents, distances, ranks and entropies do not depend on it."""

SCHEMA = {
    "tensor": pl.String,
    "layer": pl.Int32,
    "rows": pl.Int32,
    "columns": pl.Int32,
    "matrices": pl.Int32,
    "alpha": pl.Float64,
    "d": pl.Float64,
    "x_min": pl.Float64,
    "n_tail": pl.Int32,
    "n_eigenvalues": pl.Int32,
    "alpha_hat": pl.Float64,
    "stable_rank": pl.Float64,
    "log_norm": pl.Float64,
    "log_spectral_norm": pl.Float64,
    "log_alpha_norm": pl.Float64,
    "entropy": pl.Float64,
    "status": pl.String,
}


def weight_spectra(reader: GraphReader) -> tuple[pl.DataFrame, list[str]]:
    """Diagnose the spectrum of every weight and embedding tensor.

    Vectors, such as the scales of quantized tensors, have no row. A convolution [out, in, k, ...] counts as
    one matrix (out, in) per kernel position, whose eigenvalues are pooled; those of two-dimensional kernels
    are halved, as WeightWatcher does. Tensors of recurrent layers and batched products count as one matrix
    per leading index. Of quantized tensors, the matrix is that of the graph, or the elements times their
    scale: real units.

    Args:
        reader: A graph of a store.

    Returns:
        One row per tensor (columns of `SCHEMA`), by name; and what was left out or scaled, and why.
    """
    tensors = list(reader.tensors().iter_rows(named=True))
    blocks: dict[str, BlockInfo] = {}
    for block in reader.blocks_info():
        if block.tensor is not None:
            blocks.setdefault(block.tensor, block)
    kinds = dict(reader.layers().select("id", "kind").iter_rows())
    rows: list[dict[str, object]] = []
    left_out: dict[str, list[str]] = {}
    for record in tensors:
        if record["role"] not in ROLES or len(record["shape"]) < 2:
            continue
        own = blocks.get(record["name"])
        values, remark = _real_values(reader, record, own, tensors)
        if remark:
            left_out.setdefault(remark, []).append(str(record["name"]))
        if values is None:
            continue
        convolution = own is not None and kinds[own.layer] == LayerKind.CONV
        found = _diagnosis(values, convolution=convolution)
        if isinstance(found, str):
            left_out.setdefault(found, []).append(str(record["name"]))
        elif found is not None:
            about = {"tensor": record["name"], "layer": None if own is None else own.layer}
            rows.append({**about, **found})
    notes = [f"tensor{'s' * (len(names) > 1)} {listed(names)}: {why}" for why, names in left_out.items()]
    return pl.DataFrame(rows, schema=SCHEMA), notes


def _diagnosis(values: NDArray[np.float64], *, convolution: bool) -> dict[str, object] | str | None:
    """The row of a tensor; why it has none; None for vectors: one eigenvalue is nothing to fit."""
    matrices = list(_matrices(values, convolution=convolution))
    shape = matrices[0].shape
    if min(shape) * len(matrices) < 2:
        return None
    if min(shape) > MAX_SMALL_SIDE:
        return f"both sides exceed {MAX_SMALL_SIDE}"
    spectrum = np.concatenate([squared_singular_values(matrix) for matrix in matrices])
    if convolution and values.ndim == 4:
        spectrum *= CONV2D_FACTOR
    if not (np.isfinite(spectrum).all() and (spectrum > 0).any()):
        return "all zero, or not finite"
    sizes = {"rows": shape[0], "columns": shape[1], "matrices": len(matrices)}
    return {**sizes, **spectral_fit(spectrum).to_dict()}


def _real_values(
    reader: GraphReader,
    record: dict[str, Any],
    block: BlockInfo | None,
    tensors: Sequence[dict[str, Any]],
) -> tuple[NDArray[np.float64] | None, str]:
    """The tensor in real units and a remark; None and the reason where it cannot be had."""
    name, dtype = str(record["name"]), str(record["dtype"])
    if "float" in dtype:
        values = restore_tensor(reader, name).astype(np.float64)
        return (values, "") if np.isfinite(values).all() else (None, "NaN or infinite values")
    known = block is not None and block.src_units is not None and block.dst_units is not None
    if block is not None and known and not block.has_kernels:
        return np.nan_to_num(block_matrix(reader, block)), ""
    scaled = scaled_values(reader, record, tensors) if "int" in dtype else None
    if scaled is None:
        return None, f"{dtype} elements whose scale is not part of them, and no matrix in the graph"
    return scaled[0], f"elements times {scaled[1]}"


def _matrices(values: NDArray[np.float64], *, convolution: bool) -> Iterator[NDArray[np.float64]]:
    if values.ndim == 2:
        yield values
    elif convolution:
        flat = values.reshape(*values.shape[:2], -1)
        yield from np.moveaxis(flat, 2, 0)
    else:
        yield from values.reshape(-1, *values.shape[-2:])
