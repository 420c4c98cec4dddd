"""A circuit for the attribution-graph viewer that circuit-tracer serves: a folder with two JSON files.

What the viewer calls tokens are the input units that the circuit reads, and its features are units.
"""

import json
from pathlib import Path
from typing import Any

from emergraph.errors import UsageError
from emergraph.graphstore.reader import GraphReader
from emergraph.safetext import escape_controls

FORMAT = "attribution-graph"
FEWEST_TOKENS = 2
"""The viewer deletes what is at more than two thirds of the tokens: of one token, everything."""
_UNITS = """
WITH ends AS (
    SELECT unit FROM circuit_units WHERE run = $run
    UNION SELECT unnest([src, dst]) FROM circuit_edges WHERE run = $run
)
SELECT e.unit, u.role, l.name, u.position, dense_rank() OVER (ORDER BY l.depth, l.id), c.effect, a.mean
FROM ends AS e JOIN units AS u ON u.graph = $graph AND u.id = e.unit
JOIN layers AS l ON l.graph = $graph AND l.id = u.layer
LEFT JOIN circuit_units AS c ON c.run = $run AND c.unit = e.unit
LEFT JOIN activations AS a ON a.unit = e.unit
    AND a.trace = (SELECT max(id) FROM traces WHERE graph = $graph)
ORDER BY l.depth, l.id, u.position
"""
_EDGES = "SELECT src, dst, weight FROM circuit_edges WHERE run = $run ORDER BY src, dst, kind"


def write_attribution_graph(reader: GraphReader, folder: Path) -> int:
    """Write the newest circuit of a graph.

    Returns:
        Number of edges.

    Raises:
        UsageError: No circuit of the graph was looked for.
    """
    found = reader.connection.execute(
        "SELECT max(id), arg_max(parameters, id) FROM runs WHERE graph = ? AND command = 'circuit'",
        [reader.id],
    ).fetchone()
    if found is None or found[0] is None:
        raise UsageError(
            f"graph '{escape_controls(reader.name)}' has no circuit; `emergraph circuit STORE --model FILE "
            "--inputs FILE.npz` looks for one"
        )
    run, parameters = int(found[0]), json.loads(str(found[1]))
    asked = {"run": run, "graph": reader.id}
    units = reader.connection.execute(_UNITS, asked).fetchall()
    edges = reader.connection.execute(_EDGES, {"run": run}).fetchall()
    model = attribution_graph(reader.name, run, parameters, units, edges)
    folder.mkdir()
    slug = str(model["metadata"]["slug"])
    (folder / f"{slug}.json").write_text(json.dumps(model, indent=1), encoding="utf-8")
    index = {"graphs": [model["metadata"]]}
    (folder / "graph-metadata.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return len(model["links"])


def attribution_graph(
    name: str,
    run: int,
    parameters: dict[str, object],
    units: list[tuple[Any, ...]],
    edges: list[tuple[Any, ...]],
) -> dict[str, Any]:
    """A circuit as the viewer reads it.

    Args:
        name: Of the graph.
        run: Id of the run.
        parameters: Of the run.
        units: unit, role, layer, position, rank of the layer, effect, mean activation; by layer.
        edges: src, dst, weight.
    """
    inputs = [row for row in units if row[1] == "input"]
    hidden = sorted({row[4] for row in units if row[1] == "hidden"})
    nodes = [_node(row, inputs, hidden) for row in units]
    ids = {row[0]: node["node_id"] for row, node in zip(units, nodes, strict=True)}
    links = [
        {"source": ids[src], "target": ids[dst], "weight": 1.0 if weight is None else float(weight)}
        for src, dst, weight in edges
    ]
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in name).strip("-") or "graph"
    target = escape_controls(str(parameters.get("target") or "the first output"))
    return {
        "metadata": {
            "slug": f"{plain}-circuit-{run}",
            "scan": "emergraph",
            "transcoder_list": [],
            "prompt_tokens": [*map(_label, inputs), *[""] * (FEWEST_TOKENS - len(inputs))],
            "prompt": f"{escape_controls(name)}: circuit of {target}",
            "node_threshold": None,
            "schema_version": 1,
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": nodes,
        "links": links,
    }


def _label(row: tuple[Any, ...]) -> str:
    return f"{escape_controls(str(row[2]))}[{row[3]}]"


def _node(row: tuple[Any, ...], inputs: list[tuple[Any, ...]], hidden: list[int]) -> dict[str, Any]:
    unit, role, _, _, rank, effect, mean = row
    last = max(0, len(inputs) - 1)
    known = None if effect is None else float(effect)
    node: dict[str, Any] = {
        "feature": int(unit),
        "ctx_idx": last,
        "reverse_ctx_idx": 0,
        "run_idx": 0,
        "is_target_logit": False,
        "token_prob": 0.0,
        "clerp": _label(row),
        "influence": known,
        "activation": None if mean is None else float(mean),
    }
    if role == "input":
        place = inputs.index(row)
        layer, kind = "E", "embedding"
        node |= {"ctx_idx": place, "reverse_ctx_idx": last - place}
    elif role == "output":
        layer, kind = str(len(hidden) + 1), "logit"
        share = float(mean) if mean is not None and 0 <= mean <= 1 else 0.0
        node |= {"token_prob": share, "clerp": f'Output "{_label(row)}" (p={share:.3f})'}
    else:
        layer, kind = str(hidden.index(rank)), "cross layer transcoder"
    node_id = f"{layer}_{unit}_{node['ctx_idx']}"
    return {
        "node_id": node_id,
        "layer": layer,
        "feature_type": kind,
        "jsNodeId": f"{layer}_{unit}-{node['reverse_ctx_idx']}",
        **node,
    }
