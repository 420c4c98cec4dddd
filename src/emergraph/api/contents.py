"""What a graph holds: its tables, its edges, its traces."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from emergraph.api.handle import GraphHandle, Progress
from emergraph.graphstore.store import open_store as open_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emergraph.exporters.traces.options import TraceOptions
    from emergraph.exporters.traces.record import TraceSummary
    from emergraph.exporters.traces.samples import RandomInputs
    from emergraph.graphstore.records import EdgeKind


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
            model: The file that the graph was exported from; its sha256 must be the graph's.
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
