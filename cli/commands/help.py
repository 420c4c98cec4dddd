"""`emergraph help`: what a command does."""

from typing import Annotated, Any

import typer

from emergraph.choices import unknown
from emergraph.cli.app import command
from emergraph.errors import UsageError


@command(
    name="help",
    examples="""
    emergraph help --all
    emergraph help export
    """,
)
def help_(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="COMMAND", help="The command.")] = None,
    *,
    whole: Annotated[bool, typer.Option("--all", help="Describe every command and option.")] = False,
) -> None:
    """Show what a command does; with --all, every command and option of the program."""
    root: Any = ctx.parent
    group = root.command
    if name is None:
        typer.echo(group.whole_help(root) if whole else group.get_help(root))
        return
    if name not in group.commands:
        raise UsageError(unknown("command", name, group.commands))
    chosen = group.commands[name]
    typer.echo(chosen.get_help(chosen.make_context(name, [], parent=root, resilient_parsing=True)))
