"""`emergraph prune`: what pruning a model would do, without touching it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject, TableSpec
from emergraph.analysis.pruning.options import ActivityChoice, PruningOptions, RunOptions
from emergraph.graphstore.results import Column, ResultTable

if TYPE_CHECKING:
    from emergraph.analysis.figures.figure import Figure
    from emergraph.analysis.pruning.sensitivity import SensitivityResult
    from emergraph.analysis.pruning.whatif import PruningResult
    from emergraph.analysis.view import View

RUN_COLUMNS = ("divergence_kl", "relative_mse", "argmax_agreement", "accuracy", "base_accuracy")
"""Columns that runs of the model fill, see `modelruns`."""

REMEASURED = ("emergence_active_remeasured", "emergence_any_remeasured")
"""Columns of E with the activity of the pruned model itself."""
COST_COLUMNS = ("flops", "flops_if_removed", "file_bytes_if_removed")
"""Columns that need the model's file, see `smaller.ModelCosts`."""
_EMERGENCE = [
    column
    for interior in ("active", "any")
    for column in (
        Column(
            f"emergence_{interior}",
            "DOUBLE",
            f"E of the masked graph, interior {interior}, activity of the base.",
        ),
        Column(f"log10_emergence_{interior}", "DOUBLE", "Its decimal logarithm; NULL where E is 0."),
        Column(f"per_param_{interior}", "DOUBLE", "E / non-zero parameters that are left."),
        Column(f"per_dense_param_{interior}", "DOUBLE", "E / parameters of the model."),
        Column(f"per_density_{interior}", "DOUBLE", "E / density."),
        Column(
            f"edge_form_{interior}",
            "DOUBLE",
            "Sum over removed edges of the paths that start at their target in the masked graph.",
        ),
    )
]
LEVELS = ResultTable(
    "pruning_levels",
    "One row per what-if of a pruning run.",
    (
        Column("level", "DOUBLE", "Share of the items to remove, in [0, 1)."),
        Column("seed", "BIGINT", "Seed of a random criterion; NULL for others."),
        Column("items", "BIGINT", "Items that could be removed."),
        Column("removed_items", "BIGINT", "Items removed: exactly round(level * items) per group."),
        Column("kept_parameters", "BIGINT", "Non-zero parameters of the model that are left."),
        Column("density", "DOUBLE", "They over all parameters of the model, in [0, 1]."),
        Column("kept_edges", "BIGINT", "Prunable edges that are left."),
        Column("sparsity", "DOUBLE", "1 - kept / all prunable parameters, exact zeros included."),
        Column("compression", "DOUBLE", "All prunable parameters / kept."),
        Column("effective_sparsity", "DOUBLE", "The same, counting only what lies on an input-output path."),
        Column("effective_compression", "DOUBLE", "The same for compression; infinite when nothing does."),
        Column(
            "bytes_if_removed",
            "DOUBLE",
            "Bytes of all parameters less those removed, as stored; NULL if unknown.",
        ),
        Column("collapsed_layers", "INTEGER", "Layers that keep no prunable weight."),
        Column("effectively_collapsed_layers", "INTEGER", "Layers with no weight on an input-output path."),
        Column("disconnected_outputs", "INTEGER", "Output units that no input reaches."),
        Column("disconnected", "BOOLEAN", "True when no prunable weight lies on an input-output path."),
        Column("bottleneck_width", "INTEGER", "Fewest units on input-output paths in a layer with weights."),
        Column("bottleneck_layer", "VARCHAR", "That layer."),
        Column("dead_units", "INTEGER", "Hidden neurons on no input-output path."),
        Column("new_dead_units", "INTEGER", "Those that were on one before."),
        Column("coupled_units", "INTEGER", "Removed units whose channel a residual sum still needs."),
        Column("giant_share", "DOUBLE", "Share of units in the largest connected component, in (0, 1]."),
        Column(
            "log10_path_norm_l1",
            "DOUBLE",
            "Log of the sum over paths of |w| products (SynFlow's R); NULL for 0.",
        ),
        Column(
            "log10_path_norm_l2",
            "DOUBLE",
            "Log of the root of the sum over paths of w**2 products; NULL for 0.",
        ),
        *_EMERGENCE,
        Column(
            "divergence_kl",
            "DOUBLE",
            "Mean KL divergence of base from pruned outputs, nats; NULL without runs.",
        ),
        Column("relative_mse", "DOUBLE", "Squared error of outputs over squared outputs of the base."),
        Column(
            "argmax_agreement", "DOUBLE", "Share of rows of the first output with the same largest entry."
        ),
        Column("accuracy", "DOUBLE", "Share of labels that the pruned model gets right."),
        Column("base_accuracy", "DOUBLE", "The same for the base model."),
        Column(
            "emergence_active_remeasured",
            "DOUBLE",
            "E, interior active, with the activity of the pruned model itself; NULL without runs.",
        ),
        Column("emergence_any_remeasured", "DOUBLE", "The same for interior any."),
        Column(
            "flops",
            "DOUBLE",
            "Two per multiply-add of a weight that is not zero, for one sample; NULL without the model.",
        ),
        Column("flops_if_removed", "DOUBLE", "The same of the structurally smaller model."),
        Column(
            "file_bytes_if_removed",
            "DOUBLE",
            "Size of the model file less the weights that were cut out.",
        ),
    ),
)
SENSITIVITY = ResultTable(
    "pruning_sensitivity",
    "One row per layer and level of a sensitivity run: that layer is pruned alone.",
    (
        Column("layer", "VARCHAR", "Name of the layer."),
        Column("level", "DOUBLE", "Share of the layer's items to remove, in [0, 1)."),
        Column("items", "BIGINT", "Items of the layer that could be removed."),
        Column("removed_items", "BIGINT", "Items removed."),
        Column("flow_lost", "DOUBLE", "Share of the sum over paths of |w| products that is lost, in [0, 1]."),
        *(column for column in LEVELS.columns if column.name in (*RUN_COLUMNS, *COST_COLUMNS)),
        Column("accuracy_lost", "DOUBLE", "base_accuracy - accuracy; NULL without labels."),
    ),
)
SECTION = SectionSpec(
    id="pruning",
    title="Pruning",
    lead="What removing weights would do to the graph, level by level. Nothing in the model is changed.",
    tables=(
        TableSpec(
            name="pruning",
            title="Levels",
            definition=(
                "Level: share of the items removed. Density: non-zero parameters left over all. New dead "
                "units: hidden neurons that lose their last path between inputs and outputs."
            ),
            query=Query(
                name="rows",
                table="pruning_levels",
                sql="""
SELECT level, density, effective_sparsity, collapsed_layers, disconnected_outputs, new_dead_units,
       bottleneck_width, log10_emergence_active, accuracy
FROM pruning_levels WHERE run = {run} ORDER BY level, seed LIMIT 60""",
            ),
        ),
    ),
)


def _figures() -> "Sequence[Figure]":
    from emergraph.analysis.pruning import figures

    return figures.FIGURES


def _show(result: "PruningResult | SensitivityResult") -> "View":
    from emergraph.analysis.pruning.views import result_view

    return result_view(result)


def _headline(rows: Sequence[tuple[Any, ...]], parameters: Mapping[str, Any]) -> str:
    level = rows[0][0]
    how = f"by {parameters.get('criterion')}"
    if level is None:
        return f"No level of pruning {how} cuts an output off"
    return f"Pruning {how} cuts an output off, or empties a layer, at {100 * level:.3g} % and above"


PRUNE = Analysis(
    name="prune",
    summary="Say what pruning would do to sparsity, paths, dead units and emergence, level by level.",
    of=Subject.GRAPH,
    options=(PruningOptions, ActivityChoice, RunOptions),
    show=_show,
    tables=(LEVELS, SENSITIVITY),
    section=SECTION,
    figures=_figures,
    measures=(
        Query(
            name="pruning",
            table="pruning_levels",
            sql="""
            SELECT 'highest level without collapse',
                   max(level) FILTER (collapsed_layers = 0 AND disconnected_outputs = 0), NULL, NULL
            FROM pruning_levels WHERE run = {run}
        """,
        ),
    ),
    headline=Headline(
        query=Query(
            name="pruning",
            table="pruning_levels",
            sql="""
            SELECT min(level) FROM pruning_levels
            WHERE run = {run} AND (collapsed_layers > 0 OR disconnected_outputs > 0)""",
        ),
        text=_headline,
    ),
)
