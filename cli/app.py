"""The Typer application and the decorator that puts a command on it."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from emergraph.cli.files import checked_files, role_of
from emergraph.cli.limits import Limits, doing, held_to
from emergraph.errors import UsageError
from emergraph.options import Option, Options, declared_options, text_of, value_of

Chosen = TypeVar("Chosen", bound=Options)

app = typer.Typer(
    name="emergraph",
    help="Turn a trained neural network into a weighted graph in a DuckDB file, and ask questions about it.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: no rich to import, nothing to misread as markup
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_LIMITS = Limits()
_OWN_LIMITS = "limits_of_the_command"


def command(
    *,
    examples: str,
    name: str | None = None,
    group: typer.Typer | None = None,
    limits: Limits = _LIMITS,
    held: bool = True,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    r"""Register a function as a command.

    A parameter whose type is a dataclass stands for all options that the dataclass declares: its fields
    appear on the command line, and the function receives one object. The docstring is the help text.

    Args:
        examples: Command lines shown at the end of the help text, one per line.
        name: Name of the command; the function's name by default.
        group: The command that this one is a part of, such as skills of `emergraph skills fit`.
        limits: What it may take by default. Every command has the options of these; the function receives
            them where it has a parameter of that type.
        held: Whether it is stopped here at its limits; False where it hands the work to a child that is.
    """
    lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    epilog = f"\b\nExamples:\n{lines}"

    def register(function: Callable[..., None]) -> Callable[..., None]:
        (group or app).command(name=name, epilog=epilog)(_flattened(function, limits, held=held))
        return function

    return register


def _flattened(
    function: Callable[..., None], limits: Limits | None = None, *, held: bool = True
) -> Callable[..., None]:
    """A function with options for parameters; with limits, one that has theirs, and is held to them."""
    hints = typing.get_type_hints(function, include_extras=True)
    groups: dict[str, tuple[type, list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if not dataclasses.is_dataclass(hint):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint))
            continue
        options = _option_parameters(typing.cast("type", hint), limits if hint is Limits else None)
        groups[parameter.name] = (typing.cast("type", hint), [option.name for option in options])
        parameters.extend(options)
    asked = next((name for name, (group, _) in groups.items() if group is Limits), None)
    if asked is None and limits is not None:
        options = _option_parameters(Limits, limits)
        groups[_OWN_LIMITS] = (Limits, [option.name for option in options])
        parameters.extend(options)

    roles = {
        parameter.name: role
        for parameter in parameters
        if (role := role_of(parameter.annotation)) is not None
    }

    @functools.wraps(function)
    def flat(**values: object) -> None:
        if limits is not None:  # before any file is looked at
            Limits(**{field.name: values[field.name] for field in dataclasses.fields(Limits)})  # type: ignore[arg-type]
        with checked_files(values, roles):
            run(values)

    def run(values: dict[str, object]) -> None:
        for name, (group, names) in groups.items():
            values[name] = _made(group, {option: values.pop(option) for option in names})
        given = values[asked] if asked else values.pop(_OWN_LIMITS, None)
        if not held or not isinstance(given, Limits):
            function(**values)
            return
        with doing(function.__name__), held_to(given):
            function(**values)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.file_roles = roles  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del flat.__wrapped__  # typer would look behind the new signature
    return flat


def _option_parameters(group: type, defaults: object = None) -> list[inspect.Parameter]:
    declared = list(declared_options(group))
    if declared:
        return [_parameter(option) for option in declared]
    hints = typing.get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default if defaults is None else getattr(defaults, field.name),
            annotation=hints[field.name],
        )
        for field in dataclasses.fields(group)
    ]


def _parameter(option: Option) -> inspect.Parameter:
    """A parameter for typer from an option of the library: words stay words here, see `_made`."""
    kind = option.item if option.item in _PLAIN and not option.many else str
    default = option.default if kind is not str or option.default is None else text_of(option.default)
    said = option.default_text
    flags = option.flag
    if kind is bool and option.default:
        flags = f"{option.flag}/{option.flag.replace('--', '--no-', 1)}"
    info = typer.Option(
        flags,
        help=option.help if said is None else f"{option.help}  [default: {said}]",
        metavar=option.metavar,
        min=option.least if kind in (int, float) else None,
        max=option.most if kind in (int, float) else None,
        show_default=said is None,
    )
    optional = kind if default is not None else kind | None
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[optional, info]
    )


_PLAIN = (bool, int, float, Path)
"""Types that typer reads; every other value is a word that the option itself reads."""


def _made(group: type, values: dict[str, object]) -> object:
    """Return an object of a class of options from what stood on the command line."""
    declared = {option.name: option for option in declared_options(group)}
    return group(
        **{
            name: value_of(declared[name], value) if name in declared and isinstance(value, str) else value
            for name, value in values.items()
        }
    )


def parse_options(group: type[Chosen], words: Sequence[str]) -> Chosen:
    """Return the options that words of a command line give: the inverse of `command_line`.

    Raises:
        UsageError: A word is none of the options, or a value is none that its option may have.
    """
    found: list[Chosen] = []

    def keep(*, options: Chosen) -> None:
        found.append(options)

    keep.__annotations__ = {"options": group}
    alone = typer.Typer(add_completion=False)
    alone.command()(_flattened(keep))
    try:
        typer.main.get_command(alone).main(list(words), standalone_mode=False)
    except typer.TyperException as error:
        raise UsageError(error.format_message()) from None
    return found[0]


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
