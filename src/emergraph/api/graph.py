"""A graph of a store, with everything that can be asked of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from emergraph.api.emergence import GraphEmergence
from emergraph.api.handle import GraphHandle, Progress
from emergraph.api.whatifs import GraphWhatIfs
from emergraph.atomic import write_atomically
from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.graphstore.store import open_store as open_file

if TYPE_CHECKING:
    import igraph
    import networkx as nx
    import numpy as np
    from numpy.typing import NDArray
    from torch_geometric.data import Data, HeteroData

    from emergraph.analysis.comparison.difference import Difference
    from emergraph.analysis.explorer.options import ExplorerOptions
    from emergraph.analysis.report.document import Report
    from emergraph.analysis.topology.options import TopologyOptions
    from emergraph.analysis.topology.topology import TopologyResult
    from emergraph.exporters.export import ExportSummary
    from emergraph.exporters.traces.options import TraceOptions
    from emergraph.exporters.traces.record import TraceSummary
    from emergraph.exporters.traces.samples import RandomInputs
    from emergraph.graphstore.records import EdgeKind


# A graph to look at: as a page, or beside another graph.


@dataclass(frozen=True)
class GraphViews(GraphHandle):
    """A graph to look at: as a page, or beside another graph."""

    def report(self, out: str | Path | None = None) -> "Report":
        """Return what the store knows about the graph: the newest run of each analysis; nothing is run.

        Args:
            out: HTML file to write the page to; it loads nothing and runs no script.

        Raises:
            UsageError: The file cannot be written.
            LimitError: The disk is full.

        Example:
            >>> graph.report("report.html").section("emergence").facts  # doctest: +SKIP
        """
        from emergraph.analysis.report.collect import collect_report

        with self._reader() as reader:
            found = collect_report(reader)
        if out is not None:
            write_atomically(Path(out), found.to_html().encode())
        return found

    def explore(self, out: str | Path, *, options: "ExplorerOptions | None" = None) -> None:
        """Write a page to walk through the graph, layer by layer and edge by edge; it loads nothing.

        Args:
            out: The HTML file.
            options: How many edges are kept on each side of a unit.

        Raises:
            UsageError: The file cannot be written.
            LimitError: The graph has more units than a page is meant for, or the disk is full.

        Example:
            >>> graph.explore("explorer.html")  # doctest: +SKIP
        """
        from emergraph.analysis.explorer.page import explorer_page

        with self._reader() as reader:
            page = explorer_page(reader, options)
        write_atomically(Path(out), page.encode())

    def diff(self, other: GraphHandle, *, match_units: bool = True, seed: int = 0) -> "Difference":
        """Return what differs between this graph and another one, of this or another store.

        Args:
            other: The graph that this one, A, is compared with, B.
            match_units: Seek which hidden unit of A stands for which of B (arXiv 2209.04836).
            seed: Seed of that search.

        Example:
            >>> first.diff(last).verdict  # doctest: +SKIP
        """
        from emergraph.analysis.comparison.difference import compare

        with self._reader() as ours, other._reader() as theirs:  # noqa: SLF001 - of the same class
            return compare(ours, theirs, match=match_units, seed=seed)


# A graph as a network: its measures, and as an object or file of other tools.


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

    def to_hetero_data(self, *, max_edges: int = 50_000_000) -> "HeteroData":
        """Return the unit graph for PyTorch Geometric: a type of node for each layer.

        Raises:
            LimitError: There are more edges than the limit.
            MissingExtraError: torch or torch_geometric is not installed.
        """
        from emergraph.analysis.topology.geometric import to_hetero_data

        with self._reader() as reader:
            return to_hetero_data(reader, max_edges=max_edges)

    def to_weight_graph(self, *, max_edges: int = 50_000_000) -> "Data":
        """Return the unit graph for PyTorch Geometric as one graph of weights, for learning on networks.

        Raises:
            LimitError: There are more edges than the limit.
            MissingExtraError: torch or torch_geometric is not installed.
        """
        from emergraph.analysis.topology.geometric import to_weight_graph

        with self._reader() as reader:
            return to_weight_graph(reader, max_edges=max_edges)

    def convert(self, target: str | Path, to: str, *, max_edges: int | None = None) -> int:
        """Write the unit graph for another tool.

        Args:
            target: File to write; for parquet, model-explorer and attribution-graph a folder. It must not
                exist.
            to: A format of `emergraph.api.conversions.FORMATS`, such as graphml, parquet or pyg.
            max_edges: Most edges; by default that of the format: 5 M for graphml, 50 M for pyg, mostly none.

        Returns:
            Number of edges written.

        Raises:
            UsageError: The format is unknown, or the target exists.
            LimitError: There are more edges than the limit.
        """
        from emergraph.analysis.topology.conversions import convert
        from emergraph.api.conversions import FORMATS

        if to not in FORMATS:
            raise UsageError(unknown("format", to, FORMATS))
        with self._reader() as reader:
            return convert(reader, Path(target), FORMATS[to], max_edges=max_edges)


# What a graph holds: its tables, its edges, its traces.


@dataclass(frozen=True)
class GraphContents(GraphHandle):
    """What a graph holds: its tables, its edges, its traces."""

    @property
    def info(self) -> dict[str, Any]:
        """The row of the table `graphs`."""
        with self._reader() as reader:
            return dict(reader.summary)

    @property
    def name(self) -> str:
        """Its name, unique within the store."""
        with self._reader() as reader:
            return reader.name

    @property
    def layers(self) -> pl.DataFrame:
        """One row per layer, in topological order."""
        with self._reader() as reader:
            return reader.layers()

    @property
    def units(self) -> pl.DataFrame:
        """One row per unit."""
        with self._reader() as reader:
            return reader.units()

    @property
    def blocks(self) -> pl.DataFrame:
        """One row per block of edges."""
        with self._reader() as reader:
            return reader.blocks()

    @property
    def tensors(self) -> pl.DataFrame:
        """One row per parameter tensor, without the values."""
        with self._reader() as reader:
            return reader.tensors()

    @property
    def operations(self) -> pl.DataFrame:
        """One row per operation of the model, as the tracer met it."""
        with self._reader() as reader:
            return reader.operations()

    @property
    def metrics(self) -> pl.DataFrame:
        """Numbers that were recorded about the graph, such as loss and accuracy: name and value."""
        with self._reader() as reader:
            return reader.metrics()

    @property
    def traces(self) -> pl.DataFrame:
        """One row per activation trace, oldest first."""
        with self._reader() as reader:
            return reader.traces()

    def activations(self, trace: str | int | None = None) -> pl.DataFrame:
        """Return one row per unit of a trace, the newest by default."""
        with self._reader() as reader:
            return reader.activations(trace)

    def edges(
        self, kinds: "Iterable[EdgeKind | str] | None" = None, layers: Iterable[int] | None = None
    ) -> pl.DataFrame:
        """Return one row per edge; 60 bytes each, so choose kinds or target layers where there are many."""
        with self._reader() as reader:
            return reader.edges(kinds, layers)

    def trace(
        self,
        samples: "str | Path | RandomInputs | Mapping[str, NDArray[np.generic]]",
        *,
        model: str | Path,
        options: "TraceOptions | None" = None,
        progress: Progress | None = None,
    ) -> "TraceSummary":
        """Run the model on samples and keep, for each unit, statistics and the first values.

        Args:
            samples: A file with one array per input name (.npz), such arrays, or `RandomInputs(n, seed)`.
            model: The file or folder that the graph was exported from; its sha256 must be the graph's.
            options: Name, batches, axes, limits; see `TraceOptions`.
            progress: Called with (samples done, samples in all).

        Raises:
            InvalidInputError: The file is not the graph's model, or the samples do not fit it.
            LimitError: A limit of time or memory was hit; the store is as it was.
        """
        from emergraph.exporters.runtime.inputfile import read_input_file
        from emergraph.exporters.traces.record import record_trace

        given = read_input_file(samples) if isinstance(samples, str | Path) else samples
        with open_file(self.path, mode="write") as opened:
            return record_trace(opened, self.id, model, given, options=options, progress=progress)

    def import_trace(self, path: str | Path, *, name: str | None = None, keep: int = 1024) -> "TraceSummary":
        """Keep activations that were recorded elsewhere.

        Args:
            path: An .npz, .safetensors or Parquet file, one array per layer or tensor name, samples first.
            name: Name of the trace; the file's stem by default.
            keep: Most samples whose values are kept, the first ones.

        Raises:
            InvalidInputError: A name matches no layer, a shape does not fit, or arrays differ in samples.
        """
        from emergraph.exporters.traces.recorded import import_trace

        with open_file(self.path, mode="write") as opened:
            return import_trace(opened, self.id, path, name=name, n_values=keep)


@dataclass(frozen=True)
class Graph(GraphContents, GraphEmergence, GraphWhatIfs, GraphNetwork, GraphViews):
    """One graph of a store on disk. Every call opens the file and closes it again."""

    export_summary: "ExportSummary | None" = None
    """What the export understood; only on the graph that `export` returns."""

    def _repr_html_(self) -> str:
        from emergraph.analysis.notebook import html_of

        about = {name.removeprefix("n_").replace("_", " "): value for name, value in self.info.items()}
        columns = ("id", "name", "op", "kind", "n_units", "n_params")
        return html_of(f"Graph {self.name}", {**about, "layers": self.layers.select(columns).to_dicts()})
