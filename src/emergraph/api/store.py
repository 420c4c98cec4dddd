"""A store and its graphs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.registry import analysis_named
from emergraph.api.graph import Graph
from emergraph.api.handle import weights_of
from emergraph.api.keywords import with_options
from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.store import open_store as open_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emergraph.analysis.emergence.trajectory import Trajectory
    from emergraph.graphstore.maintain import Compacted
    from emergraph.graphstore.query import QueryLimits
    from emergraph.options import Options


@dataclass(frozen=True)
class Store:
    """A store on disk. Every call opens the file and closes it again."""

    path: Path

    @property
    def graphs(self) -> pl.DataFrame:
        """The table `graphs`, oldest first."""
        with open_file(self.path) as opened:
            return opened.graphs()

    def graph(self, name_or_id: str | int | None = None) -> "Graph":
        """Return one graph, the newest by default.

        Raises:
            UsageError: There is no such graph; the message names the closest ones.
        """
        with open_file(self.path) as opened:
            return Graph(self.path, opened.graph(name_or_id).id)

    def sql(
        self,
        query: str | None = None,
        *,
        recipe: str | None = None,
        rows: int = 10_000,
        edge_limit: int = 20_000_000,
        limits: "QueryLimits | None" = None,
    ) -> pl.DataFrame:
        """Return the rows of one SELECT statement; it cannot write, and stops at its limits.

        Args:
            query: The statement.
            recipe: A question that has a name, instead: see `docs/recipes.md`.
            rows: Most rows; where there are more, none is returned.
            edge_limit: Most edges that are read from a model file (see `emergraph.with_model`).
            limits: Of time and memory; its limits of rows and edges hold instead of the others.

        Raises:
            UsageError: The SQL is wrong, or asks for what is not allowed.
            LimitError: A limit of time, memory or rows was hit.
        """
        from emergraph.graphstore.query import QueryLimits, run_query
        from emergraph.graphstore.recipes import recipe as recipe_named

        if (query is None) == (recipe is None):
            raise UsageError("give a query, or recipe=NAME")
        text = recipe_named(recipe).sql if recipe is not None else str(query)
        limits = limits or QueryLimits(rows=rows, edges=edge_limit)
        result = run_query(self.path, text, limits=limits)
        if result.truncated:
            raise LimitError(f"more than {limits.rows} rows: raise the limit, or aggregate in SQL")
        return result.frame

    @with_options(*analysis_named("trajectory").options)
    def trajectory(
        self,
        *,
        options: "Sequence[Options]",
        model: str | Path | None = None,
        verify: bool = False,
        root: str | Path | None = None,
        save: bool = True,
    ) -> "Trajectory":
        """Follow emergence over the snapshots of a training run, put in order of their step.

        Args:
            model: What the snapshots were exported from; needed where edges stayed there.
            verify: Check all tensors of the model first, not each when it is read.
            root: Folder inside which files of the model may be symbolic links.
            save: Keep the result in the store.

        Raises:
            UsageError: The graphs make no trajectory, lack a trace, or none has the metric.
        """
        from emergraph.analysis.access import carry_out

        models = [] if model is None else [model]
        with weights_of(*models, root=root, verify=verify):
            found: Trajectory = carry_out(analysis_named("trajectory"), self.path, None, *options, save=save)
        return found

    def rm(self, graph: str | int) -> str:
        """Remove a graph with its traces and runs from the store; return its name.

        Raises:
            UsageError: There is no such graph.
        """
        from emergraph.graphstore.maintain import remove_graph

        with open_file(self.path, mode="write") as opened:
            return remove_graph(opened, graph)

    def merge(self, other: str | Path) -> dict[int, int]:
        """Copy all graphs of another store into this one; return their new ids by the old ones."""
        from emergraph.graphstore.maintain import merge

        with open_file(self.path, mode="write") as opened:
            return merge(opened, other)

    def lake(
        self, folder: str | Path, graph: str | int | None = None, *, edges: bool = False
    ) -> pl.DataFrame:
        """Write all graphs, or one, with traces, runs and results, into a lake of Parquet files.

        Args:
            folder: The lake, made when missing; what is there already stays.
            graph: Name or id; all by default.
            edges: Also the edges that stay in the model file.

        Returns:
            One row per graph: graph (its id in the lake), name, files (written now), edges (rows).

        Raises:
            UsageError: There is no such graph, or the folder cannot be made.
            LimitError: The disk is full.
        """
        from emergraph.graphstore.lake.writing import write_lake

        with open_file(self.path) as opened:
            chosen = None if graph is None else [opened.graph(graph).id]
            return pl.DataFrame(write_lake(opened, Path(folder), graphs=chosen, edges=edges))

    def compact(self) -> "Compacted":
        """Rewrite the file without the space that removed graphs left in it."""
        from emergraph.graphstore.maintain import compact

        return compact(self.path)

    def _repr_html_(self) -> str:
        from emergraph.analysis.notebook import html_of

        columns = ("id", "name", "source", "format", "n_layers", "n_units", "n_edges", "n_parameters")
        return html_of(f"Store {self.path.name}", {"graphs": self.graphs.select(columns).to_dicts()})

    @property
    def runs(self) -> pl.DataFrame:
        """The table `runs`: one row per run of an analysis, oldest first."""
        with open_file(self.path) as opened:
            return opened.runs()


def open_store(path: str | Path) -> "Store":
    """Return a store on disk; this is `emergraph.open`.

    Raises:
        InvalidInputError: There is no such file.
        StoreError: The file is locked, foreign, newer or damaged.
    """
    with open_file(path):
        return Store(Path(path))


def open_graph(path: str | Path, name_or_id: str | int | None = None) -> Graph:
    """Return one graph of a store on disk, the newest by default; the store is opened once.

    Raises:
        InvalidInputError: There is no such file.
        StoreError: The file is locked, foreign, newer or damaged.
        UsageError: There is no such graph; the message names the closest ones.
    """
    with open_file(path) as opened:
        return Graph(Path(path), opened.graph(name_or_id).id)
