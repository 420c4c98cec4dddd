"""A graph of a store, with everything that can be asked of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from emergraph.analysis.comparison.options import MatchOptions
from emergraph.analysis.explorer.options import ExplorerOptions
from emergraph.api.analyses import GraphAnalyses, GraphEmergence
from emergraph.api.handle import GraphHandle, Progress, weights_of
from emergraph.api.keywords import with_options
from emergraph.api.whatifs import GraphWhatIfs
from emergraph.atomic import write_atomically
from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.exporters.traces.options import SampleOptions, TraceOptions
from emergraph.graphstore.store import open_store as open_file

if TYPE_CHECKING:
    import igraph
    import networkx as nx
    import numpy as np
    from numpy.typing import NDArray
    from torch_geometric.data import Data, HeteroData

    from emergraph.analysis.comparison.difference import Difference
    from emergraph.analysis.report.document import Report
    from emergraph.exporters.export import ExportSummary
    from emergraph.exporters.runtime.inputfile import InputFile
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

    @with_options(ExplorerOptions)
    def explore(
        self,
        out: str | Path = "explorer.html",
        *,
        options: tuple[ExplorerOptions],
        model: str | Path | None = None,
        verify: bool = False,
        root: str | Path | None = None,
    ) -> None:
        """Write a page to walk through the graph, layer by layer and edge by edge; it loads nothing.

        Args:
            out: The HTML file.
            model: What the graph was exported from; needed where edges stayed there.
            verify: Check all tensors of the model first, not each when it is read.
            root: Folder inside which files of the model may be symbolic links.

        Raises:
            UsageError: The file cannot be written.
            LimitError: The graph has more units than a page is meant for, or the disk is full.

        Example:
            >>> graph.explore("explorer.html")  # doctest: +SKIP
        """
        from emergraph.analysis.explorer.page import explorer_page

        models = [] if model is None else [model]
        with weights_of(*models, root=root, verify=verify), self._reader() as reader:
            page = explorer_page(reader, options[0])
        write_atomically(Path(out), page.encode())

    def plot(self, figure: str | None = None, *, out: str | Path | None = None) -> Any:  # noqa: ANN401
        """Return a figure of what the store holds, which a notebook shows; without a name, a table of all.

        Args:
            figure: Its name, such as "emergence-sweep"; `plot()` lists them.
            out: Also write it to this file, whose name ends in .svg, .png or .html.

        Returns:
            An altair chart, to be changed or saved like any other; for the map of layers, which altair does
            not draw, a picture with its `svg`. Without a name a frame: figure, shows, state.

        Raises:
            UsageError: There is no such figure, or the store has nothing to draw; the message says what
                would make it.

        Example:
            >>> graph.plot("emergence-sweep").properties(width=300)  # doctest: +SKIP
        """
        from emergraph.api.figures import figure_bytes, figure_chart, figure_list

        with self._reader() as reader:
            if figure is None:
                return figure_list(reader)[0]
            chart, _ = figure_chart(reader, figure)
        if out is not None:
            write_atomically(Path(out), figure_bytes(chart, Path(out)))
        return chart

    @with_options(MatchOptions)
    def diff(self, other: GraphHandle, *, options: tuple[MatchOptions]) -> "Difference":
        """Return what differs between this graph and another one, of this or another store.

        Args:
            other: The graph that this one, A, is compared with, B.

        Example:
            >>> first.diff(last).verdict  # doctest: +SKIP
        """
        from emergraph.analysis.comparison.difference import compare

        with self._reader() as ours, other._reader() as theirs:  # noqa: SLF001 - of the same class
            return compare(ours, theirs, match=options[0].match_units, seed=options[0].seed)


# A graph for other tools: as an object, or as a file.


@dataclass(frozen=True)
class GraphNetwork(GraphHandle):
    """A graph for other tools: as an object, or as a file."""

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
            to: graphml, parquet, edgelist, model-explorer, pyg, pyg-weights or attribution-graph.
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

    @with_options(SampleOptions, TraceOptions)
    def trace(
        self,
        samples: "str | Path | RandomInputs | Mapping[str, NDArray[np.generic]] | None" = None,
        *,
        options: tuple[SampleOptions, TraceOptions],
        model: str | Path | None = None,
        progress: Progress | None = None,
    ) -> "TraceSummary":
        """Run the model on samples and keep, for each unit, statistics and the first values.

        Args:
            samples: A file with one array per input name (.npz), or such arrays; none with `random` or
                `recorded`.
            model: The file or folder that the graph was exported from; its sha256 must be the graph's.
            progress: Called with (samples done, samples in all).

        Raises:
            InvalidInputError: The file is not the graph's model, or the samples do not fit it.
            UsageError: There are no samples, or several kinds of them.
            LimitError: A limit of time or memory was hit; the store is as it was.
        """
        from emergraph.exporters.runtime.inputfile import read_input_file
        from emergraph.exporters.traces.record import record_trace

        asked, how = options
        given: InputFile | RandomInputs | Mapping[str, NDArray[np.generic]]
        if asked.recorded is not None:
            return self._imported(asked, how, samples, model)
        if samples is None or isinstance(samples, str | Path):
            source = asked.chosen(None if samples is None else Path(samples))
            given = read_input_file(source) if isinstance(source, Path) else source
        elif asked.random is not None:
            raise UsageError("give one of INPUTS, --random N and --import FILE")
        else:
            given = samples
        if model is None:
            raise UsageError("--model FILE is needed: the model file that the graph was exported from")
        how = replace(how, sample_axes={**asked.axes, **how.sample_axes})
        with open_file(self.path, mode="write") as opened:
            return record_trace(opened, self.id, model, given, options=how, progress=progress)

    def _imported(
        self, asked: SampleOptions, how: TraceOptions, samples: object, model: str | Path | None
    ) -> "TraceSummary":
        """Keep activations that were recorded elsewhere."""
        from emergraph.exporters.traces.recorded import import_trace

        if asked.recorded is None or asked.random is not None or samples is not None or model is not None:
            raise UsageError("--import takes recorded activations: leave out INPUTS, --random and --model")
        with open_file(self.path, mode="write") as opened:
            return import_trace(opened, self.id, asked.recorded, name=how.name, n_values=how.n_values)


@dataclass(frozen=True)
class Graph(GraphContents, GraphEmergence, GraphAnalyses, GraphWhatIfs, GraphNetwork, GraphViews):
    """One graph of a store on disk. Every call opens the file and closes it again."""

    export_summary: "ExportSummary | None" = None
    """What the export understood; only on the graph that `export` returns."""

    def _repr_html_(self) -> str:
        from emergraph.analysis.notebook import html_of

        about = {name.removeprefix("n_").replace("_", " "): value for name, value in self.info.items()}
        columns = ("id", "name", "op", "kind", "n_units", "n_params")
        return html_of(f"Graph {self.name}", {**about, "layers": self.layers.select(columns).to_dicts()})
