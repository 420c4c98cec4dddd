"""What knock-outs of layers, heads and units do to an output, and how gradients attribute it to units."""

import json
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from emergraph.analysis.influence.analysis import AGREEMENT, ATTRIBUTIONS, UNITS
from emergraph.analysis.influence.knockouts import Bench, Knockout
from emergraph.analysis.influence.options import InfluenceOptions, Method, ModelRunOptions
from emergraph.analysis.influence.results import InfluenceResult
from emergraph.analysis.pickedunits import picked_units
from emergraph.analysis.statistics.permutation import FEWEST_MORE, rank_correlation
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import ModelProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emergraph.analysis.access import GraphAccess

MOST_RANKED = 2000
"""Units whose order is compared, drawn at random where there are more: each is left out once."""


def measure_influence(at: "GraphAccess", run: ModelRunOptions, asked: InfluenceOptions) -> InfluenceResult:
    """Knock out layers, heads and units of a graph's model.

    Args:
        at: The graph.
        run: The model and its inputs.
        asked: What is knocked out, and what is looked at.

    Raises:
        UsageError: An option does not fit the model.
        InvalidInputError: The file is not the graph's model, or the inputs do not fit it.
    """
    asked.check()
    picked = None if asked.units is None else picked_units(at.path, at.id, asked.units, option="--units")
    reader = at.reader
    done = _done(at, run, asked) if asked.resume else {}
    with ModelProcess(RunLimits()) as process:
        bench = Bench(at, run, asked, process)
        knockouts = bench.knockouts(picked)
        converter = None if asked.method is Method.KNOCKOUT else bench.attribute(asked.method)
        bench.measure([one for one in knockouts if one.key not in done])
    frame = pl.DataFrame(
        [done.get(one.key) or bench.row(one) for one in knockouts],
        schema={c.name: UNITS.schema[c.name] for c in UNITS.columns},
        orient="row",
    )
    attributed = None if converter is None else attributions(knockouts, asked.method)
    return InfluenceResult(
        frame=frame,
        graph=reader.name,
        output=bench.behaviour.target.output,
        measure=bench.behaviour.measure,
        baseline=bench.baseline_text,
        n_samples=bench.n,
        runs=bench.notes,
        left_out={**bench.left_out, **bench.without_gradient},
        layer_names={one.layer: one.name for one in bench.layers},
        first_units={one.layer: one.first_unit for one in bench.layers},
        method=asked.method,
        converter=converter,
        gap=bench.gap,
        attributions=attributed,
        agreement=None if attributed is None else agreement(attributed.filter(n=bench.n)),
    )


def attributions(knockouts: "Sequence[Knockout]", method: Method) -> pl.DataFrame:
    """What gradients give to units, beside what knocking them out changes; rows of `unit_attributions`."""
    rows = []
    for one in knockouts:
        n = len(one.attributed)
        if n and n == len(one.changes):
            given = np.array(one.attributed)
            changed = np.array([change.target for change in one.changes])
            unit = one.layer.first_unit + int(one.places[0])
            means = [float(part.mean()) for part in (given, np.abs(given), -changed, np.abs(changed))]
            rows.append((one.layer.layer, unit, method.value, *means, n))
    return pl.DataFrame(rows, schema=ATTRIBUTIONS.schema, orient="row")


def agreement(attributed: pl.DataFrame) -> pl.DataFrame:
    """How far gradients order units as knocking them out does; rows of `attribution_agreement`."""
    parts: list[tuple[str, int | None, pl.DataFrame]] = [
        ("all", None, attributed),
        ("within layers", None, attributed),
    ]
    parts += [("layer", int(one["layer"][0]), one) for one in attributed.partition_by("layer")]
    rows = []
    for scope, layer, part in parts:
        if part.height < FEWEST_MORE:
            continue
        drawn = part.sample(min(part.height, MOST_RANKED), seed=0)
        found = rank_correlation(
            drawn["attribution_abs"].to_numpy(),
            drawn["knockout_abs"].to_numpy(),
            within=drawn["layer"].to_list() if scope == "within layers" else None,
            n_permutations=1,
        )
        rows.append((scope, layer, drawn.height, found.rho, found.low, found.high))
    return pl.DataFrame(rows, schema=AGREEMENT.schema, orient="row")


def _done(
    at: "GraphAccess", run: ModelRunOptions, asked: InfluenceOptions
) -> dict[tuple[str, int, int], tuple[object, ...]]:
    """Rows of the newest run of the same knock-outs that had all samples."""
    same = {name: value for name, value in {**run.kept(), **asked.kept()}.items() if name not in _FREE}
    rows = at.store.connection.execute(
        "SELECT id, parameters FROM runs WHERE graph = ? AND command = 'influence' ORDER BY id DESC",
        [at.reader.id],
    ).fetchall()
    for number, parameters in rows:
        kept = json.loads(parameters)
        if all(kept.get(name) == value for name, value in same.items()):
            names = ", ".join(c.name for c in UNITS.columns)
            found = at.store.connection.execute(
                f"SELECT {names}, n >= max(n) OVER () AS whole FROM unit_influence WHERE run = ?",  # noqa: S608
                [number],
            ).fetchall()
            first = dict(at.reader.layers().select("id", "first_unit").iter_rows())
            return {
                (row[0], row[1], row[2] - first[row[1]] if row[0] == "unit" else row[3] or -1): row[:-1]
                for row in found
                if row[-1]
            }
    return {}


_FREE = frozenset({"budget", "resume", "units"})
"""Options in which a run may differ from the one that it goes on from."""
