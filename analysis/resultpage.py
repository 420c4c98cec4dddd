"""The page of the schema: the store's own tables, then the result tables of every command.

`python -m emergraph.analysis.resultpage > docs/schema.md` writes it.
"""

import importlib
import sys

from emergraph.graphstore.results import ResultTable
from emergraph.graphstore.schema import schema_markdown

HOMES = {
    "emergence": "emergraph.analysis.emergence.saving",
    "trajectory": "emergraph.analysis.emergence.storedtrajectory",
    "prune": "emergraph.analysis.pruning.saving",
    "percolate": "emergraph.analysis.percolation.saving",
    "topology": "emergraph.analysis.topology.saving",
    "landscape": "emergraph.analysis.landscape.resulttables",
    "information": "emergraph.analysis.information.saving",
    "skills": "emergraph.analysis.skills.saving",
}
"""Which module declares the result tables of which command."""

_INTRODUCTION = """
# Result tables

Each analysis keeps its results in tables of its own. The store makes a table when the first run needs it, so
a store has those of the commands that ran on it. The column `run` leads to `runs`, which has the graph, the
parameters and the seed: `SELECT * FROM emergence JOIN runs ON run = runs.id WHERE graph = 1`.
"""


def result_tables(command: str) -> list[ResultTable]:
    """Return the result tables of a command, in the order of their declaration.

    Raises:
        KeyError: No such command keeps results.

    Example:
        >>> [table.name for table in result_tables("information")]
        ['information']
    """
    module = importlib.import_module(HOMES[command])
    return [value for value in vars(module).values() if isinstance(value, ResultTable)]


def command_filling(table: str) -> str | None:
    """Return the command that keeps its results in a table; None for a table of no command.

    Example:
        >>> command_filling("information")
        'information'
    """
    owners = (command for command in HOMES if table in {each.name for each in result_tables(command)})
    return next(owners, None)


def schema_page() -> str:
    """Return the page, as Markdown."""
    parts = [schema_markdown(), _INTRODUCTION]
    for command in HOMES:
        parts += [_entry(command, table) for table in result_tables(command)]
    return "".join(parts)


def _entry(command: str, table: ResultTable) -> str:
    lines = ["", f"## `{table.name}` ({command})", "", table.comment, ""]
    lines += ["| column | type | meaning |", "|---|---|---|", "| `run` | INTEGER | runs.id. |"]
    lines += [f"| `{column.name}` | {column.type} | {_cell(column.comment)} |" for column in table.columns]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(schema_page())
