"""A graph as a network: its measures, and as an object or file of other tools."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emergraph.api.handle import GraphHandle

if TYPE_CHECKING:
    import igraph
    import networkx as nx

    from emergraph.analysis.topology.options import TopologyOptions
    from emergraph.analysis.topology.topology import TopologyResult


@dataclass(frozen=True)
class GraphNetwork(GraphHandle):
    """A graph as a network: its measures, and as an object or file of other tools."""

    def topology(self, *, options: "TopologyOptions | None" = None, save: bool = True) -> "TopologyResult":
        """Measure strengths, communities, cores, centralities, backbone, motifs and spectra.

        Args:
            options: Kinds of edges, level of the backbone, limits.
            save: Keep the result in the store; the table `topology_units` joins with `units`.

        Raises:
            UsageError: An option makes no sense.
            LimitError: More edges than memory is meant for.
        """
        from emergraph.analysis.topology.options import TopologyOptions

        found: TopologyResult = self.analyse("topology", options or TopologyOptions(), save=save)
        return found

    def to_igraph(self, *, max_edges: int = 20_000_000) -> "igraph.Graph":
        """Return the unit graph for igraph, with vertex and edge attributes.

        Raises:
            LimitError: There are more edges than the limit.
        """
        from emergraph.analysis.topology.conversions import to_igraph

        with self._reader() as reader:
            return to_igraph(reader, max_edges=max_edges)

    def to_networkx(self, *, max_edges: int = 1_000_000) -> "nx.MultiDiGraph":
        """Return the unit graph for networkx, which takes about 1 kB per edge.

        Raises:
            LimitError: There are more edges than the limit.
            MissingExtraError: networkx is not installed.
        """
        from emergraph.analysis.topology.conversions import to_networkx

        with self._reader() as reader:
            return to_networkx(reader, max_edges=max_edges)

    def convert(self, target: str | Path, to: str, *, max_edges: int | None = None) -> int:
        """Write the unit graph as graphml, parquet (edges and units, in a folder) or edgelist.

        Args:
            target: File to write; for parquet a folder. It must not exist.
            to: graphml, parquet or edgelist.
            max_edges: Most edges; by default 5 M for graphml, no limit for the others.

        Returns:
            Number of edges written.

        Raises:
            UsageError: The format is unknown, or the target exists.
            LimitError: There are more edges than the limit.
        """
        from emergraph.analysis.topology.conversions import convert

        with self._reader() as reader:
            return convert(reader, Path(target), to, max_edges=max_edges)
