"""Commands that are made from the declaration of their analysis."""

import inspect
from pathlib import Path
from typing import Annotated

import typer

from emergraph.analysis.declaration import Analysis, Subject
from emergraph.cli.app import command
from emergraph.cli.limits import LONG
from emergraph.cli.output import Output, emit
from emergraph.cli.storeargs import GraphChoice, StorePath
from emergraph.options import Options

Save = Annotated[bool, typer.Option(help="Keep the result in the store.")]


def register(analysis: Analysis, *, app: typer.Typer) -> None:
    """Make the command of an analysis that is about a graph, or all snapshots, of a store.

    Args:
        analysis: Its declaration.
        app: The application that gets the command.
    """
    classes = (*analysis.options, *analysis.looks)
    groups = {f"{cls.__name__}_{number}": cls for number, cls in enumerate(classes)}

    def run(*, store: Path, graph: str | None = None, save: bool, output: Output, **given: Options) -> None:
        from emergraph.analysis.access import carry_out

        objects = [given[name] for name in groups]
        if analysis.check is not None:
            analysis.check(*objects)
        n_options = len(analysis.options)
        result = carry_out(analysis, store, graph, *objects[:n_options], save=save)
        if analysis.show is not None:
            emit(analysis.show(result, *objects[n_options:]), output)

    hints: dict[str, object] = {"store": StorePath}
    defaults: dict[str, object] = {"save": True}
    if analysis.of is Subject.GRAPH:
        hints["graph"], defaults["graph"] = GraphChoice, None
    hints |= {**groups, "save": Save, "output": Output}
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
    run.__doc__ = analysis.summary
    run.__name__ = analysis.name
    command(name=analysis.name, examples=analysis.examples, limits=LONG, group=app)(run)
