"""Commands that are made from the declaration of their analysis."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from emergraph.analysis.declaration import Analysis, Subject
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit
from emergraph.cli.progress import progress_bar
from emergraph.cli.storeargs import GraphChoice, ModelChoice, StorePath
from emergraph.cli.tableinput import read_input_table
from emergraph.optionforms import TableForm
from emergraph.options import Options

Save = Annotated[bool, typer.Option(help="Keep the result in the store.")]


def register(analysis: Analysis, *, app: typer.Typer) -> None:
    """Make the command of an analysis that is about a graph or all snapshots of a store, or about a table.

    Args:
        analysis: Its declaration.
        app: The application that gets the command.
    """
    classes = (*analysis.options, *analysis.looks)
    groups = {f"{cls.__name__}_{number}": cls for number, cls in enumerate(classes)}
    about_file = analysis.of is Subject.FILE

    def run(*, output: Output, **given: Any) -> None:  # noqa: ANN401 - objects of the classes, and arguments
        objects = [given.pop(name) for name in groups]
        chosen, looks = objects[: len(analysis.options)], objects[len(analysis.options) :]
        if analysis.check is not None:
            analysis.check(*objects)
        found = (_of_file if about_file else _of_store)(analysis, chosen, output, **given)
        if analysis.show is not None:
            emit(analysis.show(found, *looks), output)

    hints: dict[str, object] = {"store": StorePath}
    defaults: dict[str, object] = {"save": True, "graph": None}
    if about_file:
        hints = {"file": Annotated[Path, typer.Argument(metavar="FILE", help=analysis.file)]}
    elif analysis.of is Subject.GRAPH:
        hints["graph"] = GraphChoice
    hints |= groups
    if not about_file:
        hints |= {"save": Save, "model": ModelChoice, "links": Links}
    hints["output"] = Output
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(name, inspect.Parameter.empty),
            annotation=hint,
        )
        for name, hint in hints.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = hints
    run.__doc__ = "\n\n".join(filter(None, (analysis.summary, analysis.details)))
    run.__name__ = analysis.name
    command(name=analysis.name, examples=analysis.examples, limits=LONG, group=app)(run)


def _of_store(
    analysis: Analysis,
    chosen: list[Options],
    _output: Output,
    *,
    store: Path,
    save: bool,
    model: ModelChoice,
    links: Links,
    graph: str | None = None,
) -> object:
    """Run an analysis on a graph, or all snapshots."""
    from emergraph.analysis.access import carry_out

    with model.given(links):
        return carry_out(analysis, store, graph, *chosen, save=save)


def _of_file(analysis: Analysis, chosen: list[Options], output: Output, *, file: Path) -> object:
    """Run an analysis on the table that a file holds."""
    form = next((one for one in chosen if isinstance(one, TableForm)), TableForm())
    table = read_input_table(file, form, output)
    with progress_bar("computing", output) as update:
        return analysis.run(table, *chosen, progress=update) if analysis.run is not None else None
