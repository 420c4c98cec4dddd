"""Spectral diagnostics of every weight tensor of a stored graph."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.topology.spectral import spectral_fit, squared_singular_values
from emergraph.graphstore.blockinfo import BlockInfo
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import LayerKind
from emergraph.graphstore.restore import restore_tensor

ROLES = ("weight", "embedding")
MAX_SMALL_SIDE = 8192
"""Tensors whose matrices are larger on both sides are left out: their spectrum takes minutes."""

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
    one matrix (out, in) per kernel position, whose eigenvalues are pooled; tensors of recurrent layers and
    batched products as one matrix per leading index. Of quantized tensors, the matrix is that of the graph,
    in real units.

    Args:
        reader: A graph of a store.

    Returns:
        One row per tensor (columns of `SCHEMA`), by name; and what was left out and why.
    """
    blocks: dict[str, BlockInfo] = {}
    for block in reader.blocks_info():
        if block.tensor is not None:
            blocks.setdefault(block.tensor, block)
    kinds = dict(reader.layers().select("id", "kind").iter_rows())
    rows: list[dict[str, object]] = []
    left_out: list[str] = []
    for record in reader.tensors().iter_rows(named=True):
        if record["role"] not in ROLES or len(record["shape"]) < 2:
            continue
        own = blocks.get(record["name"])
        values = _values(reader, record, own)
        if isinstance(values, str):
            left_out.append(f"tensor {record['name']}: {values}")
            continue
        convolution = own is not None and kinds[own.layer] == LayerKind.CONV
        matrices = list(_matrices(values, convolution=convolution))
        if min(matrices[0].shape) < 2:  # a vector has one eigenvalue: nothing to fit
            continue
        if min(matrices[0].shape) > MAX_SMALL_SIDE:
            left_out.append(f"tensor {record['name']}: both sides exceed {MAX_SMALL_SIDE}")
            continue
        spectrum = np.concatenate([squared_singular_values(matrix) for matrix in matrices])
        if not (np.isfinite(spectrum).all() and (spectrum > 0).any()):
            left_out.append(f"tensor {record['name']}: all zero, or not finite")
            continue
        shape = matrices[0].shape
        about = {"tensor": record["name"], "layer": None if own is None else own.layer}
        sizes = {"rows": shape[0], "columns": shape[1], "matrices": len(matrices)}
        rows.append({**about, **sizes, **spectral_fit(spectrum).to_dict()})
    return pl.DataFrame(rows, schema=SCHEMA), left_out


def _values(
    reader: GraphReader, record: dict[str, object], block: BlockInfo | None
) -> NDArray[np.float64] | str:
    """The tensor in real units, or why it cannot be had."""
    name, dtype = str(record["name"]), str(record["dtype"])
    if "float" in dtype:
        values = restore_tensor(reader, name).astype(np.float64)
        return values if np.isfinite(values).all() else "NaN or infinite values"
    if block is None or block.has_kernels or block.src_units is None or block.dst_units is None:
        return f"{dtype} elements whose scale is not part of them, and no matrix in the graph"
    return block_matrix(reader, block)


def block_matrix(reader: GraphReader, block: BlockInfo) -> NDArray[np.float64]:
    """(n_src, n_dst) weights of a block that was written as a matrix; zero where there is no edge."""
    edges = reader.block_edges(block, columns=("src", "dst", "weight"))
    src_units, dst_units = np.asarray(block.src_units), np.asarray(block.dst_units)
    rows, columns = np.argsort(src_units), np.argsort(dst_units)
    matrix = np.zeros((len(src_units), len(dst_units)))
    at_row = rows[np.searchsorted(src_units, edges["src"], sorter=rows)]
    at_column = columns[np.searchsorted(dst_units, edges["dst"], sorter=columns)]
    matrix[at_row, at_column] = edges["weight"]
    return np.nan_to_num(matrix)


def _matrices(values: NDArray[np.float64], *, convolution: bool) -> Iterator[NDArray[np.float64]]:
    if values.ndim == 2:
        yield values
    elif convolution:
        flat = values.reshape(*values.shape[:2], -1)
        yield from np.moveaxis(flat, 2, 0)
    else:
        yield from values.reshape(-1, *values.shape[-2:])
