"""The Typer application and the decorator that puts a command on it."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated

import typer

from emergraph.cli.files import checked_files, role_of

app = typer.Typer(
    name="emergraph",
    help="Turn a trained neural network into a weighted graph in a DuckDB file, and ask questions about it.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: no rich to import, nothing to misread as markup
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def command(
    *, examples: str, name: str | None = None, group: typer.Typer | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    r"""Register a function as a command.

    A parameter whose type is a dataclass stands for all options that the dataclass declares: its fields
    appear on the command line, and the function receives one object. The docstring is the help text.

    Args:
        examples: Command lines shown at the end of the help text, one per line.
        name: Name of the command; the function's name by default.
        group: The command that this one is a part of, such as skills of `emergraph skills fit`.
    """
    lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    epilog = f"\b\nExamples:\n{lines}"

    def register(function: Callable[..., None]) -> Callable[..., None]:
        (group or app).command(name=name, epilog=epilog)(_flattened(function))
        return function

    return register


def _flattened(function: Callable[..., None]) -> Callable[..., None]:
    hints = typing.get_type_hints(function, include_extras=True)
    groups: dict[str, tuple[type, list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if not dataclasses.is_dataclass(hint):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint))
            continue
        options = _option_parameters(typing.cast("type", hint))
        groups[parameter.name] = (typing.cast("type", hint), [option.name for option in options])
        parameters.extend(options)

    roles = {
        parameter.name: role
        for parameter in parameters
        if (role := role_of(parameter.annotation)) is not None
    }

    @functools.wraps(function)
    def flat(**values: object) -> None:
        with checked_files(values, roles):
            run(values)

    def run(values: dict[str, object]) -> None:
        for name, (group, names) in groups.items():
            values[name] = group(**{option: values.pop(option) for option in names})
        function(**values)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.file_roles = roles  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del flat.__wrapped__  # typer would look behind the new signature
    return flat


def _option_parameters(group: type) -> list[inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in dataclasses.fields(group)
    ]


def _print_version(wanted: bool) -> None:
    if wanted:
        from emergraph.version import __version__

        typer.echo(f"emergraph {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Turn a trained neural network into a weighted graph in a DuckDB file, and ask questions about it."""
    del version, debug  # the first one has already been answered, `main` looks at the second one
