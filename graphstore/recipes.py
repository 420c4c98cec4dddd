"""Questions in SQL that come with the project, each in a file of `recipes/` named after it.

The first line of a file is a comment with the question in words.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from emergraph.choices import unknown
from emergraph.errors import UsageError

_FOLDER = Path(__file__).parent / "recipes"
_ORDER = (
    *(
        "layers",
        "coverage",
        "edge-kinds",
        "strongest-edges",
        "hubs",
        "unused-inputs",
        "reachable-outputs",
        "dead-units",
        "balance",
    ),
    *("weight-quantiles", "silent-units", "selective-units", "twins", "shared-tensors", "runs", "emergence"),
)


@dataclass(frozen=True)
class Recipe:
    """A question and its query."""

    name: str
    question: str
    sql: str


@cache
def recipes() -> tuple[Recipe, ...]:
    """Return all recipes, those about the graph first, those that need a trace or runs last."""
    return tuple(_read(name) for name in _ORDER)


def recipe(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        UsageError: There is none of that name; the message names the closest ones, or all.

    Example:
        >>> recipe("hubs").question
        'Which units does most weight lead into?'
    """
    if name in _ORDER:
        return _read(name)
    raise UsageError(unknown("recipe", name, _ORDER))


def _read(name: str) -> Recipe:
    first, _, sql = (_FOLDER / f"{name}.sql").read_text(encoding="utf-8").partition("\n")
    return Recipe(name=name, question=first.removeprefix("-- "), sql=sql.strip())
