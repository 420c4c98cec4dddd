"""`emergraph landscape`: how rugged the loss is around a model's own weights."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject, TableSpec
from emergraph.analysis.landscape.options import ModelOptions, ParallelOptions, SurveyOptions, TargetOptions
from emergraph.analysis.view import View, beside
from emergraph.exporters.runtime.inputwords import InputOptions
from emergraph.graphstore.results import Column, ResultTable

if TYPE_CHECKING:
    from emergraph.analysis.figures.figure import Figure
    from emergraph.analysis.landscape.modelsurvey import ModelSurvey

STATISTICS = ResultTable(
    "landscape",
    "One row per ruggedness statistic of a run, with its interval and null.",
    (
        Column("statistic", "VARCHAR", "Name; docs say what it is."),
        Column("mean", "DOUBLE", "Mean over repetitions; NULL where the statistic does not exist."),
        Column("low", "DOUBLE", "Lower end of the interval; NULL when there is none."),
        Column("high", "DOUBLE", "Upper end of the interval; NULL when there is none."),
        Column("sd", "DOUBLE", "Standard deviation over repetitions."),
        Column("n", "INTEGER", "Repetitions (directions, walks, planes or points) that gave a value."),
        Column("n_undefined", "INTEGER", "Repetitions that gave none."),
        Column("level", "DOUBLE", "Coverage of the interval, in (0, 1)."),
        Column("null_value", "DOUBLE", "Value for a quadratic bowl or for no relation; NULL for none."),
        Column("loss", "VARCHAR", "What the losses compare with what."),
    ),
)
LAYERS = ResultTable(
    "landscape_layers",
    "One row per weight tensor of a run: how the loss changes when it alone is perturbed.",
    (
        Column("tensor", "VARCHAR", "tensors.name."),
        Column("operation", "VARCHAR", "Operation or module that uses it."),
        Column("n_params", "BIGINT", "Parameters."),
        Column("rise", "DOUBLE", "Mean rise of the loss over directions, in units of the loss."),
        Column("low", "DOUBLE", "Lower end of the interval of rise."),
        Column("high", "DOUBLE", "Upper end of the interval of rise."),
        Column("n", "INTEGER", "Directions."),
        Column(
            "layer",
            "INTEGER",
            "layers.id of the layer that the tensor leads into (the first one where it is shared); NULL "
            "where the run's graph is not in the store or has no such tensor.",
        ),
        Column("rho_1", "DOUBLE", "Autocorrelation at lag 1 of walks that perturb this tensor alone."),
        Column(
            "excess_ruggedness",
            "DOUBLE",
            "1 - correlation length / that of a bowl along these walks: 0 for a bowl, 1 for noise.",
        ),
        Column("excess_low", "DOUBLE", "Lower end of its interval."),
        Column("excess_high", "DOUBLE", "Upper end of its interval."),
        Column("n_walks", "INTEGER", "Walks."),
    ),
)
POINTS = ResultTable(
    "landscape_points",
    "One row per evaluated point of slices, planes, walks, lines and runs.",
    (
        Column(
            "kind",
            "VARCHAR",
            "slice, plane or walk (random directions); hessian_plane (two leading eigenvectors); line "
            "(to another checkpoint); run (checkpoints of a run), run_plane (its two first components).",
        ),
        Column("number", "INTEGER", "Which slice, plane, walk or checkpoint, from 0."),
        Column(
            "x",
            "DOUBLE",
            "Slice, line: position; planes and runs: along the first direction; walk: step.",
        ),
        Column("y", "DOUBLE", "Planes and runs: along the second direction; NULL otherwise."),
        Column("loss", "DOUBLE", "Loss; NULL where it is not finite."),
    ),
)
MERGE_TREES = ResultTable(
    "landscape_trees",
    "One row per node of the merge tree of a plane; a node's edge leads to its parent.",
    (
        Column("plane", "INTEGER", "Which plane, from 0."),
        Column("node", "INTEGER", "Within the plane; minima first, the global one is 0."),
        Column("kind", "VARCHAR", "minimum or saddle."),
        Column("x", "DOUBLE", "Position along the first direction."),
        Column("y", "DOUBLE", "Position along the second direction."),
        Column("loss", "DOUBLE", "Loss."),
        Column("parent", "INTEGER", "Node above it; NULL for the root."),
        Column(
            "persistence",
            "DOUBLE",
            "Loss at the saddle where the minimum dies less its own; NULL for saddles and for minima "
            "that never die.",
        ),
        Column("basin_cells", "INTEGER", "Cells that drain into it; 0 for saddles."),
    ),
)
MASKS = ResultTable(
    "landscape_masks",
    "One row per mask of the pruning hypercube of a run.",
    (
        Column("state", "INTEGER", "Bit i is 1 where group i is removed."),
        Column("n_removed", "INTEGER", "Groups removed."),
        Column("loss", "DOUBLE", "Loss with these groups set to zero."),
        Column("attractor", "INTEGER", "State that best-improvement descent ends in."),
    ),
)
MASK_GROUPS = ResultTable(
    "landscape_groups",
    "One row per pair of groups of the pruning hypercube; a group with itself holds its main effect.",
    (
        Column("group_a", "INTEGER", "Bit of the first group."),
        Column("group_b", "INTEGER", "Bit of the second group."),
        Column("name_a", "VARCHAR", "Tensors in the first group."),
        Column("name_b", "VARCHAR", "Tensors in the second group."),
        Column(
            "effect",
            "DOUBLE",
            "Mean change of the loss by removing the group; for a pair, by how much the effect of both "
            "differs from the sum of the two.",
        ),
    ),
)
OPTIMA = ResultTable(
    "landscape_optima",
    "One row per node of a local-optima network of a run.",
    (
        Column("network", "VARCHAR", "masks (the pruning hypercube) or descents (sampled in the weights)."),
        Column(
            "form",
            "VARCHAR",
            "full; monotonic (only edges that do not worsen); compressed (optima of equal loss that such "
            "edges join are one node).",
        ),
        Column("node", "INTEGER", "Number within the network and form, from 0."),
        Column("loss", "DOUBLE", "Loss at the optimum."),
        Column("state", "INTEGER", "landscape_masks.state; NULL for descents and compressed nodes."),
        Column("basin", "INTEGER", "Masks that descend to it; NULL for descents and compressed nodes."),
        Column("optima", "INTEGER", "Optima in the node; 1 but for compressed nodes."),
        Column("part_of", "INTEGER", "Node of the compressed form that holds it; itself there."),
        Column("sink", "BOOLEAN", "No edge leaves it: in the compressed form, the bottom of a funnel."),
        Column("in_strength", "DOUBLE", "Weight of the edges that lead to it."),
        Column("out_strength", "DOUBLE", "Weight of the edges that leave it."),
    ),
)
LON = ResultTable(
    "landscape_lon",
    "One row per edge of a local-optima network of a run.",
    (
        Column("network", "VARCHAR", "As in landscape_optima."),
        Column("form", "VARCHAR", "As in landscape_optima."),
        Column("source", "INTEGER", "landscape_optima.node that is left."),
        Column("target", "INTEGER", "landscape_optima.node that is reached."),
        Column("weight", "DOUBLE", "Kicks that lead from one to the other."),
    ),
)
CURVES = ResultTable(
    "landscape_curves",
    "One row per point of a curve of a run.",
    (
        Column(
            "curve",
            "VARCHAR",
            "rho (autocorrelation of walks), mask_rho (exact, of the pruning hypercube), mask_spectrum "
            "(Walsh), hessian_largest, hessian_smallest, hessian_residual, hessian_density (Ritz "
            "values), run_residual.",
        ),
        Column("number", "INTEGER", "Which probe of hessian_density, from 0; 0 for the others."),
        Column(
            "x",
            "DOUBLE",
            "rho: lag; mask_spectrum: order of interaction; hessian_density: eigenvalue; eigenvalues and "
            "residuals: rank from 1; run_residual: checkpoint from 0.",
        ),
        Column(
            "y",
            "DOUBLE",
            "rho: correlation; mask_spectrum: share of the variance; hessian_density: weight, summing to "
            "1 per probe; hessian_largest, _smallest: eigenvalue; hessian_residual: |Hv - lv|/|l|, those "
            "of the largest first; run_residual: distance from the plane.",
        ),
    ),
)
SECTION = SectionSpec(
    id="landscape",
    title="Loss landscape",
    lead="How the loss changes around the model's own weights. Without labels, the loss is the "
    "distance of the outputs from those of the model itself.",
    tables=(
        TableSpec(
            name="landscape",
            title="Ruggedness",
            definition=(
                "Mean over repetitions (directions, walks or planes) with its interval; null: the value for "
                "a quadratic bowl, or for no relation. docs/landscape.md says what each statistic is."
            ),
            query=Query(
                name="rows",
                table="landscape",
                sql="SELECT statistic, mean, low, high, n, null_value FROM landscape WHERE run = {run}",
            ),
        ),
    ),
)


def _figures() -> "Sequence[Figure]":
    from emergraph.analysis.landscape import figures

    return figures.FIGURES


def beside_a_bowl(low: float, high: float) -> str:
    """Say on which side of 0, what a bowl has, the interval of the excess ruggedness lies."""
    return beside(low, clear=low > 0 or high < 0, above="more rugged than", below="smoother than")


def _headline(rows: Sequence[tuple[Any, ...]], _parameters: Mapping[str, Any]) -> str | None:
    if not rows or rows[0][0] is None:
        return None
    mean, low, high = (float("nan") if value is None else value for value in rows[0])
    ends = f"excess {mean:.3g}, interval {low:.3g} to {high:.3g}"
    return f"The loss is {beside_a_bowl(low, high)} a quadratic bowl ({ends})"


def _show(result: "ModelSurvey", run: int | None = None) -> View:
    from emergraph.analysis.landscape.views import survey_view

    return survey_view(result, run)


LANDSCAPE = Analysis(
    name="landscape",
    summary="Measure how rugged the loss landscape is around a model's own weights; no labels needed.",
    of=Subject.MODEL,
    options=(InputOptions, TargetOptions, ModelOptions, ParallelOptions, SurveyOptions),
    show=_show,
    tables=(STATISTICS, LAYERS, POINTS, MERGE_TREES, MASKS, MASK_GROUPS, OPTIMA, LON, CURVES),
    section=SECTION,
    figures=_figures,
    measures=(
        Query(
            name="landscape",
            table="landscape",
            sql="SELECT statistic, mean, low, high FROM landscape WHERE run = {run}",
        ),
    ),
    headline=Headline(
        query=Query(
            name="ruggedness",
            table="landscape",
            sql="""
            SELECT mean, low, high FROM landscape WHERE run = {run} AND statistic = 'excess_ruggedness'""",
        ),
        text=_headline,
    ),
)
