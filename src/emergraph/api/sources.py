"""Graphs that are named on the command line: of stores, and of files that are exported for the moment."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from emergraph.cli.links import Links
from emergraph.cli.storeargs import name_or_id, weights_of
from emergraph.errors import EmergraphError
from emergraph.exporters.runtime.inputwords import InputWords
from emergraph.safetext import escape_controls

if TYPE_CHECKING:
    from emergraph.analysis.lineage.lineage import Source
    from emergraph.graphstore.reader import GraphReader

T = TypeVar("T")


def parts_of(text: str) -> tuple[Path, str | None]:
    """Return the file that a word names, and the graph of it if one is named."""
    name, colon, graph = text.rpartition(":")
    path = Path(text)
    return (Path(name), graph) if colon and not path.exists() else (path, None)


@contextmanager
def opened_graph(text: str, inputs: InputWords, links: Links) -> "Iterator[GraphReader]":
    """Open a graph of a store, or a model file that is exported into a store for the moment.

    Raises:
        InvalidInputError: There is no such file, or it is not a model.
        UsageError: The store has no such graph.
    """
    from emergraph.cli.reportsteps import is_store
    from emergraph.graphstore.store import open_store
    from emergraph.leftovers import Scratch

    path, graph = parts_of(text)
    with ExitStack() as stack:
        if is_store(path):
            chosen = None if graph is None else name_or_id(graph)
            yield stack.enter_context(open_store(path)).graph(chosen)
            return
        folder = stack.enter_context(Scratch()).path
        yield stack.enter_context(exported(path, folder / "model.duckdb", inputs, links)())


def exported(
    path: Path, store: Path, inputs: InputWords, links: Links
) -> "Callable[[], AbstractContextManager[GraphReader]]":
    """Export a model file into a store of its own; return what opens its graph, each time it is called."""
    from emergraph.exporters.export import ExportOptions
    from emergraph.exporters.sources import export_any
    from emergraph.graphstore.store import open_store

    with open_store(store, mode="create", in_place=True) as opened:
        options = ExportOptions(
            inputs=_of(path, links, inputs.values()),
            input_shapes=_of(path, links, inputs.shapes()),
            root=links.root,
        )
        summary = export_any(path, opened, options=options)

    @contextmanager
    def graph() -> "Iterator[GraphReader]":
        with weights_of(path if summary.in_place else None, links), open_store(store) as opened:
            yield opened.graph()

    return graph


def graph_sources(texts: Sequence[str], links: Links, stack: ExitStack) -> "tuple[list[Source], list[str]]":
    """Return all graphs that are named, and a line for each file that is left out since it cannot be read.

    Args:
        texts: Model files, stores and lakes (all of their graphs), or `FILE.duckdb:graph`.
        links: Where links may lead.
        stack: Closes what is kept for the moment.

    Raises:
        EmergraphError: Fewer than two can be read.
        InvalidInputError: There is no such file.
    """
    from emergraph.analysis.lineage.lineage import Source
    from emergraph.cli.reportsteps import is_store
    from emergraph.graphstore.lake.layout import is_lake
    from emergraph.leftovers import Scratch

    found: list[Source] = []
    failed: list[EmergraphError] = []
    for text in texts:
        path, graph = parts_of(text)
        if is_store(path) or is_lake(path):
            found += _graphs_of(path, graph, found)
            continue
        folder = stack.enter_context(Scratch()).path
        try:
            opened = exported(path, folder / "model.duckdb", InputWords(), links)
        except EmergraphError as error:
            if not path.exists():  # a name that was mistyped
                raise
            failed.append(error)
            continue
        found.append(Source(name=_unique(path, found), opened=opened))
    if failed and len(found) < 2:
        raise failed[0]
    return found, [f"left out: {error}" for error in failed]


def _graphs_of(path: Path, graph: str | None, others: "Sequence[Source]") -> "list[Source]":
    from emergraph.analysis.lineage.lineage import Source
    from emergraph.graphstore.lake.reading import open_stored

    with open_stored(path) as store:
        rows = store.graphs().to_dicts() if graph is None else [store.graph(name_or_id(graph)).summary]
        named = [(str(row["name"]), int(str(row["id"]))) for row in rows]

    def opener(number: int) -> "Callable[[], AbstractContextManager[GraphReader]]":
        @contextmanager
        def opened() -> "Iterator[GraphReader]":
            with open_stored(path) as store:
                yield store.graph(number)

        return opened

    taken = {one.name for one in others}
    return [
        Source(name=f"{_unique(path, others)}:{name}" if name in taken else name, opened=opener(number))
        for name, number in named
    ]


def _unique(path: Path, others: "Sequence[Source]") -> str:
    """The name of a file, with folders where another model has it."""
    taken = {one.name for one in others}
    names = ("/".join(path.parts[-n:]) for n in range(1, len(path.parts) + 1))
    free = next((name for name in names if name not in taken), f"{path} ({len(taken)})")
    return escape_controls(free)


def _of(path: Path, links: Links, given: Mapping[str, T]) -> dict[str, T]:
    """What is given for inputs that the model has: the two sides may have different ones."""
    if not given:
        return {}
    from emergraph.exporters.onnxfile import read_onnx

    names = {value.name for value in read_onnx(path, root=links.root).model.graph.input}
    return {name: value for name, value in given.items() if name in names}
