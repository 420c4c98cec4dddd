"""The rows of a graph's small tables, as Arrow columns."""

import math
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emergraph.graphstore.catalog import to_json
from emergraph.graphstore.frames import insert
from emergraph.graphstore.layout import BlockRow, LayerStarts
from emergraph.graphstore.modelfiles import Coding
from emergraph.graphstore.records import (
    NEURON_LAYER_KINDS,
    GraphFooter,
    GraphHeader,
    Layer,
    Operation,
    UnitColumns,
)
from emergraph.graphstore.schema import utc_now
from emergraph.graphstore.text import storable
from emergraph.version import __version__

Columns = dict[str, pa.Array]


def graph_row(
    header: GraphHeader,
    footer: GraphFooter,
    *,
    graph: int,
    name: str,
    layers: Sequence[Layer],
    blocks: Sequence[BlockRow],
) -> Columns:
    """Return the one row of `graphs`."""
    values: Mapping[str, tuple[object, pa.DataType]] = {
        "id": (graph, pa.int32()),
        "name": (name, pa.string()),
        "source": (storable(header.source), pa.string()),
        "sha256": (header.sha256, pa.string()),
        "format": (header.format, pa.string()),
        "producer": (storable(header.producer), pa.string()),
        "wiring": (header.wiring, pa.string()),
        "parent": (header.parent, pa.int32()),
        "step": (header.step, pa.int64()),
        "settings": (to_json(header.settings), pa.string()),
        "branches": ([storable(branch) for branch in footer.branches], pa.list_(pa.string())),
        "warnings": ([storable(warning) for warning in footer.warnings], pa.list_(pa.string())),
        "n_layers": (len(layers), pa.int32()),
        "n_units": (sum(layer.n_units for layer in layers), pa.int32()),
        "n_neurons": (sum(x.n_units for x in layers if x.kind in NEURON_LAYER_KINDS), pa.int32()),
        "n_blocks": (len(blocks), pa.int32()),
        "n_edges": (sum(row.n_edges for row in blocks), pa.int64()),
        "n_parameters": (footer.n_parameters, pa.int64()),
        "n_parameters_understood": (footer.n_parameters_understood, pa.int64()),
        "n_operations": (footer.n_operations, pa.int32()),
        "n_operations_understood": (footer.n_operations_understood, pa.int32()),
        "tool_version": (__version__, pa.string()),
        "created_at": (utc_now(), pa.timestamp("us")),
    }
    return {column: pa.array([value], kind) for column, (value, kind) in values.items()}


def layer_columns(graph: int, layers: Sequence[Layer]) -> Columns:
    """Return the rows of `layers`."""
    return {
        "graph": _int32([graph] * len(layers)),
        "id": _int32([layer.id for layer in layers]),
        "name": _text([layer.name for layer in layers]),
        "op": _text([layer.op for layer in layers]),
        "kind": _text([layer.kind for layer in layers]),
        "depth": _int32([layer.depth for layer in layers]),
        "first_unit": _int32([layer.first_unit for layer in layers]),
        "n_units": _int32([layer.n_units for layer in layers]),
        "n_params": pa.array([layer.n_params for layer in layers], pa.int64()),
        "n_zeros": pa.array([layer.n_zeros for layer in layers], pa.int64()),
        "dtype": _text([layer.dtype for layer in layers]),
        "activation_tensor": _text([layer.activation_tensor for layer in layers]),
        "activation_axes": list_array([layer.activation_axes for layer in layers], pa.int32()),
        "split_by": _text([layer.split_by for layer in layers]),
    }


def unit_columns(graph: int, layers: Sequence[Layer], given: Sequence[UnitColumns]) -> Columns:
    """Return the rows of `units`.

    Raises:
        ValueError: A layer has no entry or two, or an array has not one element per unit.
    """
    by_layer = {columns.layer: columns for columns in given}
    if len(by_layer) != len(given) or by_layer.keys() != {layer.id for layer in layers}:
        raise ValueError("units: expected one entry for each layer")
    sizes = np.array([layer.n_units for layer in layers], dtype=np.int64)
    n_units = int(sizes.sum())
    starts = np.array([layer.first_unit for layer in layers], dtype=np.int64)
    position = np.arange(n_units) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    columns: Columns = {
        "graph": pa.array(np.full(n_units, graph, dtype=np.int32)),
        "id": pa.array((np.repeat(starts, sizes) + position).astype(np.int32)),
        "layer": pa.array(np.repeat(np.array([layer.id for layer in layers], dtype=np.int32), sizes)),
        "position": pa.array(position.astype(np.int32)),
        "role": _repeated([by_layer[layer.id].role for layer in layers], sizes),
        "neuron": pa.array(np.repeat([layer.kind in NEURON_LAYER_KINDS for layer in layers], sizes)),
        "activation": _repeated([by_layer[layer.id].activation for layer in layers], sizes),
    }
    for name in ("bias", "scale", "shift"):
        values = np.full(n_units, math.nan)
        missing = np.ones(n_units, dtype=np.bool_)
        for layer, end in zip(layers, np.cumsum(sizes), strict=True):
            column = getattr(by_layer[layer.id], name)
            if column is None:
                continue
            if column.shape != (layer.n_units,):
                raise ValueError(
                    f"layer {layer.name!r}: {column.shape} values of {name}, {layer.n_units} units"
                )
            values[end - layer.n_units : end] = column
            missing[end - layer.n_units : end] = np.isnan(column)
        columns[name] = pa.array(values, mask=missing)
    return columns


def block_columns(graph: int, rows: Sequence[BlockRow], starts: LayerStarts) -> Columns:
    """Return the rows of `blocks`.

    Raises:
        ValueError: A block shares its tensor with one that was not written.
    """
    blocks = [row.block for row in rows]
    ids = {row.block.id: row.id for row in rows}
    if unknown := [b.shared_with for b in blocks if b.shared_with is not None and b.shared_with not in ids]:
        raise ValueError(f"blocks: shared with block {unknown[0]}, which was not written")
    sources = [starts.of(row.src) for row in rows]
    with_units = [row.is_matrix or row.dense for row in rows]
    return {
        "id": _int32([row.id for row in rows]),
        "graph": _int32([graph] * len(rows)),
        "number": _int32([block.id for block in blocks]),
        "name": _text([block.name for block in blocks]),
        "op": _text([block.op for block in blocks]),
        "kind": _text([block.kind for block in blocks]),
        "layer": _int32([block.layer for block in blocks]),
        "src_layer": _int32([int(layers[0]) if layers.size == 1 else None for layers, _ in sources]),
        "src_layers": list_array([layers for layers, _ in sources], pa.int32()),
        "src_layer_starts": list_array([firsts for _, firsts in sources], pa.int32()),
        "tensor": _text([block.tensor for block in blocks]),
        "shared_with": _int32([None if b.shared_with is None else ids[b.shared_with] for b in blocks]),
        "note": _text([block.note for block in blocks]),
        "n_edges": pa.array([row.n_edges for row in rows], pa.int64()),
        "n_src": _int32([row.src.size for row in rows]),
        "n_dst": _int32([row.dst.size for row in rows]),
        "dense": pa.array([row.dense for row in rows], pa.bool_()),
        "has_kernels": pa.array([row.has_kernels for row in rows], pa.bool_()),
        "src_units": list_array(
            [r.src if w else None for r, w in zip(rows, with_units, strict=True)], pa.int32()
        ),
        "dst_units": list_array(
            [r.dst if w else None for r, w in zip(rows, with_units, strict=True)], pa.int32()
        ),
        **_places(rows),
    }


_SUMS: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("n_zeros", "n_negative", "n_nonfinite"), pa.int64()),
    **dict.fromkeys(("l1", "l2", "max_abs"), pa.float64()),
}


def _places(rows: Sequence[BlockRow]) -> Columns:
    """Where blocks in place are, and what one pass over each has told; NULL for the others."""
    steps = [None if row.place is None else (row.place.row_step, row.place.column_step) for row in rows]
    return {
        "place_offset": pa.array([None if r.place is None else r.place.offset for r in rows], pa.int64()),
        "place_steps": list_array(steps, pa.int64()),
        **{
            name: pa.array([None if row.sums is None else getattr(row.sums, name) for row in rows], kind)
            for name, kind in _SUMS.items()
        },
    }


def strength_columns(rows: Sequence[BlockRow]) -> Columns:
    """Return the rows of `strengths`: of the blocks in place."""
    sides = [
        (row.id, units, outgoing, side)
        for row in rows
        if row.sums is not None
        for units, outgoing, side in ((row.src, True, row.sums.sources), (row.dst, False, row.sums.targets))
    ]
    sizes = [units.size for _, units, _, _ in sides]

    def joined(parts: Sequence[NDArray[np.generic]], kind: pa.DataType) -> pa.Array:
        return pa.array(np.concatenate([*parts, np.empty(0, kind.to_pandas_dtype())]), kind)

    return {
        "block": _int32(np.repeat([block for block, _, _, _ in sides], sizes).astype(np.int32)),
        "unit": joined([units for _, units, _, _ in sides], pa.int32()),
        "outgoing": pa.array(np.repeat([outgoing for _, _, outgoing, _ in sides], sizes).astype(np.bool_)),
        "degree": joined([side.degree for _, _, _, side in sides], pa.int32()),
        "total": joined([side.total for _, _, _, side in sides], pa.float64()),
        "l1": joined([side.l1 for _, _, _, side in sides], pa.float64()),
    }


def coding_columns(graph: int, rows: Sequence[BlockRow], made: Mapping[str, Coding]) -> Columns:
    """Return the rows of `codings`.

    Args:
        graph: Id of the graph.
        rows: Its blocks.
        made: How values of tensors that stay in the file are made, by the name of the tensor.
    """
    found: list[tuple[str, int | None, str]] = [
        (name, None, coding.text(whole=True)) for name, coding in made.items()
    ]
    found += [
        (row.place.tensor, row.id, row.place.coding.text(whole=False))
        for row in rows
        if row.place is not None and row.place.coding is not None
    ]
    return {
        "graph": _int32([graph] * len(found)),
        "tensor": _text([name for name, _, _ in found]),
        "block": _int32([block for _, block, _ in found]),
        "coding": pa.array([text for _, _, text in found], pa.string()),
    }


def operation_columns(graph: int, operations: Sequence[Operation]) -> Columns:
    """Return the rows of `operations`."""
    return {
        "graph": _int32([graph] * len(operations)),
        "position": _int32([operation.index for operation in operations]),
        "name": _text([operation.name for operation in operations]),
        "op": _text([operation.op for operation in operations]),
        "domain": _text([operation.domain for operation in operations]),
        "traced_as": _text([operation.traced_as for operation in operations]),
        "reason": _text([operation.reason for operation in operations]),
        "n_params": pa.array([operation.n_params for operation in operations], pa.int64()),
    }


def _int32(values: Sequence[int | None] | NDArray[np.int32]) -> pa.Array:
    return pa.array(values, pa.int32())


def _text(values: Sequence[str | None]) -> pa.Array:
    return pa.array([None if value is None else storable(str(value)) for value in values], pa.string())


def _repeated(values: Sequence[str | None], sizes: np.ndarray) -> pa.Array:
    """Return each text as often as its size says, as a dictionary array."""
    indices = np.repeat(np.arange(len(values), dtype=np.int32), sizes)
    return pa.DictionaryArray.from_arrays(pa.array(indices), _text(values))


def insert_rows(connection: duckdb.DuckDBPyConnection, table: str, columns: Mapping[str, pa.Array]) -> int:
    """Append rows to a table of the schema, columns matched by name; those not given become NULL."""
    return insert(
        connection, pa.table(dict(columns)), "INSERT INTO {table} BY NAME SELECT * FROM {chunk}", table=table
    )


def list_array(lists: Sequence[Sequence[int] | NDArray[np.integer] | None], kind: pa.DataType) -> pa.Array:
    """Return an Arrow array of integer lists, NULL where the list is None."""
    lengths = [0 if entries is None else len(entries) for entries in lists]
    offsets = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    filled = [np.asarray(entries, dtype=kind.to_pandas_dtype()) for entries in lists if entries is not None]
    values = np.concatenate(filled) if filled else np.empty(0, dtype=kind.to_pandas_dtype())
    mask = pa.array([entries is None for entries in lists], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind), mask=mask)
