"""One graph out of a store: as polars frames, or as arrays for analyses that pass over all edges."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl

from emergraph.choices import unknown
from emergraph.errors import StoreError, UsageError
from emergraph.graphstore.connection import translated_errors
from emergraph.graphstore.frames import fetch_counted, fetch_frame
from emergraph.graphstore.modelfiles import Coding, WantedTensor, given_model
from emergraph.graphstore.records import EdgeKind, Role
from emergraph.graphstore.text import printable

if TYPE_CHECKING:  # tables are shown without numpy
    from emergraph.graphstore.blockinfo import BlockEdges, BlockInfo, EdgeArrays, LeftTensors
    from emergraph.graphstore.inplace import Matrix

_PARTS = {
    "n_parameters_understood": "n_parameters",
    "n_operations_understood": "n_operations",
}
"""Counts of a graph, and the counts that they are parts of."""


class GraphReader:
    """Reads one graph; made by `StoreFile.graph`. Frames leave out the column `graph`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path, graph: int) -> None:
        self.connection = connection
        self.path = path
        self.id = graph
        """Id of the graph within the store."""
        self.files = given_model()
        """What finds the tensors that stayed in the model file; None where no model was given."""

    @cached_property
    def summary(self) -> dict[str, object]:
        """The graph's row of the table `graphs`."""
        row = self._frame("SELECT * FROM graphs WHERE id = ?").row(0, named=True)
        for part, whole in _PARTS.items():
            if row[part] > row[whole]:
                raise self._damaged(f"graphs.{part} holds {row[part]} and graphs.{whole} {row[whole]}")
        return row

    def _damaged(self, what: str) -> StoreError:
        return StoreError(
            f"{printable(str(self.path))}: damaged, {what}; restore it from a copy or export the model again"
        )

    @property
    def name(self) -> str:
        """Name of the graph."""
        return str(self.summary["name"])

    def layers(self) -> pl.DataFrame:
        """Return the layers by id, which is a topological order."""
        return self._frame("SELECT * EXCLUDE (graph) FROM layers WHERE graph = ? ORDER BY id")

    def units(self) -> pl.DataFrame:
        """Return the units by id.

        Raises:
            StoreError: There are other units than the layers have, or a role is none.
        """
        units = self._frame("SELECT * EXCLUDE (graph) FROM units WHERE graph = ? ORDER BY id")
        if not units["id"].equals(pl.int_range(self.n_units, eager=True).cast(units["id"].dtype)):
            raise self._other_units()
        if strange := set(units["role"].unique()).difference(Role):
            raise self._damaged(f"units.role holds {printable(str(strange.pop()), limit=60)!r}")
        return units

    @cached_property
    def n_units(self) -> int:
        """How many units there are.

        Raises:
            StoreError: The layers have more or fewer.
        """
        found = int(self._frame("SELECT count(*) FROM units WHERE graph = ?").item())
        if found != int(self.layers()["n_units"].sum()):
            raise self._other_units()
        return found

    def _other_units(self) -> StoreError:
        last = int(self.layers()["n_units"].sum()) - 1
        return self._damaged(f"the layers have units 0 to {last}, and the table units has others")

    def blocks(self) -> pl.DataFrame:
        """Return the blocks by id."""
        return self._frame("SELECT * EXCLUDE (graph) FROM blocks WHERE graph = ? ORDER BY id")

    def tensors(self) -> pl.DataFrame:
        """Return the parameter tensors by name, without their values (see `restore`)."""
        return self._frame("SELECT * EXCLUDE (graph, zero_signs) FROM tensors WHERE graph = ? ORDER BY name")

    def operations(self) -> pl.DataFrame:
        """Return the operations in order of execution."""
        return self._frame("SELECT * EXCLUDE (graph) FROM operations WHERE graph = ? ORDER BY position")

    def metrics(self) -> pl.DataFrame:
        """Return the recorded numbers about the graph by name: columns name, value."""
        return self._frame('SELECT name, "value" FROM metrics WHERE graph = ? ORDER BY name')

    def traces(self) -> pl.DataFrame:
        """Return the activation traces, oldest first."""
        return self._frame("SELECT * EXCLUDE (graph) FROM traces WHERE graph = ? ORDER BY id")

    def activations(self, trace: str | int | None = None) -> pl.DataFrame:
        """Return the activations of a trace, given by name or id, by unit; the newest trace by default.

        Raises:
            UsageError: The graph has no such trace.
        """
        with translated_errors(self.path):
            sql = "SELECT * EXCLUDE (trace) FROM activations WHERE trace = ? ORDER BY unit"
            return fetch_frame(self.connection, sql, [self._trace_id(trace)])

    def edges(
        self, kinds: Iterable[EdgeKind | str] | None = None, layers: Iterable[int] | None = None
    ) -> pl.DataFrame:
        """Return edges with their layers, kinds and tensors: 60 bytes per edge, so choose if there are many.

        Args:
            kinds: Edge kinds; all by default.
            layers: Ids of target layers; all by default.

        Returns:
            Columns layer, src_layer, kind, block, src, dst, weight, l1, l2, max_abs, n_params, tensor.

        Raises:
            UsageError: A kind is unknown.
        """
        wanted_kinds = None if kinds is None else {_edge_kind(kind) for kind in kinds}
        wanted_layers = None if layers is None else set(layers)
        chosen = [
            block
            for block in self.blocks_info()
            if (wanted_kinds is None or block.kind in wanted_kinds)
            and (wanted_layers is None or block.layer in wanted_layers)
        ]
        about = pl.DataFrame(
            {
                "block": pl.Series([block.id for block in chosen], dtype=pl.Int32),
                "layer": pl.Series([block.layer for block in chosen], dtype=pl.Int32),
                "kind": pl.Series(
                    [block.kind.value for block in chosen], dtype=pl.Enum([kind.value for kind in EdgeKind])
                ),
                "tensor": pl.Series([block.tensor for block in chosen], dtype=pl.Categorical),
            }
        )
        sql = """
            SELECT block, src_layer, src, dst, weight, l1, l2, max_abs, n_params
            FROM edges WHERE graph = ? AND block IN (SELECT unnest(?::INTEGER[])) ORDER BY block, src, dst
        """
        with translated_errors(self.path):
            narrow = fetch_frame(self.connection, sql, [self.id, about["block"].to_list()])
        left = [block for block in chosen if block.place is not None and block.n_edges]
        if left:
            parts = [self._frame_in_place(block) for block in left]
            narrow = pl.concat([narrow, *parts]).sort("block", maintain_order=True)
        return narrow.join(about, on="block", how="left", maintain_order="left").select(
            *("layer", "src_layer", "kind", "block", "src", "dst"),
            *("weight", "l1", "l2", "max_abs", "n_params", "tensor"),
        )

    def _frame_in_place(self, block: "BlockInfo") -> pl.DataFrame:
        """The edges of a block in place as `edges` has them, by source and target."""
        from emergraph.graphstore.blockinfo import EDGE_COLUMNS

        columns = self._edge_source.arrays(block, EDGE_COLUMNS)
        starts, layers = self._layer_starts
        frame = pl.DataFrame(columns).sort("src", "dst")
        at = starts.search_sorted(frame["src"], side="right") - 1
        return frame.select(
            pl.lit(block.id, pl.Int32).alias("block"),
            layers.gather(at).alias("src_layer"),
            *EDGE_COLUMNS,
        )

    @cached_property
    def _layer_starts(self) -> tuple[pl.Series, pl.Series]:
        """First units of the layers that have units, ascending, and the ids of those layers."""
        layers = self.layers().filter(pl.col("n_units") > 0).sort("first_unit")
        return layers["first_unit"], layers["id"]

    def blocks_info(self) -> "list[BlockInfo]":
        """Return all blocks by ascending id."""
        return list(self._blocks)

    def block_edges(
        self, block: "BlockInfo | int", *, columns: Sequence[str] = ("src", "dst")
    ) -> "EdgeArrays":
        """Return columns of the edges of one block as arrays; do not write into them.

        Args:
            block: A block or its store-wide id.
            columns: Any of src, dst (int32), weight (float32, NaN for NULL), l1, l2, max_abs (float64) and
                n_params (int32). Edges of one parameter have l1 = l2 = max_abs = |weight| and n_params = 1.

        Returns:
            Arrays of shape (n_edges,) by column name; those of a matrix row by row.

        Raises:
            UsageError: The block or a column is unknown.
        """
        return next(self.iter_edges([block], columns=columns))[1]

    def iter_edges(
        self, blocks: "Iterable[BlockInfo | int] | None" = None, *, columns: Sequence[str] = ("src", "dst")
    ) -> "Iterator[tuple[BlockInfo, EdgeArrays]]":
        """Yield blocks, in the given order, with columns of their edges; see `block_edges`.

        Small blocks are fetched together. Memory is bounded by the largest block or about 1 M edges.

        Args:
            blocks: Blocks or their store-wide ids; all by default.
            columns: Columns to fetch.
        """
        chosen = self._blocks if blocks is None else [self._block(block) for block in blocks]
        yield from self._edge_source.read(chosen, columns)

    def iter_pieces(
        self, blocks: "Iterable[BlockInfo | int] | None" = None, *, columns: Sequence[str] = ("src", "dst")
    ) -> "Iterator[tuple[BlockInfo, EdgeArrays]]":
        """Yield what `iter_edges` yields, but a block in place in several pieces of bounded size.

        Args:
            blocks: Blocks or their store-wide ids; all by default.
            columns: Columns to fetch.
        """
        chosen = self._blocks if blocks is None else [self._block(block) for block in blocks]
        yield from self._edge_source.pieces(chosen, columns)

    @property
    def lacks_weights(self) -> bool:
        """Whether weights stayed in a model file that was not given."""
        return self.files is None and any(block.place is not None for block in self._blocks)

    @property
    def left(self) -> "LeftTensors":
        """What the graph has left in its model file."""
        return self._edge_source.left

    def side_sums(self, block: "BlockInfo | int") -> pl.DataFrame:
        """Return degrees and strengths of the units of a block in place; this needs no model.

        Returns:
            Columns unit, outgoing, degree, total, l1 (of finite weights).
        """
        asked = "SELECT * EXCLUDE (block) FROM strengths WHERE block = ?"
        with translated_errors(self.path):
            return fetch_frame(self.connection, asked, [self._block(block).id])

    def wanted(self, block: "BlockInfo | int") -> tuple[WantedTensor, Coding | None]:
        """Return the tensor of a block in place, and how its weights follow from it if it is codes.

        Raises:
            UsageError: The block is not in place.
            StoreError: The graph has no such tensor in its model file.
        """
        return self._edge_source.wanted(self._block(block))[1:]

    def matrix(self, block: "BlockInfo | int", *, counted: bool = False) -> "Matrix":
        """Return the matrix of a block in place, as a view of the model file.

        Args:
            block: A block or its store-wide id.
            counted: Count its edges first, for callers that rely on their number.

        Raises:
            UsageError: No model was given.
            InvalidInputError: The model has no such tensor, or one with other values.
            StoreError: It has other edges than the store says.
        """
        return self._edge_source.matrix(self._block(block), counted=counted)

    @cached_property
    def _blocks(self) -> "list[BlockInfo]":
        from emergraph.graphstore.blockinfo import read_blocks_info

        with translated_errors(self.path):
            return read_blocks_info(self.connection, self.id)

    @cached_property
    def _edge_source(self) -> "BlockEdges":
        from emergraph.graphstore.blockinfo import BlockEdges, layer_units

        units = layer_units(self.connection, self.id)
        return BlockEdges(self.connection, self.path, self.id, self._blocks, units, self.files)

    @cached_property
    def _blocks_by_id(self) -> "dict[int, BlockInfo]":
        return {block.id: block for block in self._blocks}

    def _block(self, block: "BlockInfo | int") -> "BlockInfo":
        if not isinstance(block, int):
            return block
        if block not in self._blocks_by_id:
            raise UsageError(f"no block {block} in graph {printable(self.name, limit=60)!r}")
        return self._blocks_by_id[block]

    def _frame(self, sql: str) -> pl.DataFrame:
        with translated_errors(self.path):
            return fetch_counted(self.connection, sql, [self.id])

    def _trace_id(self, trace: str | int | None) -> int:
        rows = self.connection.execute(
            "SELECT id, name FROM traces WHERE graph = ? ORDER BY id", [self.id]
        ).fetchall()
        if trace is None and rows:
            return int(rows[-1][0])
        for identifier, name in rows:
            if trace in (name, identifier):
                return int(identifier)
        graph = f"graph {printable(self.name, limit=60)!r}"
        if not rows:
            raise UsageError(f"{graph} has no activation trace; {self._tracing()} makes one")
        raise UsageError(unknown("trace", trace, [name for _, name in rows]))

    def _tracing(self) -> str:
        """The command that would trace the graph."""
        words = ["emergraph", "trace", str(self.path), "INPUTS.npz", "--model", str(self.summary["source"])]
        return f"`{printable(shlex.join(words))}`"


def _edge_kind(kind: EdgeKind | str) -> EdgeKind:
    try:
        return EdgeKind(kind)
    except ValueError:
        raise UsageError(unknown("edge kind", kind, EdgeKind)) from None
