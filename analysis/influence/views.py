"""What is shown of knock-outs."""

from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.view import View

if TYPE_CHECKING:
    from emergraph.analysis.influence.knockouts import InfluenceResult

MOST_NAMED = 5


def influence_view(result: "InfluenceResult") -> View:
    """The knock-outs, largest effect first, layers before heads before units."""
    names = pl.col("layer").replace_strict(result.layer_names, return_dtype=pl.String)
    first = pl.col("layer").replace_strict(result.first_units, return_dtype=pl.Int64)
    order = pl.col("what").replace_strict({"layer": 0, "head": 1, "unit": 2}, return_dtype=pl.Int64)
    rows = result.frame.with_columns(layer_name=names, position=pl.col("unit") - first, order=order)
    rows = rows.sort("order", "effect", descending=[False, True], nulls_last=True).drop("order")
    silent = result.structure_only
    facts: dict[str, object] = {
        "graph": result.graph,
        "output": result.output,
        "effect": "KL divergence, nats" if result.measure == "kl" else "mean squared difference",
        "replaced by": result.baseline,
        "samples": result.n_samples,
        "structure only": f"{silent.height} units never moved {result.output}",
    }
    notes = [f"layer {layer} is left out: {why}" for layer, why in result.left_out.items()]
    by_way: dict[str, list[str]] = {}
    for layer, how in result.runs.items():
        by_way.setdefault(how, []).append(layer)
    for how, layers in by_way.items():
        named = ", ".join(layers[:MOST_NAMED]) + (", ..." if len(layers) > MOST_NAMED else "")
        notes.append(f"{named}: {how}")
    return View(
        rows=rows,
        columns=(
            "what",
            "layer_name",
            "position",
            "effect",
            "low",
            "high",
            "largest",
            "target_change",
            "decisions",
            "n",
        ),
        facts=facts,
        document=result.to_dict(),
        notes=notes,
    )
