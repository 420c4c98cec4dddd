"""Spectral diagnostics of every weight tensor of a stored graph."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.blockmatrix import block_matrix
from emergraph.errors import InvalidInputError
from emergraph.graphstore.blockinfo import BlockInfo
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.records import LayerKind
from emergraph.graphstore.restore import restore_tensor
from emergraph.graphstore.text import listed

# Spectral diagnostics of a weight matrix: power-law tail, norms, stable rank, entropy.

Floats = NDArray[np.float64]

SMALLEST = 1e-5
"""Eigenvalues up to this take no part in the fit of the tail, as in WeightWatcher."""
MIN_TAIL = 10
"""Fewer eigenvalues in the tail, and the fit's status says so."""


@dataclass(frozen=True, kw_only=True)
class SpectralFit:
    """Diagnostics of one spectrum of squared singular values."""

    n_eigenvalues: int
    alpha: float | None
    """Exponent of the tail's density, > 1; None where nothing can be fitted."""
    d: float | None
    """Kolmogorov-Smirnov distance of the tail to the fit, in [0, 1]."""
    x_min: float | None
    """Smallest eigenvalue of the tail."""
    n_tail: int
    alpha_hat: float | None
    """alpha * log10(largest eigenvalue)."""
    stable_rank: float
    """Sum of the eigenvalues over the largest one."""
    log_norm: float
    """log10 of the sum of the eigenvalues (squared Frobenius norm)."""
    log_spectral_norm: float
    """log10 of the largest eigenvalue (squared spectral norm)."""
    log_alpha_norm: float | None
    """log10 of the sum of eigenvalues to the power alpha."""
    entropy: float
    """Entropy of the eigenvalues as shares, over the log of the rank; in [0, 1]."""
    status: str
    """"ok", "short tail" or "no fit"."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)


def squared_singular_values(matrix: NDArray[np.floating]) -> Floats:
    """Squared singular values, ascending; of the smaller Gram matrix where one side is much longer."""
    a = np.asarray(matrix, dtype=np.float64)
    if min(a.shape) * max(a.shape) <= 1 << 20:
        return np.asarray(np.sort(np.linalg.svd(a, compute_uv=False) ** 2))
    gram = a @ a.T if a.shape[0] < a.shape[1] else a.T @ a
    return np.asarray(np.maximum(np.linalg.eigvalsh(gram), 0.0))


def power_law_tail(values: Floats) -> tuple[float, float, float, int] | None:
    """Fit a power law to the tail of positive values.

    For every candidate x_min, `alpha = 1 + n / sum log(x / x_min)` and
    `D = max |1 - (x / x_min)^(1 - alpha) - rank / n|`, rank from 0 to n - 1 (arXiv 0706.1062, eqs. 3.1, 3.9).

    Returns:
        alpha, D, x_min, n of the candidate with the least D; None for fewer than two distinct values.
    """
    x = np.sort(values[values > 0])
    best: tuple[float, float, float, int] | None = None
    logs = np.log(x)
    tails = np.cumsum(logs[::-1])[::-1]
    for i in range(len(x) - 1):
        n = len(x) - i
        spread = tails[i] - n * logs[i]
        if spread <= 0:
            continue
        alpha = 1 + n / spread
        d = float(np.abs(1 - np.exp((logs[i:] - logs[i]) * (1 - alpha)) - np.arange(n) / n).max())
        if best is None or d < best[1]:
            best = (float(alpha), d, float(x[i]), n)
    return best


def spectral_fit(eigenvalues: Floats) -> SpectralFit:
    """Diagnose a spectrum.

    Args:
        eigenvalues: Squared singular values, at least one of them positive.

    Raises:
        InvalidInputError: No positive eigenvalue, or one that is not finite.

    Example:
        >>> planted = (1 - (np.arange(200) + 0.5) / 200) ** -0.5
        >>> fit = spectral_fit(planted)
        >>> round(fit.alpha, 6), round(fit.d, 5), round(fit.stable_rank, 6)
        (3.008506, 0.00336, 19.572277)
    """
    if not np.isfinite(eigenvalues).all() or not (eigenvalues > 0).any():
        raise InvalidInputError("spectrum: expected finite eigenvalues, at least one above zero")
    largest, total = float(eigenvalues.max()), float(eigenvalues.sum())
    eps = float(np.finfo(np.float32).eps)
    rank = int((np.sqrt(eigenvalues) > np.sqrt(largest) * len(eigenvalues) * eps).sum())
    shares = eigenvalues[eigenvalues > 0] / total
    entropy = -float((shares * np.log(shares)).sum()) / np.log(rank) if rank > 1 else 0.0
    fit = power_law_tail(eigenvalues[eigenvalues > SMALLEST])
    alpha, d, x_min, n_tail = fit or (None, None, None, 0)
    log_alpha = None
    if alpha is not None:
        log_alpha = alpha * np.log10(largest) + float(np.log10(((eigenvalues / largest) ** alpha).sum()))
    return SpectralFit(
        n_eigenvalues=len(eigenvalues),
        alpha=alpha,
        d=d,
        x_min=x_min,
        n_tail=n_tail,
        alpha_hat=None if alpha is None else float(alpha * np.log10(largest)),
        stable_rank=total / largest,
        log_norm=float(np.log10(total)),
        log_spectral_norm=float(np.log10(largest)),
        log_alpha_norm=None if log_alpha is None else float(log_alpha),
        entropy=float(entropy),
        status="no fit" if fit is None else "ok" if n_tail >= MIN_TAIL else "short tail",
    )


# Integer tensors in real units, where another tensor of the model holds their scale.


def scaled_values(
    reader: GraphReader, record: dict[str, Any], tensors: Sequence[dict[str, Any]]
) -> tuple[NDArray[np.float64], str] | None:
    """Multiply an integer tensor by the scale that belongs to it.

    That is the one floating-point tensor whose role is to quantize others (in a weight file, the same role)
    that has one number per row, per column or in all, and whose name begins like the integer tensor's (at
    least half of it, and more than any other). An integer tensor found in the same way is the zero point.

    Args:
        reader: A graph of a store.
        record: The row of the integer tensor in `reader.tensors()`.
        tensors: All such rows.

    Returns:
        The values and the name of the scale; None where there is no such scale, or more than one.
    """
    scale = _companion(record, [other for other in tensors if "float" in other["dtype"]])
    if scale is None:
        return None
    values = restore_tensor(reader, record["name"]).astype(np.float64)
    zero = _companion(record, [other for other in tensors if "int" in other["dtype"]])
    if zero is not None:
        values -= restore_tensor(reader, zero["name"]).astype(np.float64)
    return values * restore_tensor(reader, scale["name"]).astype(np.float64), str(scale["name"])


def _companion(record: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The tensor of few numbers whose name is nearest, if one is."""
    name, shape = str(record["name"]), list(record["shape"])
    near = []
    for other in others:
        own = list(other["shape"])
        padded = [1] * (len(shape) - len(own)) + own
        fits = len(own) <= len(shape) and all(n in (1, m) for n, m in zip(padded, shape, strict=True))
        letters = zip(name, str(other["name"]), strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], letters))
        its = other["role"] in ("quantization", record["role"])  # a weight file does not say what a scale is
        if its and fits and own != shape and 2 * common >= len(name):
            near.append((common, other))
    near.sort(key=lambda entry: -entry[0])
    if not near or (len(near) > 1 and near[0][0] == near[1][0]):
        return None
    return near[0][1]


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
