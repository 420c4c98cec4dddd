"""What an analysis is: one declaration, which commands, API, reports, differences and the schema page read.

Declarations are light to import: no numpy, polars or duckdb. Heavy libraries are imported inside of `run`,
`rows`, `show` and `figures`.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from emergraph.graphstore.results import ResultTable, register
from emergraph.options import Options, repeated
from emergraph.safetext import escape_controls

if TYPE_CHECKING:
    import polars as pl

    from emergraph.analysis.figures.figure import Figure
    from emergraph.analysis.view import View


class Subject(Enum):
    """What an analysis is about; the value is what follows its name on the command line."""

    GRAPH = "STORE --graph GRAPH"
    SNAPSHOTS = "STORE"
    """All graphs of a training."""
    MODEL = "MODEL --store STORE"
    """A model file, whose graph may be in the store."""
    FILE = "FILE --store STORE"
    """A table of numbers."""
    MODELS = "MODELS --store STORE"
    """Many model files and graphs of stores."""
    NOTHING = "--store STORE"
    """What it makes up itself."""

    @property
    def shared(self) -> bool:
        """Whether its runs belong to a store as a whole, and to no graph."""
        return self not in (Subject.GRAPH, Subject.MODEL)


@dataclass(frozen=True, kw_only=True)
class Query:
    """A question to a store."""

    name: str
    """Of the frame that is the answer."""
    sql: str
    """With `{graph}` for the id of the graph and `{run}` for the id of the run: whole numbers."""
    table: str | None = None
    """Result table that decides the run: the newest of the graph that filled it. None: no run is needed."""
    optional: bool = False
    """Of a figure: it is drawn without the frame where there is no such run."""
    shared: bool = False
    """Runs about no graph count, too: those about all snapshots, or about none of them."""


@dataclass(frozen=True, kw_only=True)
class Caption:
    """The words that belong to a table."""

    name: str
    title: str
    definition: str
    """What the rows and columns are, with units."""
    folded: bool = False
    """Whether a page shows it only when a reader opens it."""


@dataclass(frozen=True, kw_only=True)
class TableSpec(Caption):
    """A table that can be shown of any store that holds its run."""

    query: Query


@dataclass(frozen=True, kw_only=True)
class SectionSpec:
    """A section of a report before it is filled."""

    id: str
    title: str
    lead: str
    tables: tuple[TableSpec, ...] = ()
    command: str | None = None
    """What would fill it, with STORE, MODEL and GRAPH in it; None: the analysis as it is by default."""
    on_trace: bool = False
    """Whether that needs an activation trace, which is then made first."""
    only_with: str | None = None
    """Kind of the layers without which nothing fills it, such as "embedding"; None: every network can."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A line in the summary of a report."""

    query: Query
    """Its name is the name of the line."""
    text: Callable[[Sequence[tuple[Any, ...]], Mapping[str, Any]], str | None]
    """The line from the rows of the answer and the parameters of the run; None for no line."""
    beside: "Headline | None" = None
    """What its numbers are to be compared with, where there is a run with that."""
    alone: str = ""
    """Said where there is none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Analysis:
    """An analysis: what it is called, what it is asked, what it keeps, and how its results are shown."""

    name: str
    """Words of its command, such as "topology"; the store keeps its runs under it."""
    summary: str
    """What it does, on one line."""
    of: Subject
    options: tuple[type[Options], ...] = ()
    """Classes of the options that decide its numbers."""
    looks: tuple[type[Options], ...] = ()
    """Classes of the options that decide what is shown of them."""
    details: str = ""
    """What its help text says besides."""
    file: str = ""
    """What its file holds, for the help text; of an analysis of a table of numbers."""
    examples: str = ""
    """Command lines for its help text, one per line."""
    check: Callable[..., None] | None = None
    """Refuses options and looks that do not go together, before any work; takes one object of each class."""
    run: Callable[..., Any] | None = None
    """From a `GraphAccess` and the options to a result; of a table of numbers, from a polars frame, the
    options and `progress` by keyword. None: a command of its own runs it, since it is about more."""
    plan: Callable[..., "View"] | None = None
    """What a run would take, from a `GraphAccess` and the options; with it, the command has --dry-run."""
    rows: Callable[[Any], "Mapping[str, pl.DataFrame]"] | None = None
    """The rows of its tables from a result, by table."""
    show: Callable[..., "View"] | None = None
    """What is shown of a result; takes the result and the looks."""
    tables: tuple[ResultTable, ...] = ()
    """What it keeps in a store."""
    section: SectionSpec | None = None
    """Its section of a report; analyses may share one."""
    figures: Callable[[], "Sequence[Figure]"] = tuple
    """The figures of its section, in order."""
    measures: tuple[Query, ...] = ()
    """What a difference compares: each gives measure, value, low and high of one run."""
    headline: Headline | None = None

    def __post_init__(self) -> None:
        """Make its result tables known to stores."""
        for table in self.tables:
            register(table)

    @property
    def fill(self) -> str:
        """The command line that fills its section, with STORE, MODEL, FILE and GRAPH in it."""
        asked = None if self.section is None else self.section.command
        return asked or f"emergraph {self.name} {self.of.value}"

    def repeat(self, parameters: Mapping[str, Any], seed: int | None, *, store: str, graph: str) -> str:
        """Return a command line that repeats a run, for a shell.

        Args:
            parameters: Of the run.
            seed: Of the run.
            store: File name of the store.
            graph: Name of the graph.
        """
        known = {
            "STORE": [store],
            "GRAPH": [graph],
            "MODEL": [parameters.get("model", "MODEL")],
            "MODELS": parameters.get("models", ["MODELS"]),
            "FILE": [parameters.get("source", "FILE")],
        }
        subject = [part for word in self.of.value.split() for part in known.get(word, [word])]
        words = ["emergraph", *self.name.split(), *subject]
        kept = dict(parameters) if seed is None else {**parameters, "seed": seed}
        for options in self.options:
            words += repeated(options, kept)
        return shlex.join(escape_controls(str(word)) for word in words)
