"""`emergraph topology`: a graph as a network, and the spectra of its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Any

from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject, TableSpec
from emergraph.analysis.topology.options import TopologyOptions
from emergraph.analysis.view import View, beside, first_and_last
from emergraph.errors import UsageError
from emergraph.graphstore.results import Column, ResultTable
from emergraph.options import Options, option

if TYPE_CHECKING:
    import polars as pl

    from emergraph.analysis.access import GraphAccess
    from emergraph.analysis.figures.figure import Figure
    from emergraph.analysis.topology.topology import TopologyResult

MEASURES = ResultTable(
    "topology",
    "One row per measure of a whole graph.",
    (
        Column("measure", "VARCHAR", "Name of the measure."),
        Column("value", "DOUBLE", "Its value; NULL where there is none."),
        Column("on", "VARCHAR", "What it was measured on: graph or backbone."),
    ),
)
UNITS = ResultTable(
    "topology_units",
    "One row per unit of a run.",
    (
        Column("unit", "INTEGER", "units.id within the run's graph."),
        Column("in_degree", "BIGINT", "Edges into the unit."),
        Column("out_degree", "BIGINT", "Edges out of the unit."),
        Column("in_strength", "DOUBLE", "Sum of the weights into the unit."),
        Column("out_strength", "DOUBLE", "Sum of the weights out of the unit."),
        Column("in_abs", "DOUBLE", "Sum of their absolute values, in."),
        Column("out_abs", "DOUBLE", "Sum of their absolute values, out."),
        Column("strength", "DOUBLE", "in_strength + out_strength."),
        Column("strength_abs", "DOUBLE", "in_abs + out_abs."),
        Column("strength_with_bias", "DOUBLE", "strength plus the unit's bias."),
        Column("community", "BIGINT", "Leiden community, 0 for the largest."),
        Column("coreness", "BIGINT", "Largest k such that the unit is in the k-core."),
        Column("pagerank", "DOUBLE", "PageRank, weighted, damping 0.85."),
        Column("betweenness", "DOUBLE", "Shortest directed paths through the unit; NULL: not measured."),
    ),
)
LAYERS = ResultTable(
    "topology_layers",
    "One row per layer of a run.",
    (
        Column("layer", "INTEGER", "layers.id."),
        Column("name", "VARCHAR", "layers.name."),
        Column("n_units", "INTEGER", "Units."),
        Column("sources", "INTEGER", "Layers with an edge into this one."),
        Column("targets", "INTEGER", "Layers with an edge from this one."),
        Column("betweenness", "DOUBLE", "Of the layer graph, directed, unweighted."),
        Column("pagerank", "DOUBLE", "Of the layer graph, weighted by absolute weight."),
        Column("strength_mean", "DOUBLE", "Mean absolute strength (in + out) of its units."),
        Column("strength_p05", "DOUBLE", "Percentile 5 of the absolute strengths of its units."),
        Column("strength_median", "DOUBLE", "Their median."),
        Column("strength_p95", "DOUBLE", "Percentile 95."),
        Column("strength_max", "DOUBLE", "Largest absolute strength."),
        Column("fluctuation", "DOUBLE", "Standard deviation of its units' signed strengths."),
        Column("fluctuation_with_bias", "DOUBLE", "The same with biases added."),
    ),
)
BLOCKS = ResultTable(
    "topology_blocks",
    "One row per block of parameters of a run.",
    (
        Column("block", "INTEGER", "blocks.id."),
        Column("name", "VARCHAR", "Name of the operation."),
        Column("layer", "INTEGER", "Target layer: layers.id."),
        Column("n_edges", "BIGINT", "Edges."),
        Column("persistence", "DOUBLE", "Neural persistence, p = 2, weights over the network's largest."),
        Column("persistence_normalised", "DOUBLE", "The same over its upper bound, in [0, 1]."),
        Column("diverging", "BIGINT", "Pairs of edges with a common source."),
        Column("converging", "BIGINT", "Pairs of edges with a common target."),
        Column("butterflies", "BIGINT", "Complete 2 x 2 subgraphs; NULL where not counted."),
    ),
)
RICH_CLUB = ResultTable(
    "topology_rich_club",
    "One row per degree of a run.",
    (
        Column("k", "BIGINT", "Degree."),
        Column("n_units", "BIGINT", "Units of a higher degree."),
        Column("phi", "DOUBLE", "Density of edges among them, in [0, 1]."),
    ),
)
SPECTRA = ResultTable(
    "spectra",
    "One row per weight tensor of a run.",
    (
        Column("tensor", "VARCHAR", "tensors.name."),
        Column("layer", "INTEGER", "Target layer of its first use; NULL where the graph has none."),
        Column("rows", "INTEGER", "Rows of each matrix."),
        Column("columns", "INTEGER", "Columns of each matrix."),
        Column("matrices", "INTEGER", "Matrices whose eigenvalues are pooled (kernel positions)."),
        Column("alpha", "DOUBLE", "Exponent of the power-law tail; NULL where nothing fits."),
        Column("d", "DOUBLE", "Kolmogorov-Smirnov distance of the fit, in [0, 1]."),
        Column("x_min", "DOUBLE", "Smallest eigenvalue of the tail."),
        Column("n_tail", "INTEGER", "Eigenvalues in the tail."),
        Column("n_eigenvalues", "INTEGER", "All of them."),
        Column("alpha_hat", "DOUBLE", "alpha * log10(largest eigenvalue)."),
        Column("stable_rank", "DOUBLE", "Sum of eigenvalues over the largest."),
        Column("log_norm", "DOUBLE", "log10 of the squared Frobenius norm."),
        Column("log_spectral_norm", "DOUBLE", "log10 of the squared spectral norm."),
        Column("log_alpha_norm", "DOUBLE", "log10 of the sum of eigenvalues to the power alpha."),
        Column("entropy", "DOUBLE", "Entropy of the spectrum over the log of the rank, in [0, 1]."),
        Column("status", "VARCHAR", "ok, short tail (fewer than 10 eigenvalues) or no fit."),
    ),
)
SECTION = SectionSpec(
    id="topology",
    title="Topology and spectra",
    lead="The graph as a network: strengths, communities, cores, centralities; and the spectra of its "
    "weights.",
    tables=(
        TableSpec(
            name="topology",
            title="Measures of the whole graph",
            definition=(
                "Measured on the graph, or on its backbone where there are too many edges; docs/topology.md "
                "has the definitions."
            ),
            query=Query(
                name="rows",
                table="topology",
                sql='SELECT measure, "value", "on" AS measured_on FROM topology WHERE run = {run}',
            ),
        ),
        TableSpec(
            name="central-units",
            title="The strongest units",
            definition=(
                "The ten units with the largest sum of absolute weights in and out. Coreness and PageRank "
                "by igraph."
            ),
            query=Query(
                name="rows",
                table="topology_units",
                sql="""
SELECT l.name AS layer, u.position, u.role, t.in_abs + t.out_abs AS strength, t.in_degree, t.out_degree,
       t.coreness, t.pagerank
FROM topology_units AS t
JOIN units AS u ON u.graph = {graph} AND u.id = t.unit
JOIN layers AS l ON l.graph = {graph} AND l.id = u.layer
WHERE t.run = {run} ORDER BY strength DESC, t.unit LIMIT 10""",
            ),
        ),
    ),
)


class Part(StrEnum):
    """A table of a result."""

    LAYERS = "layers"
    BLOCKS = "blocks"
    UNITS = "units"
    SPECTRA = "spectra"
    RICH_CLUB = "rich-club"


class TopologyLook(Options):
    """What is shown of a topology."""

    view: Part = option(
        default=Part.LAYERS, help="Second table: layers, blocks, units, spectra or rich-club."
    )


def _check(options: TopologyOptions, look: TopologyLook) -> None:
    if look.view is Part.SPECTRA and not options.spectra:
        raise UsageError("--view spectra shows what --no-spectra leaves out: drop one of them")


def _run(at: "GraphAccess", options: TopologyOptions) -> "TopologyResult":
    from emergraph.analysis.topology.topology import topology
    from emergraph.analysis.topology.weightspectra import weight_spectra

    bias = at.reader.units()["bias"].fill_null(float("nan")).to_numpy()
    result = topology(at.units(), bias=bias, options=options)
    if options.spectra and not at.reader.lacks_weights:
        spectra, left_out = weight_spectra(at.reader)
        result = replace(result, spectra=spectra, notes=(*result.notes, *left_out))
    at.keep(notes=list(result.notes))
    return result


def _rows(result: "TopologyResult") -> dict[str, "pl.DataFrame"]:
    found = {
        MEASURES.name: result.measures,
        UNITS.name: result.units,
        LAYERS.name: result.layers,
        BLOCKS.name: result.blocks,
        RICH_CLUB.name: result.rich_club,
    }
    return found if result.spectra is None else found | {SPECTRA.name: result.spectra}


def _show(result: "TopologyResult", look: TopologyLook) -> View:
    chosen = getattr(result, look.view.replace("-", "_"))
    facts = {"graph": result.graph, "alpha of the backbone": result.options.alpha}
    document = result.to_dict() | ({"units": result.units.to_dicts()} if look.view is Part.UNITS else {})
    common: dict[str, Any] = {
        "finding": finding_of(
            dict(result.measures.select("measure", "value").iter_rows()), draws=result.options.nulls
        ),
        "facts": facts,
        "document": document,
        "notes": result.notes,
    }
    if look.view is Part.LAYERS:
        layers = first_and_last(chosen.select("layer", "name", "n_units", "strength_mean", "strength_max"))
        known = result.measures.drop_nulls("value")
        return View(rows=result.measures, details=chosen, brief=[known, layers], **common)
    return View(rows=chosen, brief=[first_and_last(chosen)], **common)


def finding_of(measures: Mapping[str, float | None], *, draws: int) -> str:
    """How many units hang together, and how modular they are beside draws of the null model.

    Args:
        measures: By name.
        draws: Of the null model.
    """
    from emergraph.analysis.statistics.intervals import is_clear

    found = {name: value for name, value in measures.items() if value is not None and isfinite(value)}
    if not {"units", "components"} <= found.keys():
        return "Nothing was measured on the graph as a whole."
    units, components = int(found["units"]), int(found["components"])
    said = f"{units:,} units in {components:,} component{'s' * (components != 1)}"
    z = found.get("modularity, z")
    if z is None or not {"communities", "modularity, null mean"} <= found.keys():
        return f"{said}; communities were not compared with a null model that varies."
    told = beside(z, clear=is_clear(z, draws), above="more modular than", below="less modular than")
    return (
        f"{said}, {int(found['communities'])} communities: {told} the same edges with shuffled weights "
        f"(modularity {found['modularity']:.3g} against {found['modularity, null mean']:.3g}, z = {z:.2g}, "
        f"{draws} draws)."
    )


def _figures() -> "Sequence[Figure]":
    from emergraph.analysis.topology import figures

    return figures.FIGURES


def _headline(rows: Sequence[tuple[Any, ...]], parameters: Mapping[str, Any]) -> str:
    return finding_of(dict(rows), draws=int(parameters["nulls"])).rstrip(".")


TOPOLOGY = Analysis(
    name="topology",
    summary="Measure a graph as a network, and the spectra of its weights.",
    of=Subject.GRAPH,
    options=(TopologyOptions,),
    looks=(TopologyLook,),
    examples="""
    emergraph topology net.duckdb
    emergraph topology net.duckdb --view spectra --format csv
    emergraph topology net.duckdb --view units --no-spectra --alpha 0.01 --out units.parquet
    """,
    check=_check,
    run=_run,
    rows=_rows,
    show=_show,
    tables=(MEASURES, UNITS, LAYERS, BLOCKS, RICH_CLUB, SPECTRA),
    section=SECTION,
    figures=_figures,
    measures=(
        Query(
            name="topology",
            table="topology",
            sql="""SELECT measure, "value", NULL, NULL FROM topology WHERE run = {run}""",
        ),
    ),
    headline=Headline(
        query=Query(
            name="topology",
            table="topology",
            sql="""SELECT measure, "value" FROM topology WHERE run = {run}""",
        ),
        text=_headline,
    ),
)
