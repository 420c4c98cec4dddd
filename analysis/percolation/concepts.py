"""Percolation of concept data (arXiv 2408.12578): which unseen entity-property pairs can be inferred.

An unseen pair is inferable when its entity and its property lie in one connected component of the bipartite
graph of seen pairs. Random pairs percolate at `M_c = sqrt(|E||K|)` of them; for disjoint classes at the sum
of `sqrt(|E_c||K_c|)`, which for C equal classes is the same number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.nulls_for_json import finite_or_none
from emergraph.analysis.percolation.conceptcurve import (
    ClassPairs,
    ConceptCurve,
    concept_curve,
    random_pairs,
    shuffled_pairs,
    theory_at,
)
from emergraph.analysis.percolation.options import ConceptOptions, PairColumns
from emergraph.analysis.percolation.predictions import bipartite_giants
from emergraph.analysis.percolation.result import SPREAD
from emergraph.analysis.statistics.intervals import Support, student
from emergraph.analysis.tablefile import numbers, read_table
from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, LimitError, UsageError

# Entity-property pairs from a table: who was seen with what, when for the first time, and in which class.

MAX_OBSERVATIONS = 200_000_000
"""Rows of a table that are read: about 40 bytes each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptPairs:
    """The distinct pairs of a table, in the order in which they were first seen."""

    entity: NDArray[np.int64]
    """(n_pairs,) number of the entity, from 0."""
    prop: NDArray[np.int64]
    """(n_pairs,) number of the property, from 0."""
    observation: NDArray[np.int64]
    """(n_pairs,) rows up to and with the first one that states the pair, from 1; ascending."""
    time: NDArray[np.float64] | None
    """(n_pairs,) time of that row; None without a time column."""
    entities: pl.Series
    """(n_seen_entities,) name of each entity."""
    properties: pl.Series
    """(n_seen_properties,) name of each property."""
    entity_class: NDArray[np.int64] | None
    """(n_seen_entities,) number of the class; None without a class column."""
    property_class: NDArray[np.int64] | None
    """(n_seen_properties,) number of the class."""
    classes: pl.Series | None
    """(n_classes,) name of each class."""
    n_observations: int
    """Rows of the table that state a pair, repetitions included."""
    n_left_out: int
    """Rows without an entity, a property, a time or a class."""

    @property
    def n_pairs(self) -> int:
        """Distinct pairs."""
        return len(self.entity)


def read_pairs(source: str | Path | pl.DataFrame, columns: PairColumns | None = None) -> ConceptPairs:
    """Read pairs from Parquet or CSV ("-": CSV from standard input), or take them from a frame.

    Raises:
        UsageError: A column is not there; the message names those that are.
        InvalidInputError: The file cannot be read, holds no pair, or puts one name into two classes.
        LimitError: More rows than memory is meant for.

    Example:
        >>> seen = pl.DataFrame({"entity": ["cat", "dog", "cat"], "property": ["soft", "loud", "soft"]})
        >>> pairs = read_pairs(seen)
        >>> pairs.n_pairs, pairs.n_observations, pairs.observation.tolist()
        (2, 3, [1, 2])
    """
    columns = columns or PairColumns()
    frame = source if isinstance(source, pl.DataFrame) else read_table(source).frame
    wanted = {"entity": columns.entity, "property": columns.property}
    wanted |= {"time": columns.time} if columns.time is not None else {}
    wanted |= {"class": columns.of_class} if columns.of_class is not None else {}
    _check_columns(frame, wanted)
    if frame.height > MAX_OBSERVATIONS:
        raise LimitError(f"pairs: {frame.height} rows, at most {MAX_OBSERVATIONS} are read")
    table = frame.select(pl.col(name).alias(role) for role, name in wanted.items())
    if columns.time is not None:
        table = table.with_columns(_as_number(frame, columns.time))
    kept = table.drop_nulls()
    if kept.is_empty():
        raise InvalidInputError("pairs: no row with an entity and a property")
    if columns.time is not None:
        kept = kept.sort("time", maintain_order=True)
    return _coded(kept, n_left_out=table.height - kept.height)


def _coded(table: pl.DataFrame, *, n_left_out: int) -> ConceptPairs:
    table = table.with_columns(
        pl.col("entity").rank("dense").cast(pl.Int64).alias("e") - 1,
        pl.col("property").rank("dense").cast(pl.Int64).alias("k") - 1,
        observation=pl.int_range(1, pl.len() + 1, dtype=pl.Int64),
    )
    first = table.unique(["e", "k"], keep="first", maintain_order=True)
    entities = table.unique("e").sort("e")
    properties = table.unique("k").sort("k")
    classes = entity_class = property_class = None
    if "class" in table.columns:
        classes = table["class"].unique().sort()
        entity_class = _classes_of(table, "e", "entity", classes)
        property_class = _classes_of(table, "k", "property", classes)
    return ConceptPairs(
        entity=first["e"].to_numpy(),
        prop=first["k"].to_numpy(),
        observation=first["observation"].to_numpy(),
        time=first["time"].to_numpy() if "time" in table.columns else None,
        entities=entities["entity"],
        properties=properties["property"],
        entity_class=entity_class,
        property_class=property_class,
        classes=classes,
        n_observations=table.height,
        n_left_out=n_left_out,
    )


def _classes_of(table: pl.DataFrame, code: str, name: str, classes: pl.Series) -> NDArray[np.int64]:
    """(n,) class of each entity or property."""
    found = table.group_by(code).agg(pl.col("class").unique(), pl.col(name).first()).sort(code)
    mixed = found.filter(pl.col("class").list.len() > 1)
    if mixed.height:
        raise InvalidInputError(
            f"pairs: {name} '{mixed[name][0]}' is in {mixed['class'].list.len()[0]} classes, expected one; "
            "name it differently in each"
        )
    of_each = found["class"].list.first()
    return np.asarray(classes.search_sorted(of_each).to_numpy(), dtype=np.int64)


def _as_number(frame: pl.DataFrame, column: str) -> pl.Series:
    """The time as floats: numbers as they are, dates and times in seconds since 1970, NaN as null."""
    time = frame[column]
    if time.dtype.is_temporal():
        return time.cast(pl.Datetime("us")).dt.timestamp("us").cast(pl.Float64).rename("time") / 1e6
    try:
        return numbers(frame, column).fill_nan(None).rename("time")
    except InvalidInputError as error:
        raise InvalidInputError(f"pairs: {error}; expected numbers or dates") from error


def _check_columns(frame: pl.DataFrame, wanted: dict[str, str]) -> None:
    for role, name in wanted.items():
        if name not in frame.columns:
            raise UsageError(unknown(f"{role} column", name, frame.columns))


Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptResult(ShownInNotebooks):
    """Where data of entity-property pairs are relative to their percolation threshold."""

    options: ConceptOptions
    n_observations: int
    n_left_out: int
    n_pairs: int
    """Distinct pairs seen, M."""
    n_entities: int
    """|E|."""
    n_properties: int
    """|K|."""
    n_possible: int
    """Pairs that could be: |E||K|, or with classes the sum of |E_c||K_c|."""
    expected_threshold: float
    """M_c in pairs."""
    connected: int
    """Pairs, seen or not, within one component."""
    giant_entities: int
    """Entities in the largest component of their class."""
    giant_properties: int
    thresholds: pl.DataFrame
    """One row per series: series, threshold (pairs at the susceptibility peak, mean over draws), low, high
    (Student's 95 % interval of that mean), relative (threshold over M_c), observations, time (where the
    observed order reaches it), n_draws."""
    curve: pl.DataFrame
    """One row per number of pairs: pairs, observations, time, relative (pairs over M_c), connected and
    inferable (shares of the possible and of the unseen pairs), giant_entities, giant_properties (shares),
    their theory, susceptibility, and the connected share of random pairs (mean, low, high)."""
    classes: pl.DataFrame
    """One row per class: class, n_entities, n_properties, n_pairs, threshold, relative, connected, giant
    shares and their theory."""

    @property
    def relative(self) -> float:
        """M / M_c: above 1, random pairs have a giant component."""
        return self.n_pairs / self.expected_threshold

    @property
    def connected_share(self) -> float:
        """Share of all possible pairs that are seen or inferable, in [0, 1]."""
        return self.connected / self.n_possible

    @property
    def inferable(self) -> int:
        """Unseen pairs within one component."""
        return self.connected - self.n_pairs

    @property
    def inferable_share(self) -> float | None:
        """Share of the unseen pairs that are inferable, in [0, 1]; None when every pair was seen."""
        unseen = self.n_possible - self.n_pairs
        return self.inferable / unseen if unseen else None

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values."""
        return {
            "options": self.options.to_dict(),
            "n_observations": self.n_observations,
            "n_left_out": self.n_left_out,
            "n_pairs": self.n_pairs,
            "n_entities": self.n_entities,
            "n_properties": self.n_properties,
            "n_possible": self.n_possible,
            "expected_threshold": self.expected_threshold,
            "relative": self.relative,
            "connected": self.connected,
            "connected_share": self.connected_share,
            "inferable": self.inferable,
            "inferable_share": self.inferable_share,
            "giant_entities": self.giant_entities / self.n_entities,
            "giant_properties": self.giant_properties / self.n_properties,
            "thresholds": self.thresholds.to_dicts(),
            "classes": self.classes.to_dicts(),
            "curve": self.curve.to_dicts(),
        }


def concept_percolation(
    source: str | Path | pl.DataFrame | ConceptPairs,
    *,
    columns: PairColumns | None = None,
    options: ConceptOptions | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> ConceptResult:
    """Follow which pairs become inferable as entity-property pairs are seen.

    The order is that of the time column, or of the rows. Null models: the same pairs in random order (is the
    order special?), and as many random pairs per class (are the pairs special?).

    Args:
        source: Parquet, CSV, "-" for CSV from standard input, a frame, or pairs that were read.
        columns: Which columns hold what.
        options: Sizes and draws.
        progress: Called with the curves that are done, and all of them.

    Raises:
        UsageError: A column is missing, or a size is smaller than what was seen.
        InvalidInputError: The table holds no pairs, or a name is in two classes.

    Example:
        >>> seen = pl.DataFrame({"entity": ["cat", "dog", "dog"], "property": ["soft", "soft", "loud"]})
        >>> result = concept_percolation(seen)
        >>> result.expected_threshold, result.inferable, result.inferable_share
        (2.0, 1, 1.0)
    """
    options = options or ConceptOptions()
    pairs = source if isinstance(source, ConceptPairs) else read_pairs(source, columns)
    classes = _by_class(pairs, options)
    observed = concept_curve(classes)
    rngs = [np.random.default_rng(options.seed + i) for i in range(options.nulls)]
    orders, draws = [], []
    for number, rng in enumerate(rngs):
        if progress is not None:
            progress(number, len(rngs))
        orders.append(concept_curve(shuffled_pairs(classes, rng)))
        draws.append(concept_curve(random_pairs(classes, rng)))
    expected = float(classes.thresholds.sum())
    n_entities, n_properties = int(classes.n_entities.sum()), int(classes.n_properties.sum())
    n_possible = int(classes.n_possible.sum())
    series = [("observed", [observed])]
    series += [("same pairs, random order", orders), ("random pairs", draws)] if rngs else []
    marks = np.array([curve.threshold for _, curves in series for curve in curves])
    spaced = np.geomspace(1, pairs.n_pairs, options.points).round()
    at = np.unique(np.concatenate([[0.0], spaced, marks])).astype(np.int64)
    return ConceptResult(
        options=options,
        n_observations=pairs.n_observations,
        n_left_out=pairs.n_left_out,
        n_pairs=pairs.n_pairs,
        n_entities=n_entities,
        n_properties=n_properties,
        n_possible=n_possible,
        expected_threshold=expected,
        connected=int(observed.connected[-1]),
        giant_entities=int(observed.giant_entities[-1]),
        giant_properties=int(observed.giant_properties[-1]),
        thresholds=pl.DataFrame(
            [_threshold_row(name, curves, pairs, expected) for name, curves in series],
            infer_schema_length=None,
        ),
        curve=_curve(at, observed, draws, classes, pairs, expected),
        classes=_class_table(classes, observed, pairs),
    )


def _by_class(pairs: ConceptPairs, options: ConceptOptions) -> ClassPairs:
    sizes = (
        (options.n_entities, len(pairs.entities), "entities"),
        (options.n_properties, len(pairs.properties), "properties"),
    )
    for given, seen, what in sizes:
        if given is not None and given < seen:
            raise UsageError(f"{given} {what} given, but the pairs name {seen}")
    if pairs.entity_class is None or pairs.property_class is None or pairs.classes is None:
        return ClassPairs(
            n_entities=np.array([options.n_entities or len(pairs.entities)]),
            n_properties=np.array([options.n_properties or len(pairs.properties)]),
            of=np.zeros(pairs.n_pairs, dtype=np.int64),
            entity=pairs.entity,
            prop=pairs.prop,
        )
    if options.n_entities is not None or options.n_properties is not None:
        raise UsageError("with classes, sizes are those of the classes: leave out the numbers of names")
    n_entities, entity = _numbered(pairs.entity_class, len(pairs.classes))
    n_properties, prop = _numbered(pairs.property_class, len(pairs.classes))
    return ClassPairs(
        n_entities=n_entities,
        n_properties=n_properties,
        of=pairs.entity_class[pairs.entity],
        entity=entity[pairs.entity],
        prop=prop[pairs.prop],
    )


def _numbered(of: Counts, n_classes: int) -> tuple[Counts, Counts]:
    """Members of each class, and the number of each member within its class."""
    sizes = np.bincount(of, minlength=n_classes)
    order = np.argsort(of, kind="stable")
    numbers = np.empty_like(of)
    numbers[order] = np.arange(len(of)) - (np.cumsum(sizes) - sizes)[of[order]]
    return sizes, numbers


def _threshold_row(
    name: str, curves: list[ConceptCurve], pairs: ConceptPairs, expected: float
) -> dict[str, object]:
    found = student([curve.threshold for curve in curves], support=Support.POSITIVE)
    mean = found.mean
    seen = max(round(mean), 1) - 1
    return {
        "series": name,
        "threshold": mean,
        "low": finite_or_none(found.low),
        "high": finite_or_none(found.high),
        "relative": mean / expected,
        "observations": int(pairs.observation[seen]),
        "time": None if pairs.time is None else float(pairs.time[seen]),
        "n_draws": len(curves),
    }


def _curve(
    at: Counts,
    observed: ConceptCurve,
    draws: list[ConceptCurve],
    classes: ClassPairs,
    pairs: ConceptPairs,
    expected: float,
) -> pl.DataFrame:
    n_entities, n_properties = int(classes.n_entities.sum()), int(classes.n_properties.sum())
    n_possible = int(classes.n_possible.sum())
    i = observed.at(at)
    connected = observed.connected[i]
    theory_e, theory_k, theory_pairs = theory_at(classes, at)
    unseen = n_possible - at
    table = {
        "pairs": at,
        "observations": np.concatenate([[0], pairs.observation])[at],
        "relative": at / expected,
        "connected": connected / n_possible,
        "inferable": np.divide(connected - at, unseen, out=np.full(len(at), np.nan), where=unseen > 0),
        "giant_entities": observed.giant_entities[i] / n_entities,
        "giant_properties": observed.giant_properties[i] / n_properties,
        "theory_connected": theory_pairs / n_possible,
        "theory_entities": theory_e / n_entities,
        "theory_properties": theory_k / n_properties,
        "susceptibility": observed.susceptibility[i],
    }
    frame = pl.DataFrame(table).with_columns(pl.col("inferable").fill_nan(None))
    if pairs.time is not None:
        time = pl.Series("time", np.concatenate([[np.nan], pairs.time])[at]).fill_nan(None)
        frame.insert_column(2, time)
    if not draws:
        return frame
    shares = np.array([draw.connected[draw.at(at)] / n_possible for draw in draws])
    low, high = np.percentile(shares, SPREAD, axis=0)
    return frame.with_columns(
        random_connected=pl.Series(shares.mean(axis=0)),
        random_spread_low=pl.Series(low),
        random_spread_high=pl.Series(high),
    )


def _class_table(classes: ClassPairs, observed: ConceptCurve, pairs: ConceptPairs) -> pl.DataFrame:
    side_e, side_k = bipartite_giants(classes.n_entities, classes.n_properties, classes.n_pairs)
    names = ["all"] if pairs.classes is None else pairs.classes.cast(pl.String).to_list()
    return pl.DataFrame(
        {
            "class": names,
            "n_entities": classes.n_entities,
            "n_properties": classes.n_properties,
            "n_pairs": classes.n_pairs,
            "expected_threshold": classes.thresholds,
            "relative": classes.n_pairs / classes.thresholds,
            "connected": observed.ends.connected / classes.n_possible,
            "giant_entities": observed.ends.giant_entities / classes.n_entities,
            "giant_properties": observed.ends.giant_properties / classes.n_properties,
            "theory_connected": side_e * side_k,
            "theory_entities": side_e,
            "theory_properties": side_k,
        }
    )
