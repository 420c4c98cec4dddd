"""Options of the library, declared once.

A class of options is a frozen dataclass whose fields say their default, what they mean and what they may be:

    class WalkOptions(Options):
        "How walks are drawn."
        walks: int = option(default=10, help="Random walks.", least=2)

The command line reads its options from such classes (`emergraph.cli.app`), the docstring lists them, values
are checked when an object is made, and `command_line` writes the words that make an equal object again.
Nothing else repeats a default or a help text.
"""

import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, StrEnum, auto
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from emergraph.choices import unknown
from emergraph.errors import UsageError

_KEY = "emergraph option"
Choice = TypeVar("Choice", bound=StrEnum)


class FileRole(Enum):
    """What a command does with a path."""

    READS = auto()
    """Opens it; also texts that may name a file, such as `FILE.duckdb:graph`."""
    MODEL = auto()
    """Reads a model there, which may name other files."""
    WRITES = auto()
    """Replaces it as a whole."""
    MAKES = auto()
    """Writes what must not be there yet; the command itself says so."""
    STORES = auto()
    """Keeps results in a store, which is made when missing."""


def text_of(value: object) -> str:
    """Return the word of the command line that means a value; the inverse of `value_of`."""
    if isinstance(value, tuple | list):
        return ",".join(map(text_of, value))
    return repr(value) if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Form:
    """How a value is written as a word of the command line, where its type alone does not say so."""

    read: Callable[[str], object]
    """The value that a word means; raises UsageError for a word that means none."""
    write: Callable[[Any], str] = text_of
    """The word that means a value: the inverse."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option as it was declared, with its name, type and default."""

    name: str
    """Of the field."""
    hint: object
    """Type of the value, without None where None is the default."""
    default: object
    help: str
    """One sentence: what the option means."""
    flag: str
    """On the command line, such as "--level"."""
    metavar: str | None
    """What stands for the value in the help; None: by its type."""
    least: float | None
    """Smallest value."""
    above: float | None
    """The value is larger than this."""
    most: float | None
    """Largest value."""
    default_text: str | None
    """What the help calls the default, where the value itself does not say it."""
    off: str | None
    """The option that turns a flag off, such as "--no-save"; None where the flag is off by default."""
    form: Form | None
    """How values are written; None: by their type."""
    repeatable: bool
    """Each value of a tuple is an option of its own, which is given again for the next."""
    role: FileRole | None
    """What a path is for; None: it is read."""

    @property
    def many(self) -> bool:
        """Whether the value is a tuple: on the command line, words separated by commas, unless repeatable."""
        return typing.get_origin(self.hint) is tuple

    @property
    def item(self) -> object:
        """Type of the value, or of the values of a tuple."""
        return typing.get_args(self.hint)[0] if self.many else self.hint


def option(  # noqa: PLR0913 - what there is to say about an option, all by keyword
    *,
    default: Any,  # noqa: ANN401 - and the only name under which type checkers find it
    help: str,  # noqa: A002 - what typer and argparse call it
    flag: str | None = None,
    metavar: str | None = None,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    default_text: str | None = None,
    off: str | None = None,
    form: Form | None = None,
    repeatable: bool = False,
    role: FileRole | None = None,
) -> Any:  # noqa: ANN401 - stands where a value of the field's type is expected
    """Declare a field of a class of options.

    Args:
        default: Its default.
        help: One sentence: what it means.
        flag: Its name on the command line; by default the field's, with hyphens.
        metavar: What stands for the value in the help.
        least: Smallest value.
        above: The value is larger than this.
        most: Largest value.
        default_text: What the help calls the default, where the value itself does not say it.
        off: Of a flag: the option that turns it off; by default, where it is on, its name after "--no-".
        form: How values are written on the command line, where the type does not say it.
        repeatable: Of a tuple: each value is given with the option again, instead of with commas.
        role: What a path is for, unless it is read.
    """
    declared = {
        "help": help,
        "flag": flag,
        "metavar": metavar,
        "least": least,
        "above": above,
        "most": most,
        "default_text": default_text,
        "off": off,
        "form": form,
        "repeatable": repeatable,
        "role": role,
    }
    return field(default=default, metadata={_KEY: declared})


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(option, field))
@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all classes of options: makes them frozen dataclasses that check and document their fields."""

    def __init_subclass__(cls) -> None:
        """Make the dataclass."""
        cls.__doc__ = cls.__doc__ or ""
        dataclass(frozen=True, kw_only=True)(cls)
        lines = [
            f"    {one.name}: {one.metadata[_KEY]['help']}" for one in fields(cls) if _KEY in one.metadata
        ]
        if lines:
            cls.__doc__ = "\n".join([cls.__doc__.rstrip(), "", "Attributes:", *lines])

    def __post_init__(self) -> None:
        """Turn words into members of enumerations and lists into tuples, and refuse what is out of range.

        Raises:
            UsageError: An option has a value that it may not have.
        """
        for declared in declared_options(type(self)):
            object.__setattr__(self, declared.name, checked(declared, getattr(self, declared.name)))
        self.check()

    def check(self) -> None:
        """Refuse options that do not go together; subclasses say which.

        Raises:
            UsageError: Two options do not go together.
        """

    def to_dict(self) -> dict[str, object]:
        """Return the values by name: plain, for JSON."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    def kept(self) -> dict[str, object]:
        """Return the options as a run keeps them: plain, and of files the names without folders."""
        found = {one.name: getattr(self, one.name) for one in declared_options(type(self))}
        return {name: _plain(_without_folders(value)) for name, value in found.items()}


def declared_options(cls: type) -> Iterator[Option]:
    """Yield the options that a class declares, in order; other fields are not options."""
    for one in fields(cls):
        if _KEY in one.metadata:
            declared = one.metadata[_KEY]
            flag = declared["flag"] or f"--{one.name.replace('_', '-')}"
            off = declared["off"] or (flag.replace("--", "--no-", 1) if one.default is True else None)
            yield Option(
                name=one.name,
                hint=_without_none(one.type),
                default=one.default,
                **{**declared, "flag": flag, "off": off},
            )


def _without_none(hint: object) -> object:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    kept = [part for part in typing.get_args(hint) if part is not type(None)]
    return kept[0] if len(kept) == 1 else hint


def checked(declared: Option, value: object) -> object:
    """Return a value of an option: words become members of its enumeration, lists become tuples.

    Raises:
        UsageError: The value is none that the option may have.
    """
    if value is None and declared.default is None:
        return None
    if declared.many:
        items = tuple(value) if isinstance(value, list | tuple) else (value,)
        return tuple(_checked_item(declared, item) for item in items)
    return _checked_item(declared, value)


def _checked_item(declared: Option, value: object) -> object:
    kind = declared.item
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return member(kind, str(value), declared.name.replace("_", " "))
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and not _in_range(declared, value):
        raise UsageError(f"{declared.name}: expected {_range(declared)}, found {value:g}")
    return value


def _in_range(declared: Option, value: float) -> bool:
    """Tell whether a number is one that the option may have."""
    return (
        (isinstance(value, int) or math.isfinite(value))
        and (declared.least is None or value >= declared.least)
        and (declared.above is None or value > declared.above)
        and (declared.most is None or value <= declared.most)
    )


def _range(declared: Option) -> str:
    bounds = (("at least", declared.least), ("above", declared.above), ("at most", declared.most))
    said = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
    return " and ".join(said) or "a finite number"


def member(kind: type[Choice], word: str, what: str) -> Choice:
    """Return the member of an enumeration that a word names.

    Args:
        kind: The enumeration.
        word: A value of it; a member is one too.
        what: What is chosen, for the message, such as "--rule".

    Raises:
        UsageError: There is no such member; the message lists all.
    """
    try:
        return kind(word)
    except ValueError:
        raise UsageError(unknown(what, word, kind)) from None


def value_of(declared: Option, text: str) -> object:
    """Return the value that a word of the command line means.

    Raises:
        UsageError: It means none that the option may have.
    """
    if declared.form is not None:
        return checked(declared, declared.form.read(text))
    if not declared.many:
        return checked(declared, _item_of(declared, text))
    return checked(declared, [_item_of(declared, part.strip()) for part in text.split(",")])


def _item_of(declared: Option, text: str) -> object:
    kind = declared.item
    if kind is not int and kind is not float:
        return text
    try:
        number: float = kind(text)
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        what = "numbers separated by commas" if declared.many else "a number"
        raise UsageError(f"{declared.flag} {text}: expected {what}")
    return number


def command_line(chosen: Options) -> list[str]:
    """Return the words that give options on the command line; those at their default are left out.

    Args:
        chosen: The options.

    Example:
        >>> class WalkOptions(Options):
        ...     walks: int = option(default=10, help="Random walks.")
        >>> command_line(WalkOptions(walks=3))
        ['--walks', '3']
    """
    declared = declared_options(type(chosen))
    return repeated(type(chosen), {one.name: getattr(chosen, one.name) for one in declared})


def repeated(cls: type[Options], parameters: Mapping[str, object]) -> list[str]:
    """Return the words that give options with these values; values as a run keeps them will do.

    Args:
        cls: A class of options.
        parameters: Values by name of field, plain or not; names of other things are passed over.
    """
    words: list[str] = []
    for declared in declared_options(cls):
        value = parameters.get(declared.name, declared.default)
        if _plain(value) == _plain(declared.default) or (value is None and declared.form is None):
            continue
        if isinstance(value, bool) and declared.form is None:
            words.append(declared.flag if value or declared.off is None else declared.off)
            continue
        write = text_of if declared.form is None else declared.form.write
        each = value if declared.repeatable and isinstance(value, tuple | list) else (value,)
        for text in map(write, each):
            words += [f"{declared.flag}={text}"] if text.startswith("-") else [declared.flag, text]
    return words


def _without_folders(value: object) -> object:
    if isinstance(value, tuple):
        return tuple(map(_without_folders, value))
    return value.name if isinstance(value, Path) else value


def _plain(value: object) -> object:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum | Path) else value
