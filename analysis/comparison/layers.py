"""Layers of two graphs: which stand for each other, and which are new or gone."""

from collections.abc import Sequence

import polars as pl

from emergraph.analysis.comparison.matching import Matching
from emergraph.analysis.comparison.unitmatching import Link
from emergraph.graphstore.reader import GraphReader

SCHEMA = {
    "state": pl.String,
    "name_a": pl.String,
    "name_b": pl.String,
    "op": pl.String,
    "units_a": pl.Int64,
    "units_b": pl.Int64,
    "parameters_a": pl.Int64,
    "parameters_b": pl.Int64,
}


def compared_layers(a: GraphReader, b: GraphReader, matching: Matching, changed: set[str]) -> pl.DataFrame:
    """Return one row per layer of A, those that only B has last.

    Two layers stand for each other when tensors that lead into them were matched, or when they have the same
    name. A pair is `changed` when its units differ in number, or a tensor that leads into it changed or has
    no counterpart.

    Args:
        a: The first graph.
        b: The second one.
        matching: Their weight tensors.
        changed: Names of tensors of A that changed.
    """
    ours = {row["name"]: row for row in a.layers().iter_rows(named=True)}
    theirs = {row["name"]: row for row in b.layers().iter_rows(named=True)}
    partner: dict[str, str] = {}
    touched: set[str | None] = set()
    for pair in matching.pairs:
        if pair.a.layer is None or pair.b.layer is None:
            continue
        if pair.a.layer not in partner and pair.b.layer not in partner.values():
            partner[pair.a.layer] = pair.b.layer
        if pair.a.name in changed:
            touched.add(pair.a.layer)
    for name in ours:
        if name not in partner and name in theirs and name not in partner.values():
            partner[name] = name
    touched |= {weight.layer for weight in matching.only_a}
    unmatched = {weight.layer for weight in matching.only_b}
    touched |= {name for name, other in partner.items() if other in unmatched}
    rows = [_row(row, theirs.get(partner.get(name, "")), touched) for name, row in ours.items()]
    rows += [_row(None, row, touched) for name, row in theirs.items() if name not in partner.values()]
    return pl.DataFrame(rows, schema=SCHEMA)


def _row(
    a: dict[str, object] | None, b: dict[str, object] | None, touched: set[str | None]
) -> dict[str, object]:
    known = a or b or {}
    if a is None or b is None:
        state = "added" if a is None else "removed"
    else:
        same = a["n_units"] == b["n_units"] and a["name"] not in touched
        state = "same" if same else "changed"
    return {
        "state": state,
        "name_a": a and a["name"],
        "name_b": b and b["name"],
        "op": known["op"],
        "units_a": a and a["n_units"],
        "units_b": b and b["n_units"],
        "parameters_a": a and a["n_params"],
        "parameters_b": b and b["n_params"],
    }


def free_layers(reader: GraphReader, links: Sequence[Link]) -> dict[str, int]:
    """Return the hidden layers whose units could be numbered otherwise, with their numbers of units.

    All blocks into and out of such a layer are matrices that were compared, and its units are neither inputs
    nor outputs: a residual sum or an attention head would tie its units to others.
    """
    names = dict(reader.layers().select("id", "name").iter_rows())
    sizes = dict(reader.layers().select("name", "n_units").iter_rows())
    ends = set(reader.units().filter(pl.col("role") != "hidden")["layer"].unique().to_list())
    compared = {(link.src, link.dst) for link in links}
    tied = {names[layer] for layer in ends}
    leads_out = set()
    for block in reader.blocks_info():
        target = names[block.layer]
        source = None if block.src_layer is None else names[block.src_layer]
        if source is None or (source, target) not in compared:
            tied |= {target} | {names[layer] for layer in _sources(reader, block.id)}
        else:
            leads_out.add(source)
    return {name: sizes[name] for name in sizes if name in leads_out and name not in tied}


def _sources(reader: GraphReader, block: int) -> list[int]:
    rows = reader.connection.execute("SELECT src_layers FROM blocks WHERE id = ?", [block]).fetchall()
    return list(rows[0][0] or ())
