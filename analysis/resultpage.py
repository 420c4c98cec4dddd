"""The page of the result tables, command by command; `graphstore.schema` has that of the store's own tables.

`python -m emergraph.analysis.resultpage > docs/results.md` writes it.
"""

import sys
from collections.abc import Sequence

from emergraph.analysis.declaration import Analysis
from emergraph.analysis.registry import built_in
from emergraph.graphstore.results import ResultTable

_INTRODUCTION = """# Result tables

Each analysis keeps its results in tables of its own, beside the [tables of the graphs](schema.md). A table is
created by the first run that needs it, so a store has those of the commands that ran on it. The column `run`
refers to `runs`, which has the graph, the parameters and the seed:
`SELECT * FROM emergence JOIN runs ON run = runs.id WHERE graph = 1`.
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
    """Return the schema of the result tables, as Markdown.

    Args:
        analyses: Those whose result tables it lists.
    """
    listed = [analysis for analysis in analyses if analysis.tables]
    parts = [_INTRODUCTION, "\n| command | result tables |\n|---|---|\n"]
    parts += [f"| `{one.name}` | {', '.join(f'`{t.name}`' for t in one.tables)} |\n" for one in listed]
    parts += [_entry(analysis.name, table) for analysis in listed for table in analysis.tables]
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
