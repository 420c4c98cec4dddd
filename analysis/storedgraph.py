"""Unit graphs and traces out of a store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.unitgraph import (
    ROLES,
    EdgeColumns,
    UnitBlock,
    UnitGraph,
    UnitLayer,
    layer_positions,
)
from emergraph.exporters.summary import MUST_BE_FINITE
from emergraph.graphstore.blockinfo import BlockInfo
from emergraph.graphstore.inplace import Floats, Mapped, Matrix, mask_times
from emergraph.graphstore.reader import GraphReader


def read_unit_graph(reader: GraphReader, *, mapped: Mapped | None = None) -> UnitGraph:
    """The unit graph of a graph in a store; its edges stay there and are streamed when asked for.

    Args:
        reader: From `StoreFile.graph`; its store must stay open as long as the graph is used.
        mapped: Where products of matrices in place are computed; by default in threads of this process.
    """
    layers = [
        UnitLayer(**row)
        for row in reader.layers()
        .select("id", "name", "kind", "first_unit", "n_units", "n_params", "n_zeros")
        .iter_rows(named=True)
    ]
    units = reader.units()
    codes = units["role"].replace_strict({role.value: code for code, role in enumerate(ROLES)})
    # scales and zero points say how weights are stored
    tensors = reader.tensors()
    weights = tensors.filter(~pl.col("role").is_in(["quantization", "buffer"]))
    n_params = int(weights["n_params"].sum())
    return UnitGraph(
        layers=tuple(layers),
        blocks=tuple(_unit_block(info) for info in reader.blocks_info()),
        unit_layer=layer_positions(layers),
        neuron=units["neuron"].to_numpy(),
        role=codes.to_numpy().astype(np.uint8),
        n_params=n_params,
        n_nonzero=n_params - int(weights["n_zeros"].sum()),
        edges=StoredEdges(reader, mapped),
        name=reader.name,
        n_nonfinite=int(weights.filter(pl.col("role").is_in(MUST_BE_FINITE))["n_nonfinite"].sum()),
    )


def read_unit_trace(reader: GraphReader, trace: str | int | None = None) -> UnitTrace:
    """A trace of the graph's units: by name or id, or the newest.

    Raises:
        UsageError: The graph has no such trace.
    """
    frame = reader.activations(trace)
    traces = reader.traces().to_dicts()
    chosen = next((row for row in reversed(traces) if trace in (None, row["id"], row["name"])), traces[-1])
    found = UnitTrace.from_frame(frame, reader.n_units, name=str(chosen["name"]))
    return replace(found, random=chosen["kind"] == "random")


@dataclass(frozen=True)
class StoredEdges:
    """Edges that stay in a store."""

    reader: GraphReader
    mapped: Mapped | None = None

    def iter_edges(
        self, blocks: Sequence[UnitBlock], *, columns: Sequence[str]
    ) -> Iterator[tuple[UnitBlock, EdgeColumns]]:
        """Yield each block with its columns, small blocks fetched together."""
        stored = self.reader.iter_edges([block.id for block in blocks], columns=columns)
        for block, (_, edges) in zip(blocks, stored, strict=True):
            yield block, edges

    def iter_pieces(
        self, blocks: Sequence[UnitBlock], *, columns: Sequence[str]
    ) -> Iterator[tuple[UnitBlock, EdgeColumns]]:
        """Yield each block with its columns, one in place in pieces of bounded size."""
        by_id = {block.id: block for block in blocks}
        for info, edges in self.reader.iter_pieces([block.id for block in blocks], columns=columns):
            yield by_id[info.id], edges

    @property
    def has_weights(self) -> bool:
        """Whether a model was given, in which weights of blocks in place are."""
        return self.reader.files is not None

    def side_sums(self, block: UnitBlock) -> pl.DataFrame:
        """Return degrees and strengths of a block in place, without its weights."""
        return self.reader.side_sums(block.id)

    def matrix(self, block: UnitBlock, *, counted: bool = False) -> Matrix:
        """Return the matrix of a block in place; `counted`: after a look at how many edges it has."""
        return self.reader.matrix(block.id, counted=counted)

    def mask_times(self, block: UnitBlock, vectors: Floats) -> Floats:
        """Return for every source of a block in place the sum of its targets' values."""
        return mask_times(self.matrix(block), vectors, mapped=self.mapped)


def _unit_block(info: BlockInfo) -> UnitBlock:
    return UnitBlock(
        id=info.id,
        name=info.name,
        kind=info.kind,
        layer=info.layer,
        n_edges=info.n_edges,
        dense=info.dense,
        src_units=info.src_units,
        dst_units=info.dst_units,
        tensor=info.tensor,
        shared_with=info.shared_with,
        has_kernels=info.has_kernels,
        in_place=info.place is not None,
    )
