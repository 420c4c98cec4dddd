"""`emergraph info`: one graph of a store, and its layers."""

from typing import Any

from emergraph.analysis.report.texts import percent
from emergraph.analysis.view import View, first_and_last
from emergraph.cli.app import command
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import GraphChoice, StorePath

ROWS = 20
"""Layers that people see: those at both ends of the network."""
HEAD = ("name", "id", "source", "sha256", "format", "producer", "wiring")


@command(
    examples="""
    emergraph info net.duckdb
    emergraph info net.duckdb --graph digits_conv --format json
    """
)
def info(store: StorePath, *, graph: GraphChoice = None, output: Output) -> None:
    """Show what a graph is, how much of its model is understood, and its layers."""
    import polars as pl

    from emergraph.graphstore.store import open_store

    with open_store(store) as opened:
        chosen = opened.graph(graph)
        about: dict[str, Any] = dict(chosen.summary)
        layers, traces, metrics = chosen.layers(), chosen.traces(), chosen.metrics()
        operations, blocks = chosen.operations(), chosen.blocks()
    in_place = int(blocks.filter(pl.col("place_offset").is_not_null())["n_edges"].sum())
    opaque = operations.filter(traced_as="opaque")
    by_kind = blocks.group_by("kind", maintain_order=True).agg(n_edges=pl.col("n_edges").sum())
    kinds = dict(by_kind.iter_rows())
    facts: dict[str, object] = {name: about[name] for name in HEAD}
    facts |= {
        "units": about["n_units"],
        "neurons": about["n_neurons"],
        "edges": about["n_edges"],
        **({"edges in the file": in_place} if in_place else {}),
        "edges by kind": [f"{count:,} {kind}" for kind, count in kinds.items()],
        "parameters": about["n_parameters"],
        "parameters understood": percent(about["n_parameters_understood"], about["n_parameters"]),
        "operations understood": percent(about["n_operations_understood"], about["n_operations"]),
        "branches": about["branches"],
        "step": about["step"],
        "metrics": [f"{name} {value:.6g}" for name, value in metrics.iter_rows()],
        "traces": traces["name"].to_list(),
        "created": about["created_at"],
    }
    notes = list(about["warnings"])
    notes += [f"not understood: {row['op']} {row['name']}: {row['reason']}" for row in opaque.to_dicts()]
    document = {
        **about,
        "edges_in_place": in_place,
        "edges_by_kind": kinds,
        "layers": layers,
        "traces": traces,
        "not_understood": opaque,
    }
    short = layers.select("id", "name", "op", "kind", "depth", "n_units", "n_params", "n_zeros", "dtype")
    finding = (
        f"{about['name']}: {about['n_units']:,} units and {about['n_edges']:,} edges in {layers.height} "
        f"layers; {facts['parameters understood']} of {about['n_parameters']:,} parameters are understood."
    )
    view = View(
        finding=finding,
        rows=short,
        brief=[first_and_last(short, ROWS)],
        facts=facts,
        document=document,
        notes=notes,
    )
    emit(view, output)
