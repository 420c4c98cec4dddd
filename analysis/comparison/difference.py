"""The difference of two graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import polars as pl

from emergraph.analysis.comparison.cutting import on_common_units
from emergraph.analysis.comparison.deltas import Delta, delta, finite_pair, oriented, unit_deltas
from emergraph.analysis.comparison.matching import MatchedBy, Matching, Pair, digest, match_weights
from emergraph.analysis.comparison.model import read_model
from emergraph.analysis.comparison.unitmatching import Link, UnitMatching, match_units
from emergraph.analysis.comparison.weights import Matrix, Weight, values_of, weights_of
from emergraph.analysis.figures.reading import newest_run, question
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.registry import Known, known_to
from emergraph.graphstore.reader import GraphReader
from emergraph.steps import steps

# Layers of two graphs: which stand for each other, and which are new or gone.

LAYERS = {
    "state": pl.String,
    "name_a": pl.String,
    "name_b": pl.String,
    "op": pl.String,
    "units_a": pl.Int64,
    "units_b": pl.Int64,
    "parameters_a": pl.Int64,
    "parameters_b": pl.Int64,
}


def compared_layers(a: GraphReader, b: GraphReader, matching: Matching, changed: set[str]) -> pl.DataFrame:
    """Return one row per layer of A, those that only B has last.

    Two layers stand for each other when tensors that lead into them were matched, or when they have the same
    name. A pair is `changed` when its units differ in number, or a tensor that leads into it changed or has
    no counterpart.

    Args:
        a: The first graph.
        b: The second one.
        matching: Their weight tensors.
        changed: Names of tensors of A that changed.
    """
    ours = {row["name"]: row for row in a.layers().iter_rows(named=True)}
    theirs = {row["name"]: row for row in b.layers().iter_rows(named=True)}
    partner: dict[str, str] = {}
    touched: set[str | None] = set()
    for pair in matching.pairs:
        if pair.a.layer is None or pair.b.layer is None:
            continue
        if pair.a.layer not in partner and pair.b.layer not in partner.values():
            partner[pair.a.layer] = pair.b.layer
        if pair.a.name in changed:
            touched.add(pair.a.layer)
    for name in ours:
        if name not in partner and name in theirs and name not in partner.values():
            partner[name] = name
    touched |= {weight.layer for weight in matching.only_a}
    unmatched = {weight.layer for weight in matching.only_b}
    touched |= {name for name, other in partner.items() if other in unmatched}
    rows = [_row(row, theirs.get(partner.get(name, "")), touched) for name, row in ours.items()]
    rows += [_row(None, row, touched) for name, row in theirs.items() if name not in partner.values()]
    return pl.DataFrame(rows, schema=LAYERS)


def _row(
    a: dict[str, object] | None, b: dict[str, object] | None, touched: set[str | None]
) -> dict[str, object]:
    known = a or b or {}
    if a is None or b is None:
        state = "added" if a is None else "removed"
    else:
        same = a["n_units"] == b["n_units"] and a["name"] not in touched
        state = "same" if same else "changed"
    return {
        "state": state,
        "name_a": a and a["name"],
        "name_b": b and b["name"],
        "op": known["op"],
        "units_a": a and a["n_units"],
        "units_b": b and b["n_units"],
        "parameters_a": a and a["n_params"],
        "parameters_b": b and b["n_params"],
    }


def free_layers(reader: GraphReader, links: Sequence[Link]) -> dict[str, int]:
    """Return the hidden layers whose units could be numbered otherwise, with their numbers of units.

    All blocks into and out of such a layer are matrices that were compared, and its units are neither inputs
    nor outputs: a residual sum or an attention head would tie its units to others.
    """
    names = dict(reader.layers().select("id", "name").iter_rows())
    sizes = dict(reader.layers().select("name", "n_units").iter_rows())
    ends = set(reader.units().filter(pl.col("role") != "hidden")["layer"].unique().to_list())
    compared = {(link.src, link.dst) for link in links}
    tied = {names[layer] for layer in ends}
    leads_out = set()
    for block in reader.blocks_info():
        target = names[block.layer]
        source = None if block.src_layer is None else names[block.src_layer]
        if source is None or (source, target) not in compared:
            tied |= {target} | {names[layer] for layer in _sources(reader, block.id)}
        else:
            leads_out.add(source)
    return {name: sizes[name] for name in sizes if name in leads_out and name not in tied}


def _sources(reader: GraphReader, block: int) -> list[int]:
    rows = reader.connection.execute("SELECT src_layers FROM blocks WHERE id = ?", [block]).fetchall()
    return list(rows[0][0] or ())


# What was measured on both graphs, side by side.

MEASURES = {
    "analysis": pl.String,
    "measure": pl.String,
    "a": pl.Float64,
    "b": pl.Float64,
    "change": pl.Float64,
    "low_a": pl.Float64,
    "high_a": pl.Float64,
    "low_b": pl.Float64,
    "high_b": pl.Float64,
    "overlap": pl.Boolean,
}
_COUNTS = ("n_layers", "n_units", "n_neurons", "n_edges", "n_parameters")


def _compared_measures(sides: Sequence[tuple[GraphReader, Known]]) -> pl.DataFrame:
    """Return one row per measure that is known of A or B: analysis, measure, a, b, change, intervals.

    `change` is b - a; `overlap` says whether the intervals meet, null where one of them is missing. They are
    of the newest run of each analysis; where A and B were measured with other settings, the names differ and
    nothing is paired.
    """
    rows = []
    for (analysis, measure), (ours, theirs) in _paired(*(_measures_of(*side) for side in sides)).items():
        x, low_a, high_a = ours
        y, low_b, high_b = theirs
        rows.append(
            {
                "analysis": analysis,
                "measure": measure,
                "a": x,
                "b": y,
                "change": None if x is None or y is None else y - x,
                "low_a": low_a,
                "high_a": high_a,
                "low_b": low_b,
                "high_b": high_b,
                "overlap": _overlap((low_a, high_a), (low_b, high_b)),
            }
        )
    return pl.DataFrame(rows, schema=MEASURES)


Triple = tuple[float | None, float | None, float | None]
Key = tuple[str, str]
_NOTHING: Triple = (None, None, None)


def _overlap(a: tuple[float | None, float | None], b: tuple[float | None, float | None]) -> bool | None:
    """Whether two intervals meet; None where an end is missing."""
    if a[0] is None or a[1] is None or b[0] is None or b[1] is None:
        return None
    return a[0] <= b[1] and b[0] <= a[1]


def _paired(a: Mapping[Key, Triple], b: Mapping[Key, Triple]) -> dict[Key, tuple[Triple, Triple]]:
    keys = dict.fromkeys([*a, *b])
    return {key: (a.get(key, _NOTHING), b.get(key, _NOTHING)) for key in keys}


def _measures_of(reader: GraphReader, known: Known) -> dict[Key, Triple]:
    found: dict[Key, Triple] = {
        ("graph", name.removeprefix("n_")): (float(str(reader.summary[name])), None, None) for name in _COUNTS
    }
    for name, value in reader.metrics().iter_rows():
        found["recorded", name] = (value, None, None)
    for measure in (measure for analysis in known.analyses for measure in analysis.measures):
        run = newest_run(reader, measure)
        if run is not None:
            sql = question(measure, reader.id, run.id)
            for name, value, low, high in reader.connection.execute(sql).fetchall():
                found[measure.name, str(name)] = (value, low, high)
    return found


LARGEST = 2048
"""Units of a layer beyond which its units are not matched: the assignment takes cubic time."""
TENSORS = {
    "tensor_a": pl.String, "tensor_b": pl.String, "layer": pl.String, "matched_by": pl.String,
    "reordered": pl.Boolean,
    "n_params": pl.Int64, "dtype_a": pl.String, "dtype_b": pl.String, "rms_change": pl.Float64,
    "relative_change": pl.Float64, "max_change": pl.Float64, "sign_flips": pl.Int64,
    "share_flipped": pl.Float64, "cosine": pl.Float64,
}  # fmt: skip


class Verdict(StrEnum):
    """The difference in a word."""

    EQUAL = "equal"
    """All weights of one are weights of the other, to the last bit, and as many connections carry them."""
    REORDERED = "equal up to the order of units"
    """The same, but some tensors hold their numbers in another order."""
    SAME_WEIGHTS = "same weights, connected otherwise"
    CHANGED = "changed weights"
    """The tensors are the same, their values are not."""
    DIFFERENT = "different"
    """Some tensors have no counterpart."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Difference(ShownInNotebooks):
    """What differs between two graphs, A and B."""

    a: str
    b: str
    verdict: Verdict
    tensors: pl.DataFrame
    """One row per pair of weight tensors: names, how they were matched, and the change from A to B."""
    units: pl.DataFrame
    """One row per target unit of a pair with edges that changed: tensor, layer, unit (its position), l2_a,
    l2_delta, relative, sign_flips, cosine; the largest relative changes first."""
    layers: pl.DataFrame
    """One row per layer: state (same, changed, added, removed), name_a, name_b, op, units and parameters."""
    measures: pl.DataFrame
    """One row per measure, see `_compared_measures`."""
    only_a: tuple[str, ...]
    """Weight tensors of A without a counterpart."""
    only_b: tuple[str, ...]
    not_compared: tuple[str, ...]
    """Tensors of A whose values, or those of their counterparts, cannot be told: quantized without scales."""
    not_finite: tuple[str, ...]
    """Tensors of A that hold NaN or infinity, or whose counterparts do; measures leave those out."""
    relative_change: float | None
    """Root mean square of the change of all compared weights, over that of A's weights."""
    sign_flips: int
    cosine: float | None
    """Of all compared weights."""
    matching: UnitMatching | None
    """Permutations of hidden units; None where weights are equal or none can be permuted."""
    cut_out: str = ""
    """Where one may be the other without some of its units: how many those are."""
    cut_cosine: float | None = None
    """Of the weights of the units that both may have, as they are stored."""
    problems: tuple[str, ...] = ()
    """One line for each plug-in that cannot be used, whose measures are missing."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {
            name: getattr(self, name)
            for name in (
                "a", "b", "relative_change", "sign_flips", "cosine", "only_a", "only_b", "not_compared",
                "not_finite", "cut_out", "cut_cosine",
            )
        }  # fmt: skip
        plain |= {"verdict": self.verdict.value}
        for name in ("layers", "tensors", "measures", "units"):
            plain[name] = getattr(self, name).to_dicts()
        plain["unit_matching"] = None
        if self.matching is not None:
            plain["unit_matching"] = {
                "moved": self.matching.n_moved,
                "cosine_before": self.matching.similarity_before,
                "cosine_after": self.matching.similarity_after,
                "permutations": {k: v.tolist() for k, v in self.matching.permutations.items()},
            }
        return plain


def compare(a: GraphReader, b: GraphReader, *, match: bool = True, seed: int = 0) -> Difference:
    """Return what differs between two graphs.

    Args:
        a: The first graph.
        b: The second one.
        match: Also seek which hidden unit of A stands for which of B.
        seed: Seed of that search.
    """
    matching = match_weights(
        weights_of(a), weights_of(b), lambda w: values_of(a, w), lambda w: values_of(b, w)
    )
    with np.errstate(over="ignore", invalid="ignore"):  # squares of huge weights; what has none is None
        return _compared(a, b, matching, match=match, seed=seed)


def _compared(a: GraphReader, b: GraphReader, matching: Matching, *, match: bool, seed: int) -> Difference:
    changes, totals = _Changes(), _Totals()
    links: list[Link] = []
    for pair in steps(matching.pairs, "tensors"):
        if pair.by is MatchedBy.CONTENT:
            same = Delta(rms=0.0, relative=0.0, max_abs=0.0, sign_flips=0, cosine=1.0)
            changes.add(pair, same, None, reordered=False)
            ours = theirs = values_of(a, pair.a) if match else None
        else:
            ours, theirs = oriented(values_of(a, pair.a), values_of(b, pair.b))
            if ours is None or theirs is None:
                changes.not_compared.append(pair.a.name)
                continue
            same_digest = digest(ours) == digest(theirs)
            ours, theirs = changes.finite(pair, ours, theirs)
            change = delta(ours, theirs)
            reordered = not change.is_equal and same_digest
            changes.add(pair, change, unit_deltas(ours, theirs), reordered=reordered)
        if ours is not None and theirs is not None:
            ours, theirs = changes.finite(pair, ours, theirs)
            totals.add(ours, theirs)
            links += _links(a, pair, ours, theirs)
    verdict = _verdict(a, b, matching, changes)
    permuted = None
    if match and verdict in (Verdict.CHANGED, Verdict.DIFFERENT, Verdict.REORDERED):
        free = [layer for layer, size in free_layers(a, links).items() if size <= LARGEST]
        permuted = match_units(links, free, seed=seed) if free else None
    cut_out, cut_cosine = "", None
    if match and matching.only_a and matching.only_b:
        cut_out, cut_cosine = _cut_out(a, b, seed=seed)
    changed_names = {row["tensor_a"] for row in changes.rows if row["max_change"]}
    sides = [(side, known_to(side.connection)) for side in (a, b)]
    return Difference(
        a=a.name,
        b=b.name,
        verdict=verdict,
        tensors=pl.DataFrame(changes.rows, schema=TENSORS),
        units=changes.units(),
        layers=compared_layers(a, b, matching, changed_names),
        measures=_compared_measures(sides),
        only_a=tuple(weight.name for weight in matching.only_a),
        only_b=tuple(weight.name for weight in matching.only_b),
        not_compared=tuple(changes.not_compared),
        not_finite=tuple(changes.not_finite),
        relative_change=totals.relative(),
        sign_flips=sum(row["sign_flips"] for row in changes.rows),
        cosine=totals.cosine(),
        matching=permuted,
        cut_out=cut_out,
        cut_cosine=cut_cosine,
        problems=tuple(dict.fromkeys(line for _, known in sides for line in known.problems)),
    )


def _cut_out(a: GraphReader, b: GraphReader, *, seed: int) -> tuple[str, float | None]:
    """How many units of one the other may lack, and the cosine of the weights of those that both have."""
    ours, theirs, (_, told) = on_common_units(read_model(a, a.name), read_model(b, b.name), seed=seed)
    if not told:
        return "", None
    totals = _Totals()
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        totals.add(ours.values[one.name], theirs.values[other.name])
    return told, totals.cosine()


class _Changes:
    """Rows about pairs of tensors and their units."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.frames: list[pl.DataFrame] = []
        self.not_compared: list[str] = []
        self.not_finite: dict[str, bool] = {}
        """Tensors with values that are not finite, and whether A and B differ in them."""

    def finite(self, pair: Pair, ours: Matrix, theirs: Matrix) -> tuple[Matrix, Matrix]:
        """Leave entries out that are not finite in one of the two, and remember the pair."""
        a, b, differ = finite_pair(ours, theirs)
        if a is not ours or b is not theirs:
            self.not_finite.setdefault(pair.a.name, differ)
        return a, b

    def add(self, pair: Pair, change: Delta, units: pl.DataFrame | None, *, reordered: bool) -> None:
        self.rows.append(
            {
                "tensor_a": pair.a.name,
                "tensor_b": pair.b.name,
                "layer": pair.a.layer,
                "matched_by": pair.by.value,
                "reordered": reordered,
                "n_params": pair.a.n_params,
                "dtype_a": pair.a.dtype,
                "dtype_b": pair.b.dtype,
                "rms_change": change.rms,
                "relative_change": change.relative,
                "max_change": change.max_abs,
                "sign_flips": change.sign_flips,
                "share_flipped": change.sign_flips / pair.a.n_params,
                "cosine": change.cosine,
            }
        )
        if units is not None and not change.is_equal and pair.a.block is not None:
            about = units.with_columns(tensor=pl.lit(pair.a.name), layer=pl.lit(pair.a.layer))
            self.frames.append(about.select("tensor", "layer", *units.columns))

    def units(self) -> pl.DataFrame:
        if not self.frames:
            return pl.DataFrame(schema={"tensor": pl.String, "layer": pl.String, "unit": pl.Int64})
        return pl.concat(self.frames).sort("relative", descending=True, nulls_last=True, maintain_order=True)


class _Totals:
    """Sums over all compared weights."""

    def __init__(self) -> None:
        self.aa = self.bb = self.ab = self.dd = 0.0

    def add(self, a: Matrix, b: Matrix) -> None:
        self.aa += float(np.sum(a * a))
        self.bb += float(np.sum(b * b))
        self.ab += float(np.sum(a * b))
        self.dd += float(np.sum((b - a) ** 2))

    def relative(self) -> float | None:
        return finite_or_none(float(np.sqrt(self.dd / self.aa))) if self.aa else None

    def cosine(self) -> float | None:
        norms = float(np.sqrt(self.aa * self.bb))
        return finite_or_none(float(np.minimum(1.0, self.ab / norms))) if norms else None


def _links(reader: GraphReader, pair: Pair, a: Matrix, b: Matrix) -> list[Link]:
    """The pair as weights between two layers, where it is a matrix between whole layers."""
    block = pair.a.block
    if block is None or block.src_layer is None or pair.a.layer is None or not block.n_src:
        return []
    if a.shape[0] != block.n_dst or a.shape[1] % block.n_src:
        return []
    names = dict(reader.layers().select("id", "name").iter_rows())
    shape = (block.n_dst, block.n_src, -1)
    return [Link(src=names[block.src_layer], dst=pair.a.layer, a=a.reshape(shape), b=b.reshape(shape))]


def _verdict(a: GraphReader, b: GraphReader, matching: Matching, changes: _Changes) -> Verdict:
    left = [*matching.only_a, *matching.only_b]
    moved = [row for row in changes.rows if row["max_change"]]
    differ = any(changes.not_finite.values())
    other = [row for row in moved if not row["reordered"]]
    if other or differ or changes.not_compared or (left and not _leftovers_equal(a, b, matching)):
        return Verdict.DIFFERENT if left else Verdict.CHANGED
    if _connections(a) != _connections(b):
        return Verdict.SAME_WEIGHTS
    return Verdict.REORDERED if moved else Verdict.EQUAL


def _leftovers_equal(a: GraphReader, b: GraphReader, matching: Matching) -> bool:
    """Whether tensors without a counterpart hold the same numbers, cut into tensors differently."""
    ours, theirs = _sorted_values(a, matching.only_a), _sorted_values(b, matching.only_b)
    return ours is not None and theirs is not None and bool(np.array_equal(ours, theirs, equal_nan=True))


def _sorted_values(reader: GraphReader, weights: Sequence[Weight]) -> Matrix | None:
    parts = [values_of(reader, weight) for weight in weights]
    known = [part.reshape(-1) for part in parts if part is not None]
    return np.sort(np.concatenate(known)) if known and len(known) == len(parts) else None


def _connections(reader: GraphReader) -> int:
    """Edges that carry parameters."""
    sql = "SELECT sum(n_edges) FROM blocks WHERE graph = ? AND tensor IS NOT NULL"
    return int(reader.connection.execute(sql, [reader.id]).fetchall()[0][0] or 0)
