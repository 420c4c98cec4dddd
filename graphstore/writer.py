"""One graph into a store, in one transaction: the sink that exporters write into."""

import contextlib
from collections.abc import Mapping, Sequence

import duckdb
import polars as pl

from emergraph.graphstore.arrays import FloatArray, IntArray
from emergraph.graphstore.catalog import next_id, unique_name
from emergraph.graphstore.graphrows import (
    block_columns,
    coding_columns,
    graph_row,
    insert_rows,
    layer_columns,
    operation_columns,
    strength_columns,
    unit_columns,
)
from emergraph.graphstore.ingest import EdgeLoader, as_unit_ids
from emergraph.graphstore.inplace import Matrix, sum_up
from emergraph.graphstore.layout import BlockRow, check_block, distinct, layer_starts
from emergraph.graphstore.records import (
    Block,
    GraphFooter,
    GraphHeader,
    Kernels,
    Layer,
    MatrixKernels,
    Operation,
    Place,
    Tensor,
    TraceHeader,
    UnitColumns,
)
from emergraph.graphstore.tensors import TensorLoader
from emergraph.graphstore.traces import write_metrics, write_trace

WRITE_MEMORY_MIB = 512
"""What DuckDB may hold while a graph is written; more makes nothing faster."""


class GraphWriter:
    """Writes one graph; made by `StoreFile.write_graph`. It is a `GraphSink`.

    Blocks get store-wide ids in the order in which they are first written. What exporters promise (see
    `records`) is checked where that is cheap; ValueError says that an exporter has broken it.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        header: GraphHeader,
        *,
        in_place: bool = False,
        own_transaction: bool = True,
    ) -> None:
        # What is written is otherwise kept as well, up to most of the machine's memory.
        connection.execute(f"SET memory_limit = '{WRITE_MEMORY_MIB}MiB'")
        if own_transaction:
            connection.execute("BEGIN TRANSACTION")
        self._own_transaction = own_transaction
        self._connection = connection
        self._header = header
        self._open = True
        self.finished = False
        self.graph = next_id(connection, "graphs")
        self.name = unique_name(connection, "SELECT name FROM graphs", [], header.name)
        self._first_block = next_id(connection, "blocks")
        self._edges = EdgeLoader(connection)
        self._in_place = in_place
        self._tensors = TensorLoader(
            connection, self.graph, snapshot=header.step is not None, in_place=in_place
        )
        self._blocks: dict[int, BlockRow] = {}
        self._last: BlockRow | None = None
        self._layers: Sequence[Layer] | None = None
        self._units_written = False
        self._traces: list[tuple[TraceHeader, pl.DataFrame]] = []
        self._metrics: dict[str, float] = {}

    def write_matrix(
        self,
        block: Block,
        src_units: IntArray,
        dst_units: IntArray,
        weights: FloatArray | Matrix,
        kernels: MatrixKernels | None = None,
        place: Place | None = None,
    ) -> int:
        """Write the non-zero entries of `weights` (n_src, n_dst) as edges; return how many.

        Any strides and any real element type will do; rows are converted to float32 in pieces, so that a
        mapped file is never in memory whole. What float32 would round to zero becomes its smallest number.

        Args:
            block: What the edges are.
            src_units: (n_src,) distinct ids of the units that the rows stand for.
            dst_units: (n_dst,) distinct ids of the units that the columns stand for.
            weights: (n_src, n_dst). A weight of exactly zero is not an edge; NaN and infinities are kept.
            kernels: Side columns of edges that stand for several parameters; then an entry is an edge where
                `kernels.n_params > 0`, even if its weight is zero.
            place: Which entries of a tensor of the file the weights are. In a graph whose edges stay in the
                file, they do, and what one pass over them tells is written instead.

        Raises:
            ValueError: The shapes do not fit, units repeat, or the block was written before.
            LimitError: A unit id does not fit in 32 bits.
        """
        src, dst = as_unit_ids(src_units), as_unit_ids(dst_units)
        what = f"block {block.id} ({block.name!r})"
        shapes = {weights.shape} | ({a.shape for a in vars(kernels).values()} if kernels else set())
        if shapes != {(src.size, dst.size)}:
            raise ValueError(f"{what}: matrices of shape {sorted(shapes)}, expected ({src.size}, {dst.size})")
        if distinct(src).size != src.size or distinct(dst).size != dst.size:
            raise ValueError(f"{what}: a unit stands for two rows or two columns")
        row = BlockRow(
            self._next_block(), block, src, dst, 0, has_kernels=kernels is not None, is_matrix=True
        )
        self._add(row)
        if self._in_place and place is not None and kernels is None and weights.size:
            matrix = weights if isinstance(weights, Matrix) else Matrix.over(weights)
            return self._leave(row, matrix, place)
        if isinstance(weights, Matrix):
            weights = weights.array()
        summary = self._edges.matrix(row.id, src, dst, weights, kernels)
        row.n_edges, row.zero_signs = summary.n_edges, summary.zero_signs
        return summary.n_edges

    def _leave(self, row: BlockRow, matrix: Matrix, place: Place) -> int:
        """Leave the edges of a matrix in the model file, and keep what they are in sum."""
        sums = sum_up(matrix)
        row.n_edges, row.place, row.sums = sums.n_edges, place, sums
        self._tensors.leave(place.tensor)
        return sums.n_edges

    def write_edges(
        self,
        block: Block,
        src: IntArray,
        dst: IntArray,
        weight: FloatArray | None = None,
        kernels: Kernels | None = None,
    ) -> int:
        """Write the listed edges as they are; return how many.

        A block may come in several calls, one right after the other.

        Args:
            block: What the edges are.
            src: (n_edges,) ids of source units.
            dst: (n_edges,) ids of target units; no pair may repeat.
            weight: (n_edges,) weights, kept as float32; None for edges that no parameter carries.
            kernels: Side columns of edges that stand for several parameters.

        Raises:
            ValueError: The lengths differ, or the block was written before and another one since.
            LimitError: A unit id does not fit in 32 bits.
        """
        sources, targets = as_unit_ids(src), as_unit_ids(dst)
        given = (
            sources,
            targets,
            *([] if weight is None else [weight]),
            *(vars(kernels).values() if kernels else ()),
        )
        if {array.shape for array in given} != {(sources.size,)}:
            raise ValueError(f"block {block.id} ({block.name!r}): columns of different lengths")
        more = BlockRow(
            self._next_block(),
            block,
            distinct(sources),
            distinct(targets),
            sources.size,
            has_kernels=kernels is not None,
            is_matrix=False,
        )
        last = self._last
        if last is not None and last.block == block and not last.is_matrix:
            more.id = last.id
            last.add(more)
        else:
            self._add(more)
        self._edges.edges(more.id, sources, targets, weight, kernels)
        return sources.size

    def write_layers(self, layers: Sequence[Layer]) -> None:
        """Write all layers, once.

        Raises:
            ValueError: Ids or names repeat, or units are in no layer or in two.
        """
        if self._layers is not None:
            raise ValueError("layers are written once")
        layer_starts(layers)
        self._layers = list(layers)
        insert_rows(self._connection, "layers", layer_columns(self.graph, self._layers))

    def write_units(self, columns: Sequence[UnitColumns]) -> None:
        """Write the units of all layers, once, after the layers.

        Raises:
            ValueError: The layers are not written yet, or not each of them has one entry of the right size.
        """
        if self._layers is None or self._units_written:
            raise ValueError("units are written once, after the layers")
        insert_rows(self._connection, "units", unit_columns(self.graph, self._layers, columns))
        self._units_written = True

    def write_tensor(self, tensor: Tensor) -> None:
        """Write one parameter tensor; its block, if it has one, may still be to come.

        Raises:
            ValueError: The name repeats, or the data do not fit the type and shape.
        """
        self._tensors.add(tensor)

    def write_operations(self, operations: Sequence[Operation]) -> None:
        """Write all operations, once."""
        insert_rows(self._connection, "operations", operation_columns(self.graph, operations))

    def write_trace(self, header: TraceHeader, frame: pl.DataFrame) -> None:
        """Write an activation trace of this graph in the same transaction; see `StoreFile.write_trace`."""
        self._traces.append((header, frame))

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write numbers about this graph, such as loss and accuracy, in the same transaction."""
        self._metrics.update(metrics)

    def finish(self, footer: GraphFooter) -> int:
        """Write what is left, commit (unless it is part of a larger transaction), and return the graph's id.

        Raises:
            ValueError: Layers or units are missing, or a block does not fit between its layers.
        """
        if self._layers is None or not self._units_written:
            raise ValueError("a graph needs its layers and units before it is finished")
        self._edges.flush()
        starts = layer_starts(self._layers)
        layers = {layer.id: layer for layer in self._layers}
        rows = list(self._blocks.values())
        for row in rows:
            check_block(row, layers, starts)
        insert_rows(self._connection, "blocks", block_columns(self.graph, rows, starts))
        insert_rows(self._connection, "strengths", strength_columns(rows))
        insert_rows(self._connection, "codings", coding_columns(self.graph, rows, self._tensors.made))
        self._tensors.finish(self._blocks)
        graph = graph_row(
            self._header, footer, graph=self.graph, name=self.name, layers=self._layers, blocks=rows
        )
        insert_rows(self._connection, "graphs", graph)
        for header, frame in self._traces:
            write_trace(self._connection, self.graph, header, frame)
        write_metrics(self._connection, self.graph, self._metrics)
        if self._own_transaction:
            self._connection.execute("COMMIT")
        self._connection.execute("RESET memory_limit")
        self._open = False
        self.finished = True
        return self.graph

    def roll_back(self) -> None:
        """Take everything back unless the graph is finished."""
        if self._open:
            self._open = False
            # After a full disk the transaction may be gone already.
            with contextlib.suppress(duckdb.Error):
                if self._own_transaction:
                    self._connection.execute("ROLLBACK")
                self._connection.execute("RESET memory_limit")

    def _next_block(self) -> int:
        return self._first_block + len(self._blocks)

    def _add(self, row: BlockRow) -> None:
        if row.block.id in self._blocks:
            raise ValueError(f"block {row.block.id} ({row.block.name!r}): written before")
        self._blocks[row.block.id] = row
        self._last = row
