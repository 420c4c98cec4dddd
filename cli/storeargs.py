"""Arguments that many commands share: the store and the choice of a graph."""

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from emergraph.cli.links import Links
from emergraph.errors import UsageError
from emergraph.options import FileRole
from emergraph.paths import DUCKDB_MAGIC, read_head
from emergraph.safetext import escape_controls

StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="The store, a DuckDB file.")]

AnyName = Annotated[
    bool, typer.Option("--any-name", help="Allow a new store whose name does not end in .duckdb or .db.")
]

GraphChoice = Annotated[
    str | None,
    typer.Option("--graph", metavar="NAME|ID", help="The graph, by name or id.  [default: the newest]"),
]


Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Check the SHA-256 of all tensors of --model first, not of each when it is read.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The model behind a graph whose edges stayed in it."""

    HEADING: ClassVar = "The model file"

    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="What the graph was exported from; needed where its edges stayed there (export --edges).",
        ),
        FileRole.MODEL,
    ] = None
    verify: Verify = False

    def given(self, links: Links) -> AbstractContextManager[None]:
        """Let graphs find the weights that stayed in the model."""
        return weights_of(self.model, links, verify=self.verify)


def weights_of(
    model: Path | Sequence[Path] | None, links: Links, *, verify: bool = False
) -> AbstractContextManager[None]:
    """Let graphs that are read in the block find the weights that stayed in a model.

    Raises:
        UsageError: The weights of no model are to be checked.
    """
    from emergraph.api.handle import weights_of as found_in

    models = [model] if isinstance(model, Path) else list(model or ())
    return found_in(*models, root=links.root, verify=verify)


@dataclass(frozen=True, kw_only=True)
class ResultStore:
    """Where a result is kept, besides being shown."""

    HEADING: ClassVar = "Keeping the result"

    store: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Keep the result in this store, which is created if missing."),
        FileRole.STORES,
    ] = None
    any_name: AnyName = False


def refuse_store(model: str | Path, command: str) -> None:
    """Refuse a store where a command runs a model: a graph cannot be run.

    Raises:
        UsageError: It is a DuckDB file.
    """
    at, magic = DUCKDB_MAGIC
    path = Path(model)
    if not path.is_file() or read_head(path, at + len(magic))[at:] != magic:
        return
    name = escape_controls(path.name)
    raise UsageError(
        f"{name}: a store, where `{command}` runs a model file; give the model that was exported into it: "
        f"emergraph {command} MODEL --store {shlex.quote(name)}"
    )
