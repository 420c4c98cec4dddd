"""Commands that are made from the declaration of their analysis."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from emergraph.analysis.declaration import Analysis, Subject
from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit
from emergraph.cli.progress import progress_bar
from emergraph.cli.storeargs import GraphChoice, ModelChoice, StorePath, Verify
from emergraph.cli.tableinput import read_input_table
from emergraph.optionforms import TableForm
from emergraph.options import Options, declared_options

Save = Annotated[bool, typer.Option(help="Keep the result in the store.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Compute nothing; say what a run would take.")]


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
        if given.pop("dry_run", False):
            emit(_plan(analysis, chosen, given["store"], given.get("graph")), output)
            return
        found = (_of_file if about_file else _of_store)(analysis, chosen, output, **given)
        if analysis.show is not None:
            emit(analysis.show(found, *looks), output)

    hints: dict[str, object] = {"store": StorePath}
    defaults: dict[str, object] = {"save": True, "graph": None, "verify": False, "dry_run": False}
    if about_file:
        hints = {"file": Annotated[Path, typer.Argument(metavar="FILE", help=analysis.file)]}
    elif analysis.of is Subject.GRAPH:
        hints["graph"] = GraphChoice
    hints |= groups
    if not about_file:
        names_model = any(one.name == "model" for cls in analysis.options for one in declared_options(cls))
        model = {"verify": Verify} if names_model else {"model": ModelChoice}
        dry_run = {} if analysis.plan is None else {"dry_run": DryRun}
        hints |= {**dry_run, "save": Save, **model, "links": Links}
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


def _plan(analysis: Analysis, chosen: list[Options], store: Path, graph: str | None) -> View:
    """Say what a run on a graph would take."""
    from emergraph.analysis.access import GraphAccess

    assert analysis.plan is not None  # noqa: S101 - what has the option
    with GraphAccess(store, graph, save=False) as at:
        return analysis.plan(at, *chosen)


def _of_store(
    analysis: Analysis,
    chosen: list[Options],
    _output: Output,
    *,
    store: Path,
    save: bool,
    links: Links,
    model: ModelChoice | None = None,
    verify: bool = False,
    graph: str | None = None,
) -> object:
    """Run an analysis on a graph, or all snapshots."""
    from emergraph.analysis.access import carry_out

    if model is None:  # options of the analysis name it
        named = next(one.model for one in chosen if hasattr(one, "model"))
        model = ModelChoice(model=named, verify=verify)
    with model.given(links):
        return carry_out(analysis, store, graph, *chosen, save=save, root=links.root)


def _of_file(analysis: Analysis, chosen: list[Options], output: Output, *, file: Path) -> object:
    """Run an analysis on the table that a file holds."""
    form = next((one for one in chosen if isinstance(one, TableForm)), TableForm())
    table = read_input_table(file, form, output)
    with progress_bar("computing", output) as update:
        return analysis.run(table, *chosen, progress=update) if analysis.run is not None else None
