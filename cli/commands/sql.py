"""`emergraph sql`: one SELECT on a store, read-only and under limits."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import ModelChoice
from emergraph.errors import UsageError

NAMED = 3
"""Traces that a note names."""


@dataclass(frozen=True, kw_only=True)
class QueryChoices:
    """How much of the result is wanted."""

    rows: Annotated[
        int, typer.Option(min=0, help="Maximum number of rows; further rows are cut off, with a note.")
    ] = 10_000
    edge_limit: Annotated[
        int,
        typer.Option(min=0, help="Maximum number of edges that are read from the model file."),
    ] = 20_000_000


@command(
    examples="""
    emergraph sql net.duckdb "SELECT kind, count(*) AS n FROM edges GROUP BY kind"
    emergraph sql net.duckdb "FROM layers" --format csv --out layers.csv
    emergraph sql net.duckdb - < question.sql
    emergraph sql net.duckdb --recipe hubs
    emergraph sql net.duckdb --recipe list
    emergraph sql lake --recipe coverage
    emergraph sql llm.duckdb "SELECT sum(l1) FROM edges WHERE block = 3" --model llm
    """,
    limits=Limits(time_limit="60s", memory_limit="2GiB"),
)
def sql(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="A store, or a lake (a folder).")],
    query: Annotated[
        str | None,
        typer.Argument(metavar="QUERY", help="One SELECT statement; - reads it from stdin."),
    ] = None,
    *,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Ask a question of docs/recipes.md instead; `list` names them."),
    ] = None,
    choices: QueryChoices,
    model: ModelChoice,
    links: Links,
    limits: Limits,
    output: Output,
) -> None:
    """Run one SELECT statement on a store or a lake.

    It cannot write, reach other files or change settings, and it stops at its limits. With --model, edges
    that stayed in the model file are there, too; those of blocks that the query cannot touch are not read.
    """
    from emergraph.graphstore.query import QueryLimits, run_query

    if recipe == "list":
        emit(_listed(), output)
        return
    notes: list[str] = []
    text = _text(query, recipe, notes)
    taken = QueryLimits(
        time=limits.seconds, memory=limits.memory_bytes, rows=choices.rows, edges=choices.edge_limit
    )
    try:
        with model.given(links):
            result = run_query(store, text, limits=taken)
    except UsageError as error:
        told = _with_command(error)
        if told is error:
            raise
        raise told from error
    notes += _about_activity(store, text)
    if result.truncated:
        notes.append(f"only the first {choices.rows} rows are shown; --rows N takes more")
    emit(View(rows=result.frame, notes=notes), output)


def _about_activity(store: Path, text: str) -> list[str]:
    """A note where a query asks for activity that random inputs caused."""
    if not re.search(r"activations", text, re.IGNORECASE):
        return []
    from emergraph.graphstore.lake.reading import open_stored

    with open_stored(store) as opened:
        random = opened.random_traces()
    if not random:
        return []
    named = ", ".join(random[:NAMED]) + (", ..." if len(random) > NAMED else "")
    said = f"activity of {named} is that on random inputs, which says little about real ones"
    return [f"{said}: trace with inputs of your own"]


def _text(query: str | None, recipe: str | None, notes: list[str]) -> str:
    """The query; a recipe leaves its question in `notes`.

    Raises:
        UsageError: Neither a query nor a recipe was given, or both.
    """
    if (query is None) == (recipe is None):
        raise UsageError("give a QUERY or --recipe NAME (`--recipe list` names them)")
    if recipe is not None:
        from emergraph.graphstore.recipes import recipe as find_recipe

        found = find_recipe(recipe)
        notes.append(found.question)
        return found.sql
    return sys.stdin.read() if query == "-" else str(query)


def _with_command(error: UsageError) -> UsageError:
    """The error; of a result table that no run has filled yet, one that names the command that does."""
    found = re.search(r"Table with name (\w+) does not exist", str(error))
    if found is None:
        return error
    from emergraph.analysis.resultpage import command_filling

    command = command_filling(found[1])
    if command is None:
        return error
    return UsageError(
        f"sql: no table {found[1]} yet: it holds results of `emergraph {command}`; its --help "
        "says with which options"
    )


def _listed() -> View:
    import polars as pl

    from emergraph.graphstore.recipes import recipes

    return View(rows=pl.DataFrame([{"recipe": each.name, "question": each.question} for each in recipes()]))
