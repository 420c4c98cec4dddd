"""What a path count returns."""

import math
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import polars as pl

from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.paths.options import EmergenceOptions, Interior
from emergraph.analysis.paths.scaled import Scaled
from emergraph.errors import UsageError
from emergraph.graphstore.records import EdgeKind

LARGEST_LOG10 = math.log10(sys.float_info.max)


@dataclass(frozen=True, kw_only=True)
class Magnitude:
    """A non-negative number that may be beyond float64."""

    value: float
    """inf when above 1.8e308."""
    log10: float
    """-inf for zero; relative error of the number below 1e-12."""

    @classmethod
    def of(cls, count: Scaled) -> "Magnitude":
        """From a scaled scalar."""
        return cls(value=float(count.floats()), log10=float(count.log10()))

    @classmethod
    def of_log10(cls, log10: float) -> "Magnitude":
        """From a finite decimal logarithm."""
        return cls(value=10.0**log10 if log10 < LARGEST_LOG10 else math.inf, log10=log10)

    def over(self, divisor: float) -> "Magnitude":
        """Divided by a positive number."""
        return Magnitude(value=self.value / divisor, log10=self.log10 - math.log10(divisor))

    def to_dict(self) -> dict[str, float | None]:
        """Plain values for JSON; None for what JSON cannot hold."""
        return {name: finite_or_none(v) for name, v in (("value", self.value), ("log10", self.log10))}


@dataclass(frozen=True, kw_only=True)
class PathCount:
    """Path-count emergence with one interior: the number of paths from inactive to active units.

    An upper bound on the dimension of the derived functor that it stands for, hence the name.
    """

    interior: Interior
    emergence: Magnitude
    exact: int | None
    """The integer itself: always below 2**53, above only on request."""
    edge_form: Magnitude | None
    """Sum over removed edges u -> v of the paths from v; None unless removed edges were given."""
    per_param: Magnitude | None
    """E / non-zero parameters now; None for a graph without parameters."""
    per_dense_param: Magnitude | None
    """E / parameters before pruning."""
    per_density: Magnitude | None
    """E / (share of the parameters that remain)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; exact integers as they are."""
        plain: dict[str, Any] = {"interior": self.interior.value, "exact": self.exact}
        for name in ("emergence", "edge_form", "per_param", "per_dense_param", "per_density"):
            magnitude: Magnitude | None = getattr(self, name)
            plain[name] = None if magnitude is None else magnitude.to_dict()
        return plain


@dataclass(frozen=True, kw_only=True)
class PrintedCount:
    """The count as the paper prints it: on layer sizes, masks not entering. See `printed`."""

    interior: ClassVar[str] = "printed"
    """Its name in tables, beside the interiors."""
    edge_form: ClassVar[None] = None
    emergence: Magnitude
    exact: int
    per_param: Magnitude | None
    per_dense_param: Magnitude | None
    per_density: Magnitude | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain: dict[str, Any] = {"exact": self.exact}
        for name in ("emergence", "per_param", "per_dense_param", "per_density"):
            size: Magnitude | None = getattr(self, name)
            plain[name] = None if size is None else size.to_dict()
        return plain


@dataclass(frozen=True, kw_only=True, eq=False)
class EmergenceResult(ShownInNotebooks):
    """Path-count emergence of a graph under one activity, with every convention it depends on."""

    graph: str
    counts: tuple[PathCount, ...]
    """One per interior."""
    layers: pl.DataFrame
    """One row per layer: layer, name, kind, n_units, n_active, n_inactive, n_transparent, and for each
    interior `start_<interior>` (share of E that starts there, 0 to 1, null when E = 0) and
    `log10_start_<interior>`."""
    flows: pl.DataFrame | None
    """With `by_end_layer`: interior, start_layer, end_layer, log10, share; pairs without paths are absent."""
    activity: str
    """Rule of the activity, as text."""
    threshold: float | None
    options: EmergenceOptions
    n_units: int
    n_active: int
    n_inactive: int
    n_structural: int
    """Transparent because structural."""
    n_left_out: int
    """Transparent because inputs and outputs are left out."""
    n_unmeasured: int
    """Without known activity; `options.unmeasured` says how they count."""
    n_params: int
    """Parameters before pruning, as used by the relative variants."""
    n_nonzero: int
    edges_followed: dict[EdgeKind, int]
    edges_left_out: dict[EdgeKind, int]
    printed: PrintedCount | None = None
    """The dense closed form on layer sizes; None where the layers are not a chain."""
    not_printed: str | None = None
    """Why there is no printed count."""
    n_nonfinite: int = 0
    """Parameters that are NaN or infinite."""
    scale_free: tuple[PathCount, ...] = ()
    """The counts under rule contribution, which does not depend on the scale of activations; empty where they
    are these, or were not asked for."""
    carried: tuple[PathCount, ...] = ()
    """The counts over edges that carry more than `carried_share`; empty where that was not asked for."""
    carried_share: float | None = None

    @property
    def active(self) -> PathCount:
        """The count with interior "active"."""
        return self.count(Interior.ACTIVE)

    @property
    def any(self) -> PathCount:
        """The count with interior "any"."""
        return self.count(Interior.ANY)

    def count(self, interior: Interior | str) -> PathCount:
        """The count with this interior.

        Raises:
            UsageError: That interior was not counted.
        """
        for count in self.counts:
            if count.interior == interior:
                return count
        raise UsageError(f"Interior '{interior}' was not counted: ask for it with interiors=(...)")

    @property
    def starts(self) -> dict[Interior, tuple[str, float]]:
        """By interior: the layer where most of E starts, and its share; those with E = 0 are left out."""
        found: dict[Interior, tuple[str, float]] = {}
        for count in self.counts:
            shares = self.layers[f"start_{count.interior}"]
            at = shares.arg_max()
            if at is not None and shares[at] is not None:
                found[count.interior] = str(self.layers["name"][at]), float(shares[at])
        return found

    def notes(self) -> list[str]:
        """The conventions and what was left out, as sentences."""
        notes = [
            f"Activity: {self.activity}.",
            f"{self.n_active} active, {self.n_inactive} inactive, {self.n_structural} structural units.",
        ]
        if self.n_left_out:
            notes.append(f"{self.n_left_out} input and output units are left out and transparent.")
        if self.n_unmeasured:
            notes.append(
                f"{self.n_unmeasured} units have no measured activity and count as {self.options.unmeasured}."
            )
        if self.edges_left_out:
            kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(self.edges_left_out.items()))
            notes.append(f"Edges that paths do not follow: {kinds}.")
        if self.n_nonfinite:
            notes.append(f"{self.n_nonfinite} parameters are NaN or infinite; their edges count as all do.")
        if self.options.unroll > 1:
            notes.append(f"Counted on {self.options.unroll} time steps, with a copy of every unit in each.")
        return notes

    @property
    def named_counts(self) -> tuple[PathCount | PrintedCount, ...]:
        """The counts of each interior, and the printed one where there is one: the rows of tables."""
        return self.counts if self.printed is None else (*self.counts, self.printed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "graph", "activity", "threshold", "n_units", "n_active", "n_inactive", "n_structural",
                "n_left_out", "n_unmeasured", "n_params", "n_nonzero",
            )
        }  # fmt: skip
        plain["counts"] = {count.interior.value: count.to_dict() for count in self.counts}
        plain["starts"] = {
            interior.value: {"layer": layer, "share": share}
            for interior, (layer, share) in self.starts.items()
        }
        plain["scale_free"] = {count.interior.value: count.to_dict() for count in self.scale_free}
        if self.carried_share is not None:
            plain["carried_share"] = self.carried_share
            plain["carried"] = {count.interior.value: count.to_dict() for count in self.carried}
        plain["printed"] = None if self.printed is None else self.printed.to_dict()
        plain["not_printed"] = self.not_printed
        plain["options"] = self.options.to_dict()
        plain["edges_followed"] = {kind.value: n for kind, n in self.edges_followed.items()}
        plain["edges_left_out"] = {kind.value: n for kind, n in self.edges_left_out.items()}
        plain["layers"] = self.layers.to_dicts()
        plain["flows"] = None if self.flows is None else self.flows.to_dicts()
        plain["notes"] = self.notes()
        return plain
