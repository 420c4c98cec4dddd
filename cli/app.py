"""The Typer application, which imports the command that is asked for, and the decorator that makes one."""

import copy
import dataclasses
import enum
import functools
import importlib
import importlib.util
import inspect
import os
import typing
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import typer.core

from emergraph.cli.commands import COMMANDS, DAILY, RESEARCH
from emergraph.cli.files import checked_files, role_of
from emergraph.cli.limits import Limits, doing, held_to
from emergraph.cli.progress import progress_line
from emergraph.errors import UsageError
from emergraph.options import Option, Options, declared_options, text_of, value_of
from emergraph.plugins import ANALYSES, plugins

Chosen = TypeVar("Chosen", bound=Options)


class _Commands(MutableMapping[str, Any]):
    """The commands by name; whoever looks one up has its module imported."""

    def __init__(self, registered: Mapping[str, object]) -> None:
        self.made = dict(registered)
        """Those whose modules were imported."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a command or a group, of typer
        if name not in self.made:
            _make(name)
            self.made[name] = typing.cast("_Group", typer.main.get_command(app)).commands.made[name]
        return self.made[name]

    def __setitem__(self, name: str, command: object) -> None:
        self.made[name] = command

    def __delitem__(self, name: str) -> None:
        del self.made[name]

    def __iter__(self) -> Iterator[str]:
        yield from COMMANDS
        yield from (name for name in self.made if name not in COMMANDS)

    def __len__(self) -> int:
        return len({*COMMANDS, *self.made})


def _make(name: str) -> None:
    """Put a command on the application: that of its module, or the one that an analysis declares.

    Raises:
        KeyError: There is none of that name.
    """
    if name in COMMANDS and importlib.util.find_spec(f"emergraph.cli.commands.{name}"):
        importlib.import_module(f"emergraph.cli.commands.{name}")
        return
    if name not in COMMANDS and name not in {
        plugin.name for plugin in plugins(ANALYSES, taken=COMMANDS).found
    }:
        raise KeyError(name)
    from emergraph.analysis.registry import analysis_named
    from emergraph.cli.analyses import register

    register(analysis_named(name), app=app)


class _Group(typer.core.TyperGroup):
    """The program: its help comes from the table of commands, and imports none."""

    commands: _Commands

    def __init__(self, *, commands: Mapping[str, object], **about: Any) -> None:  # noqa: ANN401 - of typer
        super().__init__(**about)
        self.commands = _Commands(commands)

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - of typer
        """Return the parameters of the program itself."""
        return _reading_words(super().get_params(ctx))

    whole = False
    """Whether help describes all commands and options, not the everyday ones on one screen."""

    def whole_help(self, ctx: Any) -> str:  # noqa: ANN401 - of typer
        """Return the help text with every command and option."""
        self.whole = True
        try:
            return self.get_help(ctx)
        finally:
            self.whole = False

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - of typer
        """Write the commands by question, before the options of the program itself."""
        if self.whole:
            super().format_options(ctx, formatter)
            return
        self.format_commands(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(_OWN_OPTIONS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - of typer
        """Write what the commands do."""
        del ctx
        widest = max(map(len, self.commands))
        for title, lines in DAILY.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (f"{name:{widest}}", COMMANDS[name] if self.whole else line)
                        for name, line in lines.items()
                    ]
                )
        own = {name: self.commands[name].help for name in self.commands if name not in COMMANDS}
        with formatter.section(
            "Research, and other programs"
            if self.whole
            else "Research, and other programs (emergraph help --all)"
        ):
            if self.whole:
                formatter.write_dl([(f"{name:{widest}}", COMMANDS[name]) for name in RESEARCH])
            else:
                formatter.write_text(", ".join(RESEARCH))
        others = plugins(ANALYSES, taken=COMMANDS)
        if others.found or own:
            with formatter.section("Commands of plug-ins"):
                formatter.write_dl(
                    [
                        *((name, str(line)) for name, line in own.items()),
                        *(
                            (plugin.name, f"From {plugin.package}.")
                            for plugin in others.found
                            if plugin.name not in own
                        ),
                    ]
                )
        for line in others.refused:
            typer.echo(f"Note: {line}", err=True)


_OWN_OPTIONS = "COMMAND --help: its options. --install-completion completes words in a shell."


class _Command(typer.core.TyperCommand):
    """A command that reads ordinary words itself."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - of typer
        """Return its parameters."""
        return _reading_words(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - of typer
        """Write the arguments, the command's own options, and those that many commands share, by purpose."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                own = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or own, []).append(record)
        for shared in _LAST:
            sections |= {shared: sections.pop(shared)} if shared in sections else {}
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _reading_words(parameters: list[Any]) -> list[Any]:
    """Have ordinary words read here, since typer reads every value, defaults too, through pydantic.

    Importing that costs as much processor time as a small query. Typer still reads what is not plain, and
    says what is wrong with it.
    """
    for parameter in parameters:
        vars(parameter)["get_runtime_param"] = functools.partial(_WordReader, parameter)
    return parameters


class _WordReader:
    """Takes the place of what typer reads the values of a parameter with."""

    def __init__(self, parameter: Any) -> None:  # noqa: ANN401 - of typer
        self._parameter = parameter

    def coerce(self, value: object, *, param: object, ctx: object) -> object:
        """Return the value that a word means."""
        several = self._parameter.multiple or self._parameter.nargs != 1
        if value is None:
            return () if several else None
        declared = self._parameter.type_descriptor
        plain = None if several else plain_value(declared.annotation, declared.parameter_info, value)
        if plain is not None:
            return plain
        return type(self._parameter).get_runtime_param(self._parameter).coerce(value, param=param, ctx=ctx)


def plain_value(kind: object, declared: Any, value: object) -> object | None:  # noqa: ANN401 - of typer
    """Return a default as it is, and what an ordinary word means; None for every other word.

    Args:
        kind: Type of the parameter.
        declared: What else was declared of it.
        value: A word, or the default.
    """
    if not isinstance(kind, type) or type(value) is kind:
        return value if type(value) is kind else None
    if not isinstance(value, str):
        return None
    if kind is Path:
        return Path(value) if os.access(value, os.R_OK) or not os.path.lexists(value) else None
    if issubclass(kind, enum.Enum):
        return next((member for member in kind if member.value == value), None)
    if kind is int and value.isascii() and value.isdigit():
        number = int(value)
        least, most = declared.min, declared.max
        return number if (least is None or number >= least) and (most is None or number <= most) else None
    return None


app = typer.Typer(
    name="emergraph",
    cls=_Group,
    help="Turn a trained neural network into a graph of its units, and ask it questions.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: no rich to import, nothing to misread as markup
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@functools.cache
def program() -> Any:  # noqa: ANN401 - of typer
    """The program as typer runs it, made once: each of its commands is made when it is first asked for."""
    return typer.main.get_command(app)


_LIMITS = Limits()
_OWN_LIMITS = "limits_of_the_command"


def command(
    *,
    examples: str,
    name: str | None = None,
    group: typer.Typer | None = None,
    limits: Limits = _LIMITS,
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
    """
    lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    epilog = f"\b\nExamples:\n{lines}"

    def register(function: Callable[..., None]) -> Callable[..., None]:
        (group or app).command(name=name, epilog=epilog, cls=_Command)(_flattened(function, limits))
        return function

    return register


def _flattened(function: Callable[..., object], limits: Limits | None = None) -> Callable[..., object]:
    """A function with options for parameters; with limits, one that has theirs, and is held to them."""
    hints = typing.get_type_hints(function, include_extras=True)
    plain = [name for name, hint in hints.items() if not dataclasses.is_dataclass(hint)]
    groups: dict[str, tuple[type, dict[str, str]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if not dataclasses.is_dataclass(hint):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint))
            continue
        fields = [
            _under(field, getattr(hint, "HEADING", None))
            for field in _option_parameters(typing.cast("type", hint), limits if hint is Limits else None)
        ]
        taken = {*plain, *(one.name for one in parameters)}
        there = {flag: one.name for one in parameters for flag in _flags(one)}
        options = [_apart(field, parameter.name, taken) for field in fields]
        names = {}
        for option, field in zip(options, fields, strict=True):
            same = next((there[flag] for flag in _flags(option) if flag in there), None)
            names[same or option.name] = field.name  # a flag that two groups declare is one, for both
            parameters += [] if same else [option]
        groups[parameter.name] = (typing.cast("type", hint), names)
    asked = next((name for name, (group, _) in groups.items() if group is Limits), None)
    if asked is None and limits is not None:
        options = [_under(option, Limits.HEADING) for option in _option_parameters(Limits, limits)]
        groups[_OWN_LIMITS] = (Limits, {option.name: option.name for option in options})
        parameters.extend(options)

    roles = {
        parameter.name: role
        for parameter in parameters
        if (role := role_of(parameter.annotation)) is not None
    }

    @functools.wraps(function)
    def flat(**values: object) -> object:
        if limits is not None:  # before any file is looked at
            Limits(**{field.name: values[field.name] for field in dataclasses.fields(Limits)})  # type: ignore[arg-type]
        with checked_files(values, roles):
            return run(values)

    def run(values: dict[str, object]) -> object:
        made = {
            name: _made(group, {field: values[option] for option, field in names.items()})
            for name, (group, names) in groups.items()
        }
        read = {option for _, names in groups.values() for option in names}
        values = {name: value for name, value in values.items() if name not in read} | made
        given = values[asked] if asked else values.pop(_OWN_LIMITS, None)
        if not isinstance(given, Limits):
            return function(**values)
        quiet = any(getattr(value, "quiet", False) for value in values.values()) or bool(values.get("quiet"))
        with doing(function.__name__), progress_line(quiet=quiet), held_to(given):
            return function(**values)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.file_roles = roles  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del flat.__wrapped__  # typer would look behind the new signature
    return flat


def _under(field: inspect.Parameter, heading: str | None) -> inspect.Parameter:
    """The parameter of a field, whose option stands under a heading of the help text."""
    if heading is None:
        return field
    hint, *notes = typing.get_args(field.annotation)
    notes = [copy.copy(note) if isinstance(note, typer.models.OptionInfo) else note for note in notes]
    for note in notes:
        if isinstance(note, typer.models.OptionInfo):
            note.rich_help_panel = heading
    return field.replace(annotation=Annotated[hint, *notes])


def _apart(field: inspect.Parameter, group: str, taken: Collection[str]) -> inspect.Parameter:
    """The parameter of a field, with another name where its own is taken: the option has its flag anyway."""
    return field.replace(name=f"{group}_{field.name}") if field.name in taken else field


def _flags(parameter: inspect.Parameter) -> list[str]:
    """The words that stand for a parameter on the command line, such as --out."""
    infos = getattr(parameter.annotation, "__metadata__", ())
    words = [
        word
        for info in infos
        if isinstance(info, typer.models.OptionInfo)
        for word in (
            info.default,
            *(info.param_decls or ()),
        )  # within Annotated, the first word is its default
        if isinstance(word, str)
    ]
    return [flag for word in words for flag in word.split("/") if flag.startswith("--")]


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
    kind: Any = option.item if option.item in _PLAIN and option.form is None else str
    if option.many and not (option.repeatable and kind is Path):
        kind = str
    default = option.default
    if option.repeatable:
        kind, default = list[kind], list(default) if isinstance(default, tuple) and default else None
    elif kind is str and default == ():
        default = None
    elif kind is str and default is not None:
        default = (text_of if option.form is None else option.form.write)(default)
    said = option.default_text
    info = typer.Option(
        f"{option.flag}/{option.off}" if kind is bool and option.off else option.flag,
        help=option.help if said is None else f"{option.help}  [default: {said}]",
        metavar=option.metavar,
        min=option.least if kind in (int, float) else None,
        max=option.most if kind in (int, float) else None,
        show_default=said is None,
    )
    optional = kind if default is not None else kind | None
    notes = (info,) if option.role is None else (info, option.role)
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[optional, *notes]
    )


_LAST = ("Limits", "Output")
"""Headings of options that every command has; they close its help text."""

_PLAIN = (bool, int, float, Path)
"""Types that typer reads; every other value is a word that the option itself reads."""


def _made(group: type, values: dict[str, object]) -> object:
    """Return an object of a class of options from what stood on the command line."""
    declared = {option.name: option for option in declared_options(group)}
    return group(**{name: _value(declared.get(name), value) for name, value in values.items()})


def _value(option: Option | None, value: object) -> object:
    """What a user means by what typer has read."""
    if option is None:
        return value
    if value is None:
        return option.default
    return value_of(option, value) if isinstance(value, str) else value


def parse_options(group: type[Chosen], words: Sequence[str]) -> Chosen:
    """Return the options that words of a command line give: the inverse of `command_line`.

    Raises:
        UsageError: A word is none of the options, or a value is none that its option may have.
    """
    try:
        found = _parser(typing.cast("Hashable", group)).main(list(words), standalone_mode=False)
    except typer.TyperException as error:
        raise UsageError(error.format_message()) from None
    return typing.cast("Chosen", found)


@functools.cache
def _parser(group: Hashable) -> "typer.core.TyperCommand":
    """A command that has the options of a class and returns an object of it."""

    def keep(*, options: Options) -> Options:
        return options

    keep.__annotations__ = {"options": group}
    alone = typer.Typer(add_completion=False)
    alone.command()(_flattened(keep))
    return typing.cast("typer.core.TyperCommand", typer.main.get_command(alone))


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
    no_plugins: Annotated[
        bool,
        typer.Option("--no-plugins", help="Leave plug-ins out, as EMERGRAPH_NO_PLUGINS=1 does."),
    ] = False,
) -> None:
    """Turn a trained neural network into a graph of its units, and ask it questions."""
    del version, debug, no_plugins  # the first one has been answered, `main` looks at the others
