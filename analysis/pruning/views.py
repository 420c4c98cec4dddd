"""What is shown of what pruning would do."""

from typing import TYPE_CHECKING

from emergraph.analysis.view import View

if TYPE_CHECKING:
    from pathlib import Path

    from emergraph.analysis.pruning.sensitivity import SensitivityResult
    from emergraph.analysis.pruning.whatif import PruningResult

MAX_REASONS = 6
"""Lines that say why removed units stay."""
SHOWN = (
    *("level", "seed", "kept_parameters", "density", "effective_sparsity", "collapsed_layers"),
    *("disconnected_outputs", "bottleneck_width", "new_dead_units", "coupled_units", "giant_share"),
    *("log10_path_norm_l1", "emergence_active", "emergence_any", "edge_form_active"),
)
"""Columns for people; CSV, JSON and Parquet have all."""

RAN = (
    *("divergence_kl", "relative_mse", "argmax_agreement", "accuracy", "base_accuracy"),
    *("emergence_active_remeasured", "flops", "flops_if_removed", "file_bytes_if_removed"),
)
"""Columns for people where the model was run."""


def result_view(result: "PruningResult | SensitivityResult") -> View:
    """Return what is shown of any result of `prune`."""
    from emergraph.analysis.pruning.whatif import PruningResult

    return what_if_view(result) if isinstance(result, PruningResult) else sensitivity_view(result)


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


def written_lines(result: "PruningResult", path: "Path | None") -> list[str]:
    """What to say about a pruned model that was written or stored."""
    written = result.written
    if written is None:
        return []
    lines = [] if path is None else [f"Wrote {path}"]
    report = written.report
    if report is not None:
        cut = (
            f"{report.cut_units} of {report.removed_units} removed units"
            if report.removed_units
            else f"{report.channels_before - report.channels_after} channels that nothing needs"
        )
        lines.append(
            f"Smaller: {cut} cut out; "
            f"{report.parameters_after:,} of {report.parameters_before:,} weights and "
            f"{written.bytes_after:,} of {written.bytes_before:,} bytes are left; outputs differ from the "
            f"masked model's by {written.difference:.1e} of their size"
        )
        lines += [
            f"Stays as zeros: {count} removed unit{'s' * (count > 1)} whose channel {reason}"
            for reason, count in list(report.kept.items())[:MAX_REASONS]
        ]
        if (more := len(report.kept) - MAX_REASONS) > 0:
            lines.append(f"Stays as zeros: more for {more} other reasons, in --format json")
    if written.branches:
        lines.append(f"The smaller model holds one branch only: {', '.join(written.branches[:3])}")
    if written.graph is not None:
        lines.append(f"Stored graph {written.graph_name} (id {written.graph})")
    return lines


def sensitivity_view(result: "SensitivityResult") -> View:
    """Layers by levels."""
    facts: dict[str, object] = {
        "graph": result.graph,
        "removed": result.options.criterion,
        "unit": str(result.options.pruning_unit),
        "measure": result.measure,
        "most fragile": ", ".join(result.fragile),
    }
    return View(rows=result.heat_map, facts=facts, document=result.to_dict(), notes=result.notes)
