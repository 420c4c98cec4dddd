"""What a page for walking through a graph shows, gathered from the store and packed."""

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.declaration import Query
from emergraph.analysis.explorer.options import ExplorerOptions
from emergraph.analysis.explorer.unitcolumns import UnitColumns, unit_columns
from emergraph.analysis.figures.folding import folds_of
from emergraph.analysis.figures.layermap import LAYER_MAP, folded, placed
from emergraph.analysis.figures.names import short_name
from emergraph.analysis.figures.reading import newest_run, question, read_figure
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.analysis.unitgraph import ROLES, UnitGraph
from emergraph.errors import LimitError, StoreError
from emergraph.graphstore.frames import fetch_frame
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.results import result_columns
from emergraph.graphstore.text import printable, stored_object
from emergraph.safetext import escape_controls, reveal_lookalikes
from emergraph.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_UNITS = 1_000_000
"""Units that a page is meant for; each takes about 60 bytes, and its edges more."""
MOST_STRONGEST = 20
"""Edges kept on each side of a unit, where nobody says how many."""
MOST_EDGES = 600_000
"""Edges, counted at both ends, that a page has where nobody says how many: about 5 MB of it."""
MOST_CIRCUITS = 12
"""Runs of `circuit` that are overlays, the newest ones."""
LABEL = 24

_FINDINGS = "SELECT * EXCLUDE (run) FROM audit_findings WHERE run = {run} ORDER BY place"
_FINDING_UNITS = """
SELECT DISTINCT a.place, u.id FROM audit_units AS a
JOIN layers AS l ON l.graph = ? AND l.name = a.layer
JOIN units AS u ON u.graph = l.graph AND u.layer = l.id AND u.position = a.position
WHERE a.run = ? ORDER BY a.place, u.id"""
_CIRCUITS = """
SELECT c.run, c.n_units, c.kept, c.share, r.parameters FROM circuits AS c JOIN runs AS r ON r.id = c.run
WHERE r.graph = {graph} ORDER BY c.run DESC LIMIT {most}"""

Arrays = dict[str, NDArray[Any]]
_TYPES = {"float32": "f4", "uint32": "u4", "uint16": "u2", "uint8": "u1"}
MOST_HELD = 4_000_000
"""Edges that are candidates at a time, about 20 bytes each and side."""

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class KeptEdges:
    """Edges by source, then by falling strength, then by block and target."""

    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    block: NDArray[np.int32]
    """Place in `UnitGraph.blocks`."""
    weight: NDArray[np.float32]
    """NaN without a weight."""
    strength: NDArray[np.float32]
    """|w|; the l1 norm of a kernel; 1 without a weight."""


def strongest_edges(graph: UnitGraph, k: int) -> KeptEdges:
    """Return the edges that are among the k strongest into their target, or out of their source.

    Of equally strong edges, those of the first blocks, sources and targets are kept. A weight that is no
    number is stronger than all others: nobody should miss it.
    """
    held: dict[str, list[Columns]] = {"src": [], "dst": []}
    place = {block.id: number for number, block in enumerate(graph.blocks)}
    for block, edges in graph.iter_pieces(columns=("src", "dst", "weight", "l1")):
        part = _columns(edges, place[block.id], weighted=block.tensor is not None)
        if not (_ascends(block.src_units) and _ascends(block.dst_units)):
            part = _ordered(part)
        for side, parts in held.items():
            parts.append(_best(part, side, k))
            if sum(len(one["src"]) for one in parts) > MOST_HELD:
                parts[:] = [_best(_ordered(_joined(parts)), side, k)]
    if not any(len(one["src"]) for one in held["src"]):
        none = np.zeros(0, np.int32)
        return KeptEdges(none, none, none, none.astype(np.float32), none.astype(np.float32))
    both = _joined([_best(_ordered(_joined(parts)), side, k) for side, parts in held.items()])
    order = np.lexsort((both["dst"], both["block"], -both["strength"], both["src"]))
    kept = {name: column[order] for name, column in both.items()}
    new = np.ones(len(order), np.bool_)
    new[1:] = np.any([kept[name][1:] != kept[name][:-1] for name in ("src", "dst", "block")], axis=0)
    return KeptEdges(**{name: column[new] for name, column in kept.items()})


def _columns(edges: Mapping[str, NDArray[Any]], block: int, *, weighted: bool) -> Columns:
    weight = np.asarray(edges["weight"], np.float32)
    strength = np.asarray(edges["l1"], np.float32)
    return {
        "src": np.asarray(edges["src"], np.int32),
        "dst": np.asarray(edges["dst"], np.int32),
        "block": np.full(len(weight), block, np.int32),
        "weight": weight,
        "strength": np.where(np.isnan(strength), np.float32(np.inf if weighted else 1.0), strength),
    }


def _ascends(units: NDArray[Any] | None) -> bool:
    """Whether edges come in the order of these rows or columns; those of no matrix do."""
    return units is None or bool(np.all(units[1:] > units[:-1]))


def _ordered(part: Columns) -> Columns:
    order = np.lexsort((part["dst"], part["src"], part["block"]))
    return {name: column[order] for name, column in part.items()}


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _best(part: Columns, side: str, k: int) -> Columns:
    """The k strongest edges of each unit on one side; of equal ones the first, in the order given."""
    units = part[side]
    # one sort by unit and falling strength: the bits of floats that are not negative are in their order
    falling = np.uint64(0xFFFFFFFF) - part["strength"].view(np.uint32).astype(np.uint64)
    key = (units.astype(np.uint64) << np.uint64(32)) | falling
    order = np.argsort(key, kind="stable")
    sorted_units = units[order]
    first = np.flatnonzero(np.concatenate(([True], sorted_units[1:] != sorted_units[:-1])))
    lengths = np.diff(np.append(first, len(order))) if len(order) else np.zeros(0, np.int64)
    rank = np.arange(len(order)) - np.repeat(first[: len(lengths)], lengths)
    chosen = np.sort(order[rank < k])
    return {name: column[chosen] for name, column in part.items()}


def explorer_data(reader: GraphReader, options: ExplorerOptions) -> str:
    """Return everything that a page shows of a graph, packed as one text; the same for the same graph.

    Raises:
        LimitError: The graph has more units than a page is meant for.
    """
    graph = read_unit_graph(reader)
    if graph.n_units > MOST_UNITS:
        raise LimitError(
            f"graph {printable(reader.name, limit=60)!r}: {graph.n_units:,} units, and a page is meant for "
            f"{MOST_UNITS:,}; `emergraph report` shows the layers, `emergraph sql` the units"
        )
    k = options.strongest or strongest_by_default(graph.n_units)
    lacking = graph.lacks_weights(graph.blocks)
    kept = strongest_edges(graph, k) if not lacking else None
    columns = unit_columns(reader)
    header: dict[str, Any] = {
        "form": "emergraph-explorer/1",
        "title": escape_controls(reader.name),
        "store": escape_controls(reader.path.name),
        "tool": __version__,
        "graph": reader.id,
        "units": graph.n_units,
        "edges": graph.n_edges,
        "kept": 0 if kept is None else len(kept.src),
        "k": k,
        "lacking": _lacking(reader) if lacking else "",
        "sql": {
            "units": columns.sql,
            **{q.name: question(q, reader.id, None) for q in LAYER_MAP.queries[:2]},
        },
        **_layers(reader, graph),
        "columns": [
            {"name": name, "title": title, "from": source, "about": about}
            for name, title, source, about in zip(
                columns.names, columns.titles, columns.sources, columns.meanings, strict=True
            )
        ],
        "left_out": list(columns.left_out),
    }
    arrays = _unit_arrays(reader, columns, header)
    if kept is not None:
        arrays |= _edge_arrays(kept, graph.n_units)
    arrays |= _findings(reader, graph, header)
    arrays |= _circuits(reader, header)
    return packed(header, arrays)


def strongest_by_default(n_units: int) -> int:
    """Return how many edges are kept on each side of a unit, where nobody says how many."""
    return max(1, min(MOST_STRONGEST, MOST_EDGES // (2 * max(n_units, 1))))


def _lacking(reader: GraphReader) -> str:
    source = escape_controls(str(reader.summary["source"]) or "MODEL")
    return f"emergraph explore {escape_controls(reader.path.name)} --model {source}"


def _layers(reader: GraphReader, graph: UnitGraph) -> dict[str, Any]:
    """Layers, blocks of edges, what repeats, and where the boxes of the map are."""
    layers = reader.layers()
    names = [escape_controls(name) for name in layers["name"]]
    revealed = reveal_lookalikes(names)
    shown = [revealed.get(name, name) for name in names]
    drawn = read_figure(reader, LAYER_MAP)
    frames = {} if drawn is None else drawn.frames
    boxes: Mapping[int, Any] = {}
    if frames:
        boxes = placed(*folded(frames["layers"], frames["blocks"])[:2])
    folds = (
        folds_of(layers.to_dicts(), frames["blocks"].select("src", "dst", "kind").iter_rows())
        if frames
        else []
    )
    place = {layer.id: number for number, layer in enumerate(graph.layers)}
    return {
        "layers": [
            {
                "id": row["id"],
                "name": name,
                "short": short_name(name, LABEL),
                "op": escape_controls(row["op"]),
                "kind": row["kind"],
                "depth": row["depth"],
                "first": row["first_unit"],
                "n": row["n_units"],
                "params": row["n_params"],
                "zeros": row["n_zeros"],
                **(
                    {"x": round(boxes[row["id"]].x), "y": round(boxes[row["id"]].y)}
                    if row["id"] in boxes
                    else {}
                ),
            }
            for row, name in zip(layers.iter_rows(named=True), shown, strict=True)
        ],
        "folds": [{"start": fold.start, "size": fold.size, "times": fold.times} for fold in folds],
        "blocks": [
            {
                "id": row["id"],
                "name": escape_controls(row["name"]),
                "kind": row["kind"],
                "layer": place[row["layer"]],
                "from": [place[source] for source in row["src_layers"] or () if source in place],
                "n": row["n_edges"],
                "tensor": None if row["tensor"] is None else escape_controls(row["tensor"]),
            }
            for row in reader.blocks().iter_rows(named=True)
        ],
    }


def _unit_arrays(reader: GraphReader, columns: UnitColumns, header: dict[str, Any]) -> Arrays:
    """The columns of units: numbers as floats, words as places in lists; those without any are dropped."""
    frame = fetch_frame(reader.connection, columns.sql.replace("{layer}", "").replace("{order}", "u.id"))
    if not frame["unit"].equals(pl.int_range(header["units"], eager=True).cast(frame["unit"].dtype)):
        raise StoreError(
            f"{printable(str(reader.path))}: damaged, a trace or result has several rows for a unit; "
            "restore it from a copy, or run the analyses again"
        )
    header["roles"] = [str(role) for role in ROLES]
    roles = frame["role"].replace_strict({str(role): code for code, role in enumerate(ROLES)})
    words = frame["activation"].fill_null("").cast(pl.String)
    known = words.unique(maintain_order=True).to_list()
    header["activations"] = [escape_controls(word) for word in known]
    place = {word: code for code, word in enumerate(known)}
    arrays: Arrays = {
        "role": roles.to_numpy().astype(np.uint8),
        "activation": np.asarray([place[word] for word in words], np.uint16),
    }
    used: list[dict[str, str]] = []
    for number, name in enumerate(columns.names):
        values = frame[name].cast(pl.Float64).to_numpy()
        if not np.isnan(values).all():
            arrays[f"column{len(used)}"] = rounded(values)
            used.append(header["columns"][number])
    header["columns"] = used
    return arrays


def _edge_arrays(kept: KeptEdges, n_units: int) -> Arrays:
    """Edges by source: how many each has stands for its id. Only kernels have a strength of their own."""
    own = np.abs(kept.weight) != kept.strength
    return {
        "out": np.bincount(kept.src, minlength=n_units).astype(np.uint32),
        "dst": kept.dst.astype(np.uint32),
        "block": kept.block.astype(np.uint32),
        "weight": kept.weight,
        "strength": np.where(own, kept.strength, np.float32(np.nan)).astype(np.float32),
    }


def _findings(reader: GraphReader, graph: UnitGraph, header: dict[str, Any]) -> Arrays:
    """The findings of the newest audit, with their layers, and their units where they are kept."""
    header["findings"] = []
    run = newest_run(reader, Query(name="findings", sql="", table="audit_findings"))
    if run is None:
        return {"finding_units": np.zeros(0, np.uint32)}
    header["sql"]["findings"] = _FINDINGS.format(run=run.id)
    by_name = {layer.name: number for number, layer in enumerate(graph.layers)}
    units = _units_of_findings(reader, run.id)
    together: list[int] = []
    for row in fetch_frame(reader.connection, header["sql"]["findings"]).to_dicts():
        own = units.get(row["place"], [])
        together += own
        texts = {
            name: escape_controls(str(row[name])) for name in ("severity", "grade", "sentence", "action")
        }
        layers = [by_name[name] for name in row["layers"] or () if name in by_name]
        header["findings"].append({**texts, "layers": layers, "units": len(own), "about": row["n_units"]})
    return {"finding_units": np.asarray(together, np.uint32)}


def _units_of_findings(reader: GraphReader, run: int) -> dict[int, list[int]]:
    """By place of a finding, the units that it is about; none of runs from before they were kept."""
    if not result_columns(reader.connection, "audit_units"):
        return {}
    rows = reader.connection.execute(_FINDING_UNITS, [reader.id, run]).fetchall()
    found: dict[int, list[int]] = {}
    for place, unit in rows:
        found.setdefault(place, []).append(unit)
    return found


def _circuits(reader: GraphReader, header: dict[str, Any]) -> Arrays:
    """The newest circuits, with their units and the edges between these."""
    header["circuits"] = []
    units: list[Sequence[int]] = []
    edges: list[pl.DataFrame] = []
    there = newest_run(reader, Query(name="circuits", sql="", table="circuits"))
    asked = _CIRCUITS.format(graph=reader.id, most=MOST_CIRCUITS)
    for row in [] if there is None else fetch_frame(reader.connection, asked).to_dicts():
        run = row["run"]
        of = "SELECT unit FROM circuit_units WHERE run = ? ORDER BY unit"
        units.append(fetch_frame(reader.connection, of, [run])["unit"].to_list())
        pairs = "SELECT DISTINCT src, dst FROM circuit_edges WHERE run = ? ORDER BY src, dst"
        edges.append(fetch_frame(reader.connection, pairs, [run]))
        parameters = stored_object(row["parameters"], f"parameters of run {run}")
        header["circuits"].append(
            {
                "run": run,
                "target": escape_controls(str(parameters.get("target") or "the first output")),
                "kept": row["kept"],
                "share": row["share"],
                "units": len(units[-1]),
                "edges": edges[-1].height,
            }
        )
    together = (
        pl.concat(edges)
        if edges
        else pl.DataFrame({"src": [], "dst": []}, schema={"src": pl.Int64, "dst": pl.Int64})
    )
    return {
        "circuit_units": np.asarray([unit for one in units for unit in one], np.uint32),
        "circuit_src": together["src"].to_numpy().astype(np.uint32),
        "circuit_dst": together["dst"].to_numpy().astype(np.uint32),
    }


def packed(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return a header and arrays as one ASCII text, the same for the same values.

    The bytes of an array lie plane by plane, all lowest bytes first: of small numbers, the other planes are
    zeros, and of floats the planes of the exponents repeat; both deflate well.

    Args:
        header: What JSON can hold; `arrays` is added: name, type and length of each array.
        arrays: One-dimensional, of float32 or unsigned integers.
    """
    listed = [(name, _TYPES[array.dtype.name], int(array.size)) for name, array in arrays.items()]
    text = json.dumps({**header, "arrays": listed}, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    parts = [struct.pack("<I", len(text)), text.encode()]
    for (_, kind, length), array in zip(listed, arrays.values(), strict=True):
        raw = np.ascontiguousarray(array, dtype=f"<{kind}").view(np.uint8)
        parts.append(raw.reshape(length, int(kind[1])).T.tobytes())
    return base64.b64encode(zlib.compress(b"".join(parts), 9)).decode()


def rounded(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32 values with 16 of their 23 bits behind the point: five digits, and a byte of zeros."""
    exact = np.asarray(values, np.float32)
    bits = (exact.view(np.uint32).astype(np.uint64) + np.uint64(0x40)) >> np.uint64(7) << np.uint64(7)
    return np.where(np.isfinite(exact), bits.astype(np.uint32).view(np.float32), exact).astype(np.float32)
