"""Analyses of tables of numbers, which need no model: pairs of concepts, logs of trainings."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from emergraph.analysis.registry import analysis_named
from emergraph.api.keywords import with_options
from emergraph.optionforms import TableForm

if TYPE_CHECKING:
    from emergraph.analysis.percolation.concepts import ConceptResult
    from emergraph.analysis.percolation.training import TrainingResult
    from emergraph.options import Options


def table_of(table: str | Path | pl.DataFrame, form: TableForm) -> pl.DataFrame:
    """Return a frame, or the one that a CSV or Parquet file holds."""
    if isinstance(table, pl.DataFrame):
        return table
    from emergraph.analysis.tablefile import read_table

    return read_table(Path(table), separator=form.separator).frame


def _function(name: str) -> Callable[..., Any]:
    """The function that runs an analysis of a table, with the options and words of its declaration."""
    analysis = analysis_named(name)

    def function(table: str | Path | pl.DataFrame, *, options: "Sequence[Options]") -> object:
        form = next(one for one in options if isinstance(one, TableForm))
        assert analysis.run is not None  # noqa: S101 - of analyses of tables
        return analysis.run(table_of(table, form), *options)

    function.__name__ = function.__qualname__ = name
    said = f"Args:\n    table: {analysis.file} Or a polars frame."
    raises = "Raises:\n    InvalidInputError: Columns are missing, or hold something else."
    function.__doc__ = "\n\n".join(filter(None, (analysis.summary, analysis.details, said, raises)))
    return with_options(*analysis.options)(function)


concepts: "Callable[..., ConceptResult]" = _function("concepts")
transition: "Callable[..., TrainingResult]" = _function("transition")
