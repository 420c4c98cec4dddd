"""Non-negative numbers far beyond the range of float64, as arrays.

Path counts grow as the product of layer widths and leave float64 (1.8e308) after some hundred layers. A count
is held as `value * 2**(512 * band)` with `band` a small integer per entry, so that no entry overflows and
none is lost beside a larger one. As long as everything is below 2**512 the bands are absent and cost nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BAND_BITS = 512
LIMIT = 2.0**BAND_BITS
LOG10_BAND = BAND_BITS * math.log10(2)

Floats = NDArray[np.float64]
Bands = NDArray[np.int32]
ArrayIndex = int | slice | NDArray[np.integer] | NDArray[np.bool_]
Index = ArrayIndex | tuple[ArrayIndex, ...]


@dataclass
class Scaled:
    """An array of `value * 2**(512 * band)`; values are finite and non-negative.

    Sums of up to 2**500 normalised entries stay finite, so entries need normalising only after a sum.
    """

    value: Floats
    band: Bands | None = None
    """None while every band is 0."""

    @classmethod
    def zeros(cls, *shape: int) -> "Scaled":
        """Zeros of the given shape."""
        return cls(np.zeros(shape))

    def __getitem__(self, index: Index) -> "Scaled":
        """Entries at `index`, a view where numpy gives one."""
        band = None if self.band is None else self.band[index]
        return Scaled(self.value[index], band)

    def normalise(self) -> "Scaled":
        """Move factors of 2**512 from values to bands; returns self."""
        if self.value.size and self.value.max() >= LIMIT:
            if self.band is None:
                self.band = np.zeros(self.value.shape, dtype=np.int32)
            large = self.value >= LIMIT
            self.value[large] /= LIMIT
            self.band[large] += 1
        return self

    def add_at(self, rows: Index, terms: "Scaled") -> None:
        """Add `terms` to the entries at `rows`, which must not repeat."""
        if self.band is None and terms.band is None:
            new = self.value[rows] + terms.value
            if not new.size or new.max() < LIMIT:
                self.value[rows] = new
                return
        total = add(self[rows], terms)
        if self.band is None:
            self.band = np.zeros(self.value.shape, dtype=np.int32)
        self.value[rows] = total.value
        self.band[rows] = 0 if total.band is None else total.band

    def sum(self, axis: int) -> "Scaled":
        """Sum along an axis, normalised."""
        if self.band is None:
            return Scaled(np.asarray(self.value.sum(axis=axis))).normalise()
        top = np.where(self.value > 0, self.band, 0).max(axis=axis, keepdims=True, initial=0)
        total = np.asarray(_shift(self.value, self.band - top).sum(axis=axis))
        return Scaled(total, np.asarray(np.squeeze(top, axis=axis), dtype=np.int32)).normalise()

    def reshape(self, *shape: int) -> "Scaled":
        """The same entries in another shape."""
        return Scaled(self.value.reshape(*shape), None if self.band is None else self.band.reshape(*shape))

    def log10(self) -> Floats:
        """Decimal logarithms; -inf for 0."""
        with np.errstate(divide="ignore"):
            logs = np.log10(self.value)
        return logs if self.band is None else logs + self.band * LOG10_BAND

    def floats(self) -> Floats:
        """As float64; inf where out of range."""
        if self.band is None:
            return self.value.copy()
        with np.errstate(over="ignore"):
            wide: Floats = np.ldexp(self.value, np.minimum(self.band, 4) * BAND_BITS)
        return wide


def add(a: Scaled, b: Scaled) -> Scaled:
    """Entry-wise sum, normalised."""
    if a.band is None and b.band is None:
        return Scaled(a.value + b.value).normalise()
    band_a = np.where(a.value > 0, 0 if a.band is None else a.band, 0)
    band_b = np.where(b.value > 0, 0 if b.band is None else b.band, 0)
    top = np.maximum(band_a, band_b).astype(np.int32)
    return Scaled(_shift(a.value, band_a - top) + _shift(b.value, band_b - top), top).normalise()


def times(a: Scaled, factor: Floats) -> Scaled:
    """Entry-wise product with ordinary numbers below 2**500, normalised."""
    return Scaled(a.value * factor, None if a.band is None else a.band.copy()).normalise()


def weighted_mean(counts: Scaled, weights: Floats) -> Scaled:
    """Sums of weight times entry over the last axis: (n, S) and (R, S) -> (n, R)."""
    if counts.band is None:
        return Scaled(counts.value @ weights.T)
    top = np.where(counts.value > 0, counts.band, 0).max(axis=1, keepdims=True)
    relative = _shift(counts.value, counts.band - top) @ weights.T
    return Scaled(relative, np.broadcast_to(top, relative.shape).astype(np.int32))


def concatenate(parts: Sequence[Scaled], *, axis: int) -> Scaled:
    """Arrays joined along an axis."""
    value = np.concatenate([part.value for part in parts], axis=axis)
    if all(part.band is None for part in parts):
        return Scaled(value)
    bands = [np.zeros(part.value.shape, dtype=np.int32) if part.band is None else part.band for part in parts]
    return Scaled(value, np.concatenate(bands, axis=axis))


def _shift(value: Floats, bands: NDArray[np.integer]) -> Floats:
    # Two bands down is below 2**-512 of the sum's largest term: it rounds to nothing in any case.
    shifted: Floats = np.ldexp(value, np.maximum(bands, -4) * BAND_BITS)
    return shifted
