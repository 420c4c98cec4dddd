"""What `emergraph prune` shows."""

from typing import TYPE_CHECKING

from emergraph.cli.output import View

if TYPE_CHECKING:
    from emergraph.analysis.pruning.whatif import PruningResult

SHOWN = (
    *("level", "seed", "kept_parameters", "density", "effective_sparsity", "collapsed_layers"),
    *("disconnected_outputs", "bottleneck_width", "new_dead_units", "coupled_units", "giant_share"),
    *("log10_path_norm_l1", "emergence_active", "emergence_any", "edge_form_active"),
)
"""Columns for people; CSV, JSON and Parquet have all."""


RAN = ("divergence_kl", "relative_mse", "argmax_agreement", "accuracy", "base_accuracy")


def what_if_view(result: "PruningResult") -> View:
    """One line per level: all columns for machines, the telling ones for people."""
    options = result.options
    facts: dict[str, object] = {
        "graph": result.graph,
        "removed": options.where or options.criterion,
        "unit": str(options.pruning_unit),
        "scope": "what the predicate picks" if options.where else options.pruning_scope,
        "items": int(result.frame["items"][0]),
    }
    if first := _first_disconnected(result):
        facts["disconnected"] = f"from level {first:g} on nothing leads from an input to an output"
    shown = SHOWN + tuple(name for name in RAN if result.frame[name].null_count() < result.frame.height)
    return View(rows=result.frame, facts=facts, document=result.to_dict(), notes=result.notes, columns=shown)


def _first_disconnected(result: "PruningResult") -> float | None:
    levels = result.frame.filter(result.frame["disconnected"])["level"]
    return float(levels.min()) if levels.len() else None  # type: ignore[arg-type]
