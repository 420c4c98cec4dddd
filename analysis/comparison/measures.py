"""What was measured on both graphs, side by side."""

from collections.abc import Mapping

import polars as pl

from emergraph.analysis.figures.reading import newest_run, question
from emergraph.analysis.registry import known_to
from emergraph.graphstore.reader import GraphReader

SCHEMA = {
    "analysis": pl.String,
    "measure": pl.String,
    "a": pl.Float64,
    "b": pl.Float64,
    "change": pl.Float64,
    "low_a": pl.Float64,
    "high_a": pl.Float64,
    "low_b": pl.Float64,
    "high_b": pl.Float64,
    "overlap": pl.Boolean,
}
_COUNTS = ("n_layers", "n_units", "n_neurons", "n_edges", "n_parameters")


def compared_measures(a: GraphReader, b: GraphReader) -> pl.DataFrame:
    """Return one row per measure that is known of A or B: analysis, measure, a, b, change, intervals.

    `change` is b - a; `overlap` says whether the intervals meet, null where one of them is missing. They are
    of the newest run of each analysis; where A and B were measured with other settings, the names differ and
    nothing is paired.
    """
    rows = []
    for (analysis, measure), (ours, theirs) in _paired(_known(a), _known(b)).items():
        x, low_a, high_a = ours
        y, low_b, high_b = theirs
        rows.append(
            {
                "analysis": analysis,
                "measure": measure,
                "a": x,
                "b": y,
                "change": None if x is None or y is None else y - x,
                "low_a": low_a,
                "high_a": high_a,
                "low_b": low_b,
                "high_b": high_b,
                "overlap": _overlap((low_a, high_a), (low_b, high_b)),
            }
        )
    return pl.DataFrame(rows, schema=SCHEMA)


Triple = tuple[float | None, float | None, float | None]
Key = tuple[str, str]
_NOTHING: Triple = (None, None, None)


def _overlap(a: tuple[float | None, float | None], b: tuple[float | None, float | None]) -> bool | None:
    """Whether two intervals meet; None where an end is missing."""
    if a[0] is None or a[1] is None or b[0] is None or b[1] is None:
        return None
    return a[0] <= b[1] and b[0] <= a[1]


def _paired(a: Mapping[Key, Triple], b: Mapping[Key, Triple]) -> dict[Key, tuple[Triple, Triple]]:
    keys = dict.fromkeys([*a, *b])
    return {key: (a.get(key, _NOTHING), b.get(key, _NOTHING)) for key in keys}


def _known(reader: GraphReader) -> dict[Key, Triple]:
    found: dict[Key, Triple] = {
        ("graph", name.removeprefix("n_")): (float(str(reader.summary[name])), None, None) for name in _COUNTS
    }
    for name, value in reader.metrics().iter_rows():
        found["recorded", name] = (value, None, None)
    analyses = known_to(reader.connection).analyses
    for measure in (measure for analysis in analyses for measure in analysis.measures):
        run = newest_run(reader, measure)
        if run is not None:
            sql = question(measure, reader.id, run.id)
            for name, value, low, high in reader.connection.execute(sql).fetchall():
                found[measure.name, str(name)] = (value, low, high)
    return found
