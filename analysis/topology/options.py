"""Conventions of a topology run."""

from emergraph.graphstore.records import PATH_KINDS, EdgeKind
from emergraph.options import Options, option


class TopologyOptions(Options):
    """What is measured on what."""

    kinds: tuple[EdgeKind, ...] = option(
        default=PATH_KINDS,
        help="Kinds of edges; those without a parameter have strength 1 in weighted measures.",
        metavar="KIND,...",
    )
    alpha: float = option(
        default=0.05,
        help="Level of the disparity filter that makes the backbone, in (0, 1].",
        above=0,
        most=1,
    )
    nulls: int = option(default=3, help="Null draws of the modularity; 0 for none.", least=0)
    seed: int = option(default=0, help="Seed of Leiden and of the nulls.", least=0)
    max_edges: int = option(
        default=1_000_000,
        help="Pairs of units beyond which communities, cores, PageRank, assortativity and rich club are "
        "measured on the backbone.",
        least=0,
    )
    max_paths: float = option(
        default=2e9, help="Units times edges beyond which betweenness (6 to 30 s) is left out.", least=0
    )
    motifs: bool = option(default=True, help="Count motifs of blocks.")
    spectra: bool = option(default=True, help="Diagnose the spectrum of every weight tensor.")
