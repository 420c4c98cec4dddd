"""A graph by its file and its id."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emergraph.graphstore.store import open_store as open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from emergraph.graphstore.reader import GraphReader


Progress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""


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
