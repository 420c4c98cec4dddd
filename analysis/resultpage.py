"""The page of the schema: the store's own tables, then the result tables of every command.

`python -m emergraph.analysis.resultpage > docs/schema.md` writes it.
"""

import sys
from collections.abc import Sequence

from emergraph.analysis.declaration import Analysis
from emergraph.analysis.registry import built_in
from emergraph.graphstore.results import ResultTable
from emergraph.graphstore.schema import schema_markdown

_INTRODUCTION = """
# Result tables

Each analysis keeps its results in tables of its own. The store makes a table when the first run needs it, so
a store has those of the commands that ran on it. The column `run` leads to `runs`, which has the graph, the
parameters and the seed: `SELECT * FROM emergence JOIN runs ON run = runs.id WHERE graph = 1`.
"""


def command_filling(table: str) -> str | None:
    """Return the command that keeps its results in a table; None for a table of no command.

    Example:
        >>> command_filling("information")
        'information'
    """
    owners = (one.name for one in built_in() if table in {each.name for each in one.tables})
    return next(owners, None)


def schema_page(analyses: Sequence[Analysis]) -> str:
    """Return the page, as Markdown.

    Args:
        analyses: Those whose result tables it lists.
    """
    parts = [schema_markdown(), _INTRODUCTION]
    parts += [_entry(analysis.name, table) for analysis in analyses for table in analysis.tables]
    return "".join(parts)


def _entry(command: str, table: ResultTable) -> str:
    lines = ["", f"## `{table.name}` ({command})", "", table.comment, ""]
    lines += ["| column | type | meaning |", "|---|---|---|", "| `run` | INTEGER | runs.id. |"]
    lines += [f"| `{column.name}` | {column.type} | {_cell(column.comment)} |" for column in table.columns]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(schema_page(built_in()))
