"""A graph by its file and its id."""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.errors import UsageError
from emergraph.graphstore.store import open_store as open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emergraph.graphstore.reader import GraphReader
    from emergraph.options import Options


Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


def weights_of(
    *models: str | Path, root: str | Path | None = None, verify: bool = False
) -> AbstractContextManager[None]:
    """Let graphs that are read in the block find the weights that stayed in models, if any are given.

    Raises:
        UsageError: The weights of no model are to be checked.
    """
    if not models:
        if verify:
            raise UsageError("--verify checks the tensors of a model: give its file or folder with --model")
        return nullcontext()
    from emergraph.exporters.modeltensors import open_model
    from emergraph.graphstore.modelfiles import model_given

    return model_given(open_model(*models, root=None if root is None else Path(root), verify=verify))


@dataclass(frozen=True)
class GraphHandle:
    """A graph of a store, by its file and id; opened only for as long as a call takes."""

    path: Path
    """The store's file."""
    id: int
    """graphs.id."""

    @contextmanager
    def _reader(self) -> "Iterator[GraphReader]":
        with open_file(self.path) as opened:
            yield opened.graph(self.id)

    @property
    def in_place(self) -> bool:
        """Whether edges stay in the model file, which analyses then need: see `emergraph.with_model`."""
        with self._reader() as reader:
            return any(block.place is not None for block in reader.blocks_info())

    def analyse(self, analysis: str, *options: "Options", save: bool = True) -> Any:  # noqa: ANN401
        """Run an analysis by its name, built in or of a plug-in; return its result.

        Args:
            analysis: The name of its command, such as "topology".
            options: Objects of the classes of options that it declares; the others are at their defaults.
            save: Keep the result in the store.

        Raises:
            UsageError: There is no such analysis, it is not about one graph, or it has no such options.

        Example:
            >>> graph.analyse("topology", TopologyOptions(nulls=0)).measures  # doctest: +SKIP
        """
        from emergraph.analysis.access import carry_out
        from emergraph.analysis.registry import analysis_named

        return carry_out(analysis_named(analysis), self.path, self.id, *options, save=save)
