"""Graphs that are named by words: of stores and lakes, and of files that are exported for the moment."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from emergraph.api.handle import weights_of
from emergraph.errors import EmergraphError, InvalidInputError
from emergraph.exporters.runtime.inputwords import InputWords
from emergraph.optionforms import name_or_id
from emergraph.outputs import holds_database
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
def opened_graph(text: str, inputs: InputWords, root: Path | None) -> "Iterator[GraphReader]":
    """Open a graph of a store, or a model file that is exported into a store for the moment.

    Raises:
        InvalidInputError: There is no such file, or it is not a model.
        UsageError: The store has no such graph.
    """
    from emergraph.graphstore.store import open_store
    from emergraph.leftovers import Scratch

    path, graph = parts_of(text)
    with ExitStack() as stack:
        if is_store(path):
            chosen = None if graph is None else name_or_id(graph)
            yield stack.enter_context(open_store(path)).graph(chosen)
            return
        folder = stack.enter_context(Scratch()).path
        yield stack.enter_context(exported(path, folder / "model.duckdb", inputs, root)())


def exported(
    path: Path, store: Path, inputs: InputWords, root: Path | None
) -> "Callable[[], AbstractContextManager[GraphReader]]":
    """Export a model file into a store of its own; return what opens its graph, each time it is called."""
    from emergraph.exporters.export import ExportOptions
    from emergraph.exporters.sources import export_any
    from emergraph.graphstore.store import open_store

    with open_store(store, mode="create", in_place=True) as opened:
        options = ExportOptions(
            inputs=_of(path, root, inputs.values()),
            input_shapes=_of(path, root, inputs.shapes()),
            root=root,
        )
        summary = export_any(path, opened, options=options)

    @contextmanager
    def graph() -> "Iterator[GraphReader]":
        with weights_of(*([path] if summary.in_place else []), root=root), open_store(store) as opened:
            yield opened.graph()

    return graph


def graph_sources(
    texts: Sequence[str], root: Path | None, stack: ExitStack
) -> "tuple[list[Source], list[str]]":
    """Return all graphs that are named, and a line for each file that is left out since it cannot be read.

    Args:
        texts: Model files, stores and lakes (all of their graphs), or `FILE.duckdb:graph`.
        root: Folder inside which files of a model may be links.
        stack: Closes what is kept for the moment.

    Raises:
        EmergraphError: Fewer than two can be read.
        InvalidInputError: There is no such file.
    """
    from emergraph.analysis.lineage.lineage import Source
    from emergraph.analysis.lineage.outputs import answers_of
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
            opened = exported(path, folder / "model.duckdb", InputWords(), root)
        except EmergraphError as error:
            if not path.exists():  # a name that was mistyped
                raise
            failed.append(error)
            continue
        run = partial(answers_of, path, root=root)
        found.append(Source(name=_unique(path, found), opened=opened, answers=run))
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


def _of(path: Path, root: Path | None, given: Mapping[str, T]) -> dict[str, T]:
    """What is given for inputs that the model has: the two sides may have different ones."""
    if not given:
        return {}
    from emergraph.exporters.onnxfile.reader import read_onnx

    names = {value.name for value in read_onnx(path, root=root).model.graph.input}
    return {name: value for name, value in given.items() if name in names}


def is_store(path: Path) -> bool:
    """Return whether a file is a DuckDB file.

    Raises:
        InvalidInputError: There is no such file or folder.
    """
    if path.is_dir():
        return False
    if not path.exists():
        raise InvalidInputError(f"{escape_controls(str(path))}: no such file; give a model file or a store")
    return holds_database(path)
