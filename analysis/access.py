"""A graph of a store while an analysis runs on it, and the one way to run it and keep what it finds."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self

from emergraph.analysis.declaration import Analysis, Subject
from emergraph.errors import UsageError
from emergraph.graphstore.store import Mode, StoreFile, open_store
from emergraph.options import Options

if TYPE_CHECKING:
    from types import TracebackType

    from emergraph.analysis.activity.unittrace import UnitTrace
    from emergraph.analysis.engines.options import EngineOptions
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.unitgraph import UnitGraph
    from emergraph.graphstore.inplace import Mapped
    from emergraph.graphstore.reader import GraphReader


class GraphAccess:
    """A graph of a store, which is opened when it is first read, and closed when the analysis ends.

    Args:
        path: The store.
        graph: Name or id of the graph; by default the newest.
        save: Open it for writing, so that what is found can be kept.
        files: The model behind the graph and what to run it on, where a caller has more than names of files.
        root: Folder inside which files of a model that an option names may be links.
    """

    def __init__(
        self,
        path: Path,
        graph: str | int | None,
        *,
        save: bool,
        files: "ModelFiles | None" = None,
        root: Path | None = None,
    ) -> None:
        self.path = path
        self.files = files
        self.root = root
        self.parameters: dict[str, object] = {}
        """What the run keeps besides its options."""
        self.left_out: tuple[Options, ...] = ()
        """Options that the run does not keep."""
        self._graph = graph
        self._mode: Mode = "write" if save else "read"
        self._closing = ExitStack()
        self._store: StoreFile | None = None
        self._reader: GraphReader | None = None
        self._mapped: Mapped | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self._closing.close()

    @property
    def store(self) -> StoreFile:
        """The store, open until the analysis ends."""
        if self._store is None:
            self._store = self._closing.enter_context(open_store(self.path, mode=self._mode))
        return self._store

    @property
    def reader(self) -> "GraphReader":
        """The graph."""
        if self._reader is None:
            self._reader = self.store.graph(self._graph)
        return self._reader

    @property
    def id(self) -> int:
        """graphs.id; asking for it leaves the store closed, for queries in a process of their own."""
        if self._store is None and not isinstance(self._graph, int):
            with open_store(self.path) as opened:
                self._graph = opened.graph(self._graph).id
        return self._graph if isinstance(self._graph, int) else self.reader.id

    @property
    def in_place(self) -> bool:
        """Whether edges stay in the model file."""
        return any(block.place is not None for block in self.reader.blocks_info())

    def units(self) -> "UnitGraph":
        """Return the units of the graph and the edges between them, which are streamed from the store."""
        from emergraph.analysis.storedgraph import read_unit_graph

        return read_unit_graph(self.reader, mapped=self._mapped)

    def run_on(self, engine: "EngineOptions") -> None:
        """Let products of matrices that stayed in the model file be computed there, until the analysis ends.

        Raises:
            UsageError: Nothing answers at the address of the cluster.
            MissingExtraError: The engine is not installed.
        """
        from emergraph.analysis.engines.cluster import tasks_on

        self._mapped = self._closing.enter_context(tasks_on(engine))

    def trace(self, trace: str | int | None = None) -> "UnitTrace":
        """Return what the units did on inputs: a trace by name or id, or the newest.

        Raises:
            UsageError: The graph has no such trace.
        """
        from emergraph.analysis.storedgraph import read_unit_trace

        return read_unit_trace(self.reader, trace)

    def keep(self, **parameters: object) -> None:
        """Keep parameters with the run: notes, or what an option came to mean, such as the newest trace."""
        self.parameters |= parameters

    def leave_out(self, *options: Options) -> None:
        """Keep nothing of these options but what `keep` is given: the run is about a part of them."""
        self.left_out += options


def chosen_options(analysis: Analysis, given: Sequence[Options]) -> list[Options]:
    """Return one object for each class of options of an analysis, by default where none was given.

    Raises:
        UsageError: An object is of a class that is not among them, or two are of one class.
    """
    by_class = {type(one): one for one in given}
    if len(by_class) < len(given) or not by_class.keys() <= set(analysis.options):
        expected = ", ".join(cls.__name__ for cls in analysis.options) or "no options"
        found = ", ".join(type(one).__name__ for one in given)
        raise UsageError(f"{analysis.name}: expected at most one each of {expected}; found {found}")
    return [by_class.get(cls) or cls() for cls in analysis.options]


def carry_out(
    analysis: Analysis,
    path: str | Path,
    graph: str | int | None = None,
    *given: Options,
    save: bool = True,
    files: "ModelFiles | None" = None,
    root: Path | None = None,
) -> Any:  # noqa: ANN401 - each analysis has a result of its own
    """Run an analysis on a store, and keep what it finds; return its result.

    Args:
        analysis: One that is about a graph, or all snapshots.
        path: The store.
        graph: Name or id of the graph; by default the newest.
        given: Its options, objects of the classes that it declares; others are at their defaults.
        save: Keep the result in the store.
        files: The model behind the graph and what to run it on, where options cannot say it.
        root: Folder inside which files of a model that an option names may be links.

    Raises:
        UsageError: Options do not go together, or the analysis is not about what a store holds.
    """
    about_one = graph is None or analysis.of is Subject.GRAPH
    if analysis.run is None or analysis.rows is None or not about_one:
        raise UsageError(
            f"{analysis.name} is not about a graph of a store; see emergraph {analysis.name} --help"
        )
    chosen = chosen_options(analysis, given)
    begin = perf_counter()
    with GraphAccess(Path(path), graph, save=save, files=files, root=root) as at:
        result = analysis.run(at, *chosen)
        if save:
            kept: dict[str, Any] = {}
            for options in chosen:
                if options not in at.left_out:
                    kept |= options.kept()
            kept |= at.parameters
            at.store.record_run(
                None if analysis.of is Subject.SNAPSHOTS else at.reader.id,
                analysis.name,
                kept,
                seed=kept.get("seed"),
                result_tables=dict(analysis.rows(result)),
                duration=perf_counter() - begin,
            )
    return result
