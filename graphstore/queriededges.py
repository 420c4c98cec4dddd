"""Which edges a query can touch, and those of blocks in place among them, read from the model file.

A condition counts where a row of the result has to meet it: a comparison of a column with constants among the
parts of a WHERE that are joined by AND. Everything else is taken to touch all edges, so that no edge is
missing.
"""

import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.blockinfo import BlockInfo
from emergraph.graphstore.definitions import foreign_views
from emergraph.graphstore.inplace import Matrix, edge_pieces
from emergraph.graphstore.modelfiles import required
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.sqltree import Tree, parse
from emergraph.graphstore.store import StoreFile
from emergraph.graphstore.text import printable

EDGE_TABLES = frozenset({"edges", "connections"})
"""What holds edges of blocks in place, once a model is given."""
EDGES_PER_SECOND = 40e6
"""About how many edges are read from a model file, by one core."""

_COLUMNS = ("block", "src", "dst", "weight")
_SCHEMA = pa.schema(
    [("block", pa.int32()), ("src", pa.int32()), ("dst", pa.int32()), ("weight", pa.float32())]
)
_BY_BLOCK = frozenset({"graph", "layer", "src_layer", "kind", "block", "tensor"})
_BY_UNIT = frozenset({"src", "dst"})
_COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "COMPARE_EQUAL": operator.eq,
    "COMPARE_LESSTHAN": operator.lt,
    "COMPARE_GREATERTHAN": operator.gt,
    "COMPARE_LESSTHANOREQUALTO": operator.le,
    "COMPARE_GREATERTHANOREQUALTO": operator.ge,
}
_TURNED = {
    operator.lt: operator.gt,
    operator.gt: operator.lt,
    operator.le: operator.ge,
    operator.ge: operator.le,
}


@dataclass(frozen=True)
class Condition:
    """What a column of an edge has to be: one of the values, in a comparison."""

    column: str
    compare: Callable[[Any, Any], Any]
    values: tuple[int | str, ...]

    def holds(self, found: Any) -> Any:  # noqa: ANN401 - a value or an array of them
        """Whether a value, or which of an array of values, meets the condition."""
        met = self.compare(found, self.values[0])
        for value in self.values[1:]:
            met = met | self.compare(found, value)
        return met


def readings(sql: str, *, views: Collection[str] = ()) -> list[tuple[Condition, ...]]:
    """Return the conditions of each place at which a query reads edges; none where it reads no edges.

    Args:
        sql: The query.
        views: Views that somebody else has made, which may read edges.

    Raises:
        UsageError: It is not one SELECT, reads such a view, or names edges with a schema.
    """
    return [found for node in _selects(parse(sql)) for found in _of_select(node, views)]


def read_queried(store: StoreFile, sql: str, *, limit: int) -> pa.Table | None:
    """Return the edges of blocks in place that a query can touch; None where it touches none.

    Args:
        store: The store, open.
        sql: The query.
        limit: Edges that may be read.

    Raises:
        UsageError: No model was given, or the query reads edges in a way that cannot be followed.
        LimitError: More edges would have to be read.
    """
    left = _graphs_in_place(store)
    asked = readings(sql, views=_foreign_views(store)) if left else []
    wanted = [
        (reader, block, *ends)
        for reader in left
        for block in reader.blocks_info()
        if (ends := _touched(reader, block, asked)) is not None
    ]
    if not wanted:
        return None
    total = sum(min(block.n_edges, len(rows) * len(columns)) for _, block, rows, columns in wanted)
    required(wanted[0][0].files, store.path)
    if total > limit:
        seconds = max(1, round(total / EDGES_PER_SECOND))
        raise LimitError(
            f"sql: the query would read {total:,} edges of {len(wanted)} blocks from the model file, about "
            f"{seconds} s; the limit is {limit:,}: ask for fewer (WHERE block = .., layer = .., src = ..), "
            f"ask unit_strengths or blocks, which need no edges, or add --edge-limit {total}"
        )
    batches = [
        _batch(block, piece)
        for reader, block, rows, columns in wanted
        for piece in _selected(reader.matrix(block), block, rows, columns)
    ]
    return pa.Table.from_batches(batches, schema=_SCHEMA)


def _batch(block: BlockInfo, piece: Mapping[str, NDArray[np.generic]]) -> pa.RecordBatch:
    numbers = np.full(piece["src"].size, block.id, np.int32)
    return pa.record_batch([pa.array(column) for column in (numbers, *piece.values())], schema=_SCHEMA)


def _graphs_in_place(store: StoreFile) -> list[GraphReader]:
    sql = "SELECT DISTINCT graph FROM blocks WHERE place_offset IS NOT NULL ORDER BY graph"
    return [store.graph(int(row[0])) for row in store.connection.execute(sql).fetchall()]


def _foreign_views(store: StoreFile) -> frozenset[str]:
    if store.file.is_dir():  # a lake: nobody else defines anything in it
        return frozenset()
    return foreign_views(store.connection)


def _touched(
    reader: GraphReader, block: BlockInfo, asked: Sequence[tuple[Condition, ...]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Rows and columns of a block in place that some reading of edges can touch; None for none."""
    src, dst = block.src_units, block.dst_units
    if block.place is None or src is None or dst is None or not block.n_edges:
        return None
    about = {
        "graph": reader.id,
        "layer": block.layer,
        "src_layer": block.src_layer,
        "kind": block.kind.value,
        "block": block.id,
        "tensor": block.tensor,
    }
    rows, columns = np.zeros(src.size, np.bool_), np.zeros(dst.size, np.bool_)
    for conditions in asked:
        if not all(_may_hold(one, about) for one in conditions):
            continue
        here = [_met(conditions, side, units) for side, units in (("src", src), ("dst", dst))]
        if here[0].any() and here[1].any():
            rows |= here[0]
            columns |= here[1]
    return (np.flatnonzero(rows), np.flatnonzero(columns)) if rows.any() and columns.any() else None


def _met(conditions: Sequence[Condition], side: str, units: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which units of one side meet all conditions on it."""
    met = np.ones(units.size, np.bool_)
    for one in conditions:
        if one.column == side:
            met &= one.holds(units)
    return met


def _may_hold(one: Condition, about: Mapping[str, object]) -> bool:
    """Whether edges of a block can meet a condition; text and numbers are left to DuckDB to compare."""
    found = about.get(one.column)
    if found is None or any(type(value) is not type(found) for value in one.values):
        return True
    return bool(one.holds(found))


def _selected(
    matrix: Matrix, block: BlockInfo, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> Iterator[dict[str, NDArray[np.generic]]]:
    src, dst = block.src_units, block.dst_units
    if src is not None and dst is not None:
        yield from edge_pieces(matrix.select(rows, columns), src[rows], dst[columns], _COLUMNS[1:])


def _selects(tree: object) -> Iterator[Tree]:
    """Every SELECT of a parsed statement, wherever it stands."""
    pending = [tree]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            if current.get("type") == "SELECT_NODE":
                yield current
            pending.extend(current.values())
        elif isinstance(current, list):
            pending.extend(current)


def _of_select(node: Tree, views: Collection[str]) -> Iterator[tuple[Condition, ...]]:
    sources = list(_sources(node.get("from_table")))
    alone = len(sources) == 1
    plain = all(source["type"] != "PIVOT" for source in sources)
    conjuncts = list(_conjuncts(node.get("where_clause"))) if plain else []
    for source in sources:
        name = str(source.get("table_name", "")).lower()
        if name in views:
            raise UsageError(
                f"sql: view {printable(name, limit=60)} is none of emergraph's, and edges of this store "
                "stay in the model file: ask edges itself"
            )
        if name not in EDGE_TABLES:
            continue
        path = source.get("qualified_name", {}).get("path") or [name]
        if len(path) > 1 or source.get("schema_name"):
            raise UsageError(f"sql: {printable('.'.join(map(str, path)))}: name {name} without a schema")
        alias = str(source.get("alias") or name).lower()
        renamed = bool(source.get("column_name_alias"))
        found = () if renamed else conjuncts
        yield tuple(one for part in found for one in _conditions(part, alias, alone=alone))


def _sources(part: object) -> Iterator[Tree]:
    """The tables behind one FROM, those of its subqueries left to their own SELECT."""
    pending = [part]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            if current.get("type") == "JOIN":
                pending += [current.get("left"), current.get("right")]
            elif "type" in current:
                yield current
                pending += [current.get("source")]  # of a PIVOT


def _conjuncts(part: object) -> Iterator[Tree]:
    pending = [part]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            if current.get("type") == "CONJUNCTION_AND":
                pending.extend(current.get("children", []))
            else:
                yield current


def _conditions(part: Tree, alias: str, *, alone: bool) -> Iterator[Condition]:
    """The conditions on an edge that a part of a WHERE is; none where it is too much to follow."""
    kind = str(part.get("type"))
    asked: list[tuple[object, Callable[[Any, Any], Any], Sequence[object]]] = []
    if kind in _COMPARED:
        left, right, compare = part.get("left"), part.get("right"), _COMPARED[kind]
        asked = [(left, compare, [right]), (right, _TURNED.get(compare, compare), [left])]
    elif kind == "COMPARE_IN":
        first, *rest = part.get("children") or [None]
        asked = [(first, operator.eq, rest)]
    elif kind == "COMPARE_BETWEEN":
        column, low, high = part.get("input"), part.get("lower"), part.get("upper")
        asked = [(column, operator.ge, [low]), (column, operator.le, [high])]
    for column, how, values in asked:
        name = _column(column, alias, alone=alone)
        one = _checked(name, how, list(map(_constant, values))) if name is not None and values else None
        if one is not None:
            yield one


def _checked(
    column: str, compare: Callable[[Any, Any], Any], values: Sequence[int | str | None]
) -> Condition | None:
    known = tuple(value for value in values if value is not None)
    wanted = str if column in ("kind", "tensor") else int
    if len(known) < len(values) or not all(isinstance(value, wanted) for value in known):
        return None
    return Condition(column, compare, known)


def _column(part: object, alias: str, *, alone: bool) -> str | None:
    """The column of an edge that an expression is; None for everything else."""
    if not isinstance(part, dict) or part.get("class") != "COLUMN_REF":
        return None
    names = [str(name).lower() for name in part.get("column_names", [])]
    if not names or names[-1] not in _BY_BLOCK | _BY_UNIT:
        return None
    mine = names[:-1] == [alias] if len(names) > 1 else alone
    return names[-1] if mine else None


def _constant(part: object) -> int | str | None:
    """The whole number or text that an expression is; None for everything else."""
    literal = part.get("literal") if isinstance(part, dict) and part.get("class") == "CONSTANT" else None
    if not isinstance(literal, dict):
        return None
    text = str(literal.get("text"))
    if literal.get("kind") == "INTEGER":
        return int(text) if text.isdecimal() else None
    return text if literal.get("kind") == "STRING" else None
