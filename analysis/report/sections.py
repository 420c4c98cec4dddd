"""What the sections of a report are: their questions, figures and tables, and what would fill them."""

from dataclasses import dataclass

from emergraph.analysis.report import tables
from emergraph.analysis.report.document import TableSpec


@dataclass(frozen=True, kw_only=True)
class SectionSpec:
    """A section before it is filled."""

    id: str
    title: str
    lead: str
    command: str
    """What would fill it, with STORE, MODEL and GRAPH in it."""
    figures: tuple[str, ...] = ()
    tables: tuple[TableSpec, ...] = ()


SECTIONS = (
    SectionSpec(
        id="map",
        title="Layers and what leads where",
        lead=(
            "The layers that the model's operations produce, and the blocks of edges between them. A unit "
            "is a neuron (a channel, a feature, a gate) or structural (a sum, a product, an attention "
            "score)."
        ),
        command="emergraph export MODEL STORE",
        figures=("layers",),
        tables=(tables.LAYERS, tables.KINDS, tables.OPAQUE),
    ),
    SectionSpec(
        id="emergence",
        title="Emergence",
        lead=(
            "How many paths lead from units that are silent to units that are active. The number depends "
            "on the threshold of activity and on conventions, so it is shown with its sweep, and never "
            "alone."
        ),
        command="emergraph emergence STORE --graph GRAPH --full",
        figures=("emergence-sweep", "emergence-nulls", "emergence-layers"),
        tables=(tables.EMERGENCE, tables.INTERVALS, tables.NULLS, tables.BASELINES),
    ),
    SectionSpec(
        id="pruning",
        title="Pruning",
        lead="What removing weights would do to the graph, level by level. Nothing in the model is changed.",
        command="emergraph prune STORE --graph GRAPH",
        figures=("pruning", "pruning-runs"),
        tables=(tables.PRUNING,),
    ),
    SectionSpec(
        id="landscape",
        title="Loss landscape",
        lead=(
            "How the loss changes around the model's own weights. Without labels, the loss is the "
            "distance of the outputs from those of the model itself."
        ),
        command="emergraph landscape MODEL --store STORE",
        figures=(
            *("landscape-slices", "landscape-plane", "landscape-walks", "landscape-hessian"),
            "landscape-layers",
        ),
        tables=(tables.LANDSCAPE,),
    ),
    SectionSpec(
        id="percolation",
        title="Percolation",
        lead=(
            "Edges are added one by one, and the network grows together. The null models say what is special "
            "about it."
        ),
        command="emergraph percolate STORE --graph GRAPH",
        figures=("percolation",),
        tables=(tables.PERCOLATION,),
    ),
    SectionSpec(
        id="topology",
        title="Topology and spectra",
        lead=(
            "The graph as a network: strengths, communities, cores, centralities; and the spectra of its "
            "weights."
        ),
        command="emergraph topology STORE --graph GRAPH",
        figures=("strengths", "strength-layers", "spectra"),
        tables=(tables.TOPOLOGY, tables.CENTRAL),
    ),
    SectionSpec(
        id="information",
        title="Information",
        lead="What the layers keep and lose about inputs and labels.",
        command="emergraph information MODEL --store STORE",
        figures=("information",),
    ),
    SectionSpec(
        id="skills",
        title="Skills",
        lead="Models of what is learned, and when.",
        command="emergraph skills fit FILE --store STORE",
    ),
    SectionSpec(
        id="training",
        title="Training",
        lead="What was recorded with snapshots during training.",
        command="a Recorder in the training script, see docs/pytorch.md",
        figures=("training", "trajectory"),
    ),
)
"""In the order of a report; the summary comes before them, and how the report was made after them."""

PREFIXES = {
    "emergence": "emergence",
    "trajectory": "training",
    "prune": "pruning",
    "landscape": "landscape",
    "percolate": "percolation",
    "topology": "topology",
    "information": "information",
    "skills": "skills",
}
"""Section of the runs of a command; result tables that no figure and no table asks for are shown there."""
