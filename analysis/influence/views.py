"""What is shown of knock-outs."""

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.influence.options import Method
from emergraph.analysis.view import BRIEF_ROWS, View

if TYPE_CHECKING:
    from emergraph.analysis.influence.contributions import ContributionResult
    from emergraph.analysis.influence.results import CircuitResult, InfluenceResult

MOST_NAMED = 5
HALF = 0.5
SHOWN = (
    *("what", "layer_name", "position", "effect", "low", "high", "largest", "target_change", "decisions"),
    "n",
)
"""Columns for people."""


def influence_view(result: "InfluenceResult") -> View:
    """The knock-outs, largest effect first, layers before heads before units."""
    names = pl.col("layer").replace_strict(result.layer_names, return_dtype=pl.String)
    first = pl.col("layer").replace_strict(result.first_units, return_dtype=pl.Int64)
    order = pl.col("what").replace_strict({"layer": 0, "head": 1, "unit": 2}, return_dtype=pl.Int64)
    rows = result.frame.with_columns(layer_name=names, position=pl.col("unit") - first, order=order)
    rows = rows.sort("order", "effect", descending=[False, True], nulls_last=True).drop("order")
    columns: tuple[str, ...] = SHOWN
    if result.attributions is not None:
        rows = rows.join(result.attributions.select("unit", "attribution"), on="unit", how="left")
        columns = (*SHOWN, "attribution")
    silent = result.structure_only
    facts: dict[str, object] = {
        "graph": result.graph,
        "output": result.output,
        "effect": "KL divergence, nats" if result.measure == "kl" else "mean squared difference",
        "replaced by": result.baseline,
        "samples": result.n_samples,
        "structure only": f"{silent.height} units never moved {result.output}",
        **_attribution_facts(result),
    }
    notes = [f"layer {layer} is left out: {why}" for layer, why in result.left_out.items()]
    by_way: dict[str, list[str]] = {}
    for layer, how in result.runs.items():
        by_way.setdefault(how, []).append(layer)
    for how, layers in by_way.items():
        notes.append(f"{_named(layers)}: {how}")
    return View(
        finding=_influence_finding(result, rows),
        rows=rows,
        brief=[rows.select(columns).head(BRIEF_ROWS)],
        columns=columns,
        facts=facts,
        document=result.to_dict(),
        notes=notes,
    )


def _attribution_facts(result: "InfluenceResult") -> dict[str, object]:
    if result.agreement is None:
        return {}
    how = f"{ATTRIBUTED[result.method]}, by {result.converter}"
    if result.gap is not None:
        how += f"; of the output, {result.gap:.2g} from adding up"
    return {"attribution": how, "order by it against knock-outs": _agreement(result)}


ATTRIBUTED = {Method.GRADIENT: "activation x gradient", Method.INTEGRATED: "integrated gradients"}


def _agreement(result: "InfluenceResult") -> str:
    """The rank correlations of all units, with and without what differs between layers."""
    assert result.agreement is not None  # noqa: S101 - by the caller
    parts = []
    for scope, n, rho, low, high in (
        result.agreement.filter(pl.col("layer").is_null()).select("scope", "n_units", "rho", "low", "high")
    ).iter_rows():
        ends = "" if low is None else f" ({low:.2f} to {high:.2f})"
        said = "undefined" if rho is None else f"{rho:.2f}{ends}"
        parts.append(f"{said} {'over all ' if scope == 'all' else ''}{n if scope == 'all' else scope}")
    return "Spearman " + ", ".join(parts) if parts else "too few units to compare"


def _named(layers: Sequence[str]) -> str:
    return ", ".join(layers[:MOST_NAMED]) + (", ..." if len(layers) > MOST_NAMED else "")


def contribution_view(result: "ContributionResult") -> View:
    """The edges, target by target, the strongest first."""
    rows = result.frame
    starts = sorted((first, layer) for layer, first in result.first_units.items())
    firsts = pl.Series([first for first, _ in starts], dtype=pl.Int64)
    for column, name in (("src", "source"), ("dst", "target")):
        place = firsts.search_sorted(rows[column].fill_null(0), side="right") - 1
        layers = pl.Series([result.layer_names[starts[k][1]] for k in place], dtype=pl.String)
        known = pl.col(column).is_not_null()
        unit = rows[column] - firsts.gather(place)
        rows = rows.with_columns(pl.when(known).then(layers).alias(name), unit.alias(f"{name}_unit"))
    checked = "in no tensor" if result.worst is None else f"within {result.worst:.2g} of their absolute sum"
    facts: dict[str, object] = {
        "graph": result.graph,
        "samples": result.n_samples,
        "targets": result.n_targets,
        "sum to the pre-activation": checked,
    }
    notes = [f"layer {layer} is left out: {why}" for layer, why in result.left_out.items()]
    if result.unchecked:
        notes.append(f"{_named(result.unchecked)}: no tensor of the model shows what the terms sum to")
    return View(
        finding=_contribution_finding(result, rows),
        rows=rows,
        columns=("target", "target_unit", "source", "source_unit", "kind", "mean", "mean_abs", "share"),
        facts=facts,
        document=result.to_dict(),
        notes=notes,
    )


def _contribution_finding(result: "ContributionResult", rows: pl.DataFrame) -> str:
    """How few edges carry half of what flows, and the one that carries most."""
    edges = rows.filter(pl.col("src").is_not_null() & (pl.col("share") > 0))
    if not edges.height:
        return f"Nothing flows into the {result.n_targets} units on {result.n_samples} samples."
    flows = pl.col("share").sort(descending=True).cum_sum()
    needed = edges.group_by("dst").agg(((flows < HALF).sum() + 1).alias("n"), pl.col("share").sum())
    needed = needed.filter(pl.col("share") >= HALF)
    few = ""
    if needed.height:
        median = float(str(needed["n"].median()))
        few = (
            f"Half of what flows into a unit comes along {median:g} edge{'s' * (median != 1)} (median over "
            f"{needed.height} units, {result.n_samples} samples); "
        )
    top = edges.sort("share", "mean_abs", descending=True).row(0, named=True)
    said = (
        f"{few}the edge from {top['source']}:{top['source_unit']} carries most of a unit, "
        f"{100 * top['share']:.3g} % of what flows into {top['target']}:{top['target_unit']}."
    )
    return f"{said[0].upper()}{said[1:]}"


def _influence_finding(result: "InfluenceResult", rows: pl.DataFrame) -> str:
    """What matters most, and how much does nothing."""
    moved = rows.filter(pl.col("effect") > 0)
    units = rows.filter((pl.col("what") == "unit") & (pl.col("n") > 0))
    silent = result.structure_only.height
    idle = f"; {silent} of {units.height} units never moved it" if units.height else ""
    if not moved.height:
        return f"No knock-out moved {result.output} on {result.n_samples} samples{idle}."
    first = moved.row(0, named=True)
    place = first["layer_name"] if first["position"] is None else f"{first['layer_name']}:{first['position']}"
    unit = "nats" if result.measure == "kl" else "squared"
    return (
        f"{result.output} changes most without {first['what']} {place}: {first['effect']:.3g} {unit} on "
        f"average over {result.n_samples} samples, replaced by {result.baseline}{idle}.{_order(result)}"
    )


def _order(result: "InfluenceResult") -> str:
    """How far gradients order units as knock-outs do: never left out, since they mislead."""
    if result.agreement is None:
        return ""
    return f" {ATTRIBUTED[result.method].capitalize()} order units as knock-outs do: {_agreement(result)}."


def circuit_view(result: "CircuitResult") -> View:
    """The circuit's units, and the curve."""
    names = pl.col("layer").replace_strict(result.layer_names, return_dtype=pl.String)
    first = pl.col("layer").replace_strict(result.first_units, return_dtype=pl.Int64)
    units = result.units.with_columns(layer_name=names, position=pl.col("unit") - first)
    kept = result.kept
    facts: dict[str, object] = {
        "graph": result.graph,
        "output": result.output,
        "behaviour": "one number of it" if result.measure == "target" else f"all of it, by {result.measure}",
        "others replaced by": result.baseline,
        "samples": result.n_samples,
        "circuit": f"{units.height} of {result.n_candidates} units",
        "kept": f"{kept.mean:.3g} (over samples, which chose the units: {kept.low:.3g} to {kept.high:.3g})"
        if isfinite(kept.low)
        else f"{kept.mean:.3g}",
        "kept without it": f"{result.without.mean:.3g}",
        **_edge_facts(result),
        "area under the curve": ", ".join(f"{name} {area:.3g}" for name, area in result.areas.items()),
        "runs": result.n_runs,
    }
    notes = (
        [] if result.minimal else ["the share is not kept by any set that was found: units may be missing"]
    )
    if result.without.mean >= result.share:
        notes.append("the units outside of the circuit keep the share, too: another circuit suffices")
    some = f" ({kept.low:.2g} to {kept.high:.2g})" if isfinite(kept.low) else ""
    least = "and none of them can be left out" if result.minimal else "but fewer may do"
    return View(
        finding=f"{units.height} of {result.n_candidates} units keep {kept.mean:.2g}{some} of the behaviour "
        f"on {result.n_samples} samples, {least}; the others alone keep {result.without.mean:.2g}.",
        rows=units,
        columns=("layer_name", "position", "rank", "effect", "without"),
        details=result.curve,
        facts=facts,
        document=result.to_dict(),
        notes=notes,
    )


def _edge_facts(result: "CircuitResult") -> dict[str, object]:
    found = result.searched
    if found is None:
        return {}
    tried = "" if found.minimal is not None else ", too many to leave out one by one"
    return {
        "edges": f"{found.frame.height} of {found.n_candidates} weights{tried}",
        "kept with these edges alone": f"{found.kept.mean:.3g}",
        "kept without these edges": f"{found.without.mean:.3g}",
    }


def circuit_rows(result: "CircuitResult") -> dict[str, pl.DataFrame]:
    """The rows of the tables of circuits."""
    row = {
        "measure": result.measure,
        "share": result.share,
        "n_candidates": result.n_candidates,
        "n_units": result.units.height,
        "kept": result.kept.mean,
        "spread_low": result.kept.low if isfinite(result.kept.low) else None,
        "spread_high": result.kept.high if isfinite(result.kept.high) else None,
        "kept_without": result.without.mean,
        "minimal": result.minimal,
        "area": result.areas["influence"],
        "area_magnitude": result.areas["magnitude"],
        "area_random": result.areas["random"],
        "n_samples": result.n_samples,
        "n_runs": result.n_runs,
    }
    found = result.searched
    whole = {
        "n_edges": pl.Int64,
        "n_edge_candidates": pl.Int64,
        "edges_kept": pl.Float64,
        "edges_kept_without": pl.Float64,
        "edges_minimal": pl.Boolean,
    }
    row |= dict.fromkeys(whole)
    if found is not None:
        row |= {"n_edges": found.frame.height, "n_edge_candidates": found.n_candidates}
        row |= {"edges_kept": found.kept.mean, "edges_kept_without": found.without.mean}
        row["edges_minimal"] = found.minimal
    return {
        "circuits": pl.DataFrame(
            [row],
            schema_overrides={**dict.fromkeys(("spread_low", "spread_high"), pl.Float64), **whole},
        ),
        "circuit_units": result.units,
        "circuit_edges": result.edges,
        "circuit_curve": result.curve,
    }
