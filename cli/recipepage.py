"""The page of recipes, with what they answer about the demo's store.

`python -m emergraph.cli.recipepage STORE > docs/recipes.md` writes it; the store is that of `emergraph demo`.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from emergraph.cli.tables import plain_text
from emergraph.graphstore.query import run_query
from emergraph.graphstore.recipes import Recipe, recipes

_INTRODUCTION = """# Recipes: questions in SQL

`emergraph sql STORE --recipe NAME` asks one of these of a store; `--recipe list` names them. The answers
below are about the store that `emergraph demo` makes: two networks that read digits, one of them pruned. A
test runs every query and compares the answers. [schema.md](schema.md) has the tables, column by column.
"""


def recipe_page(ask: Callable[[str], str]) -> str:
    """Return the page.

    Args:
        ask: Returns the answer to a query as a table of plain text.
    """
    return "\n".join([_INTRODUCTION, *(_entry(each, ask(each.sql)) for each in recipes())])


def _entry(each: Recipe, answer: str) -> str:
    return f"## {each.name}\n\n{each.question}\n\n```sql\n{each.sql}\n```\n\n```text\n{answer}```\n"


def asked_of(store: Path) -> Callable[[str], str]:
    """Return the function that asks a store."""
    return lambda sql: plain_text({}, [run_query(store, sql).frame])


if __name__ == "__main__":
    sys.stdout.write(recipe_page(asked_of(Path(sys.argv[1]))))
