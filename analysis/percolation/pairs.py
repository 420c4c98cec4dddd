"""Entity-property pairs from a table: who was seen with what, when for the first time, and in which class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.percolation.options import PairColumns
from emergraph.analysis.tablefile import numbers, read_table
from emergraph.choices import unknown
from emergraph.errors import InvalidInputError, LimitError, UsageError

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
