"""What is shown of what pruning would do."""

from typing import TYPE_CHECKING

from emergraph.analysis.view import View, evenly, first_and_last

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

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

BRIEF = (
    *("level", "seed", "kept_parameters", "disconnected_outputs", "new_dead_units", "emergence_active"),
    *("relative_mse", "argmax_agreement", "accuracy"),
)
"""Columns that people see unless they ask for all."""
AGREES = 0.99
"""Share of inputs with the same decision from which a model is said to answer the same."""

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
    from emergraph.analysis.pruning.whatif import COLUMN_NOTES

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
    return View(
        finding=_what_if_finding(result),
        rows=result.frame,
        facts=facts,
        document=result.to_dict(),
        notes=[note for note in result.notes if note not in COLUMN_NOTES.values()],
        explains={column: note for column, note in COLUMN_NOTES.items() if note in result.notes},
        columns=shown,
        brief=[_levels_that_matter(result.frame)],
    )


def _what_if_finding(result: "PruningResult") -> str:
    """How far pruning goes before an output is cut off, and what is not known."""
    frame, options = result.frame, result.options
    what = "units" if options.pruning_unit == "unit" else "parameters"
    whole = frame.filter((frame["disconnected_outputs"] == 0) & ~frame["disconnected"])
    if options.where:
        lost = int(frame["disconnected_outputs"].max() or 0)  # type: ignore[arg-type]
        lost_text = "no output is" if not lost else f"{lost} output{'s are' if lost > 1 else ' is'}"
        said = f"Without the {what} of the predicate, {lost_text} cut off"
    elif not whole.height:
        said = "An output is cut off at every level"
    else:
        level = float(whole["level"].max())  # type: ignore[arg-type]
        share = f"{100 * level:.3g} %"
        said = f"Up to {share} of the {what} can go by {options.criterion} before an output is cut off"
        if (first := _first_cut(frame)) is not None:
            said += f" (the first at {100 * first:.3g} %)"
    said += _beside_the_other_scope(result)
    if frame["argmax_agreement"].null_count() == frame.height:
        return f"{said}. What the outputs do is not measured: give --model FILE --inputs FILE.npz."
    same = frame.filter(frame["argmax_agreement"] >= AGREES)
    kept = f"{100 * float(same['level'].max()):.3g} %" if same.height else "no level"  # type: ignore[arg-type]
    return f"{said}; decisions stay the same on {100 * AGREES:g} % of the inputs up to {kept}."


_SCOPE_WORDS = {"global": "of all layers together", "layer": "of each layer"}


def _beside_the_other_scope(result: "PruningResult") -> str:
    """Which scope goes further, where there are two to compare."""
    own = result.options.pruning_scope
    for other, level in result.reaches.items():
        if other != own:
            reach = "none" if level is None else f"{100 * level:.3g} %"
            return (
                f", with the smallest {_SCOPE_WORDS[own]}; with the smallest {_SCOPE_WORDS[other]} {reach} "
                f"(--scope {other})"
            )
    return ""


def _first_cut(frame: "pl.DataFrame") -> float | None:
    cut = frame.filter((frame["disconnected_outputs"] > 0) | frame["disconnected"])["level"]
    return float(cut.min()) if cut.len() else None  # type: ignore[arg-type]


def _levels_that_matter(frame: "pl.DataFrame") -> "pl.DataFrame":
    """Ten levels with the columns to decide by; where nothing reaches an output, a remark instead of E."""
    import polars as pl

    shown = [name for name in BRIEF if name in frame.columns and frame[name].null_count() < frame.height]
    first = _first_cut(frame)
    short = evenly(frame)
    if first is not None:
        at = frame.filter(frame["level"] == first)
        short = pl.concat([short, at]).unique(maintain_order=True).sort("level", maintain_order=True)
    gone = pl.col("disconnected")
    values = [
        pl.when(gone).then(None).otherwise(pl.col(name)).alias(name)
        if name.startswith("emergence_")
        else pl.col(name)
        for name in shown
    ]
    remark = (
        pl.when(gone)
        .then(pl.lit("nothing leads from an input to an output"))
        .when(pl.col("disconnected_outputs") > 0)
        .then(pl.lit("outputs cut off"))
        .otherwise(pl.lit(""))
        .alias("remark")
    )
    return short.select(*values, remark)


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
    if report is None and path is not None:
        size = f"{written.bytes_after:,} of {written.bytes_before:,} bytes are left"
        lines.append(
            f"Masked: {written.zeroed_parameters:,} parameters are zero, which take as much room as others; "
            f"{size}. To make the file smaller, compress it, or cut out channels: --unit unit --smaller"
        )
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
    return View(
        finding=f"Most fragile by {result.measure}: {', '.join(result.fragile[:3]) or '-'}; prune last.",
        rows=result.heat_map,
        brief=[first_and_last(result.heat_map)],
        facts=facts,
        document=result.to_dict(),
        notes=result.notes,
    )
