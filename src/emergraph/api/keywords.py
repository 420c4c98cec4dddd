"""Options as keywords: what a command takes after two hyphens, its function takes by the same name."""

import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from enum import StrEnum
from typing import Any, TypeVar

from emergraph.choices import unknown
from emergraph.errors import UsageError
from emergraph.options import Options, declared_options

Result = TypeVar("Result")
_WIDTH = 100
_SECTIONS = ("\n\nReturns:\n", "\n\nRaises:\n", "\n\nExample:\n")


def with_options(*classes: type[Options]) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Let a function take the options of some classes, as keywords or as objects.

    The function itself has a parameter `options`, and is given one object of each class, in order. Its own
    parameters come first where an option has the name of one. Signature and docstring tell of all.

    Args:
        classes: The classes.
    """

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        own = inspect.signature(function).parameters
        known = [name for cls in classes for name in _names(cls) if name not in own]

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Result:  # noqa: ANN401 - as the function says
            objects = [one for one in arguments if isinstance(one, Options)]
            others = [one for one in arguments if not isinstance(one, Options)]
            for name in keywords:
                if name == "options" or (name not in own and name not in known):
                    known_names = sorted({*known, *own} - {"self", "options"})
                    raise UsageError(f"{function.__name__}: {unknown('option', name, known_names)}")
            options = _gathered(
                function.__name__,
                classes,
                objects,
                {name: value for name, value in keywords.items() if name not in own},
            )
            given = {name: value for name, value in keywords.items() if name in own}
            return function(*others, options=options, **given)

        vars(call)["__signature__"] = _signature(function, classes)
        call.__doc__ = _documented(inspect.cleandoc(function.__doc__ or ""), classes, own)
        vars(call)["options"] = classes
        return call

    return decorate


def _names(cls: type[Options]) -> Iterator[str]:
    """Of the fields that a keyword can fill: those that commands have, and those that take objects."""
    return (one.name for one in fields(cls) if one.init)


def _gathered(
    what: str, classes: Sequence[type[Options]], objects: Sequence[Options], keywords: dict[str, object]
) -> tuple[Options, ...]:
    """One object of each class: as given, or by default, with the keywords that name its fields.

    Raises:
        UsageError: An object is of none of the classes, or two are of one.
    """
    by_class = {type(one): one for one in objects}
    if len(by_class) < len(objects) or not by_class.keys() <= set(classes):
        expected = ", ".join(cls.__name__ for cls in classes) or "no options"
        found = ", ".join(type(one).__name__ for one in objects)
        raise UsageError(f"{what}: expected at most one each of {expected}; found {found}")
    chosen = []
    for cls in classes:
        values: dict[str, Any] = {name: keywords[name] for name in _names(cls) if name in keywords}
        given = by_class.get(cls)
        chosen.append(cls(**values) if given is None else replace(given, **values))
    return tuple(chosen)


def _signature(function: Callable[..., object], classes: Sequence[type[Options]]) -> inspect.Signature:
    """What the function takes: its own parameters, objects of options, and every option by its name."""
    kinds = inspect.Parameter
    own = dict(inspect.signature(function).parameters)
    del own["options"]
    first = [one for one in own.values() if one.kind is not kinds.KEYWORD_ONLY]
    last = [one for one in own.values() if one.kind is kinds.KEYWORD_ONLY]
    asked: dict[str, inspect.Parameter] = {}
    for cls in classes:
        defaults = cls()
        for one in fields(cls):
            if one.name not in own:
                default = _word(getattr(defaults, one.name))
                asked[one.name] = kinds(one.name, kinds.KEYWORD_ONLY, default=default, annotation=one.type)
    returns = inspect.signature(function).return_annotation
    objects = kinds("objects", kinds.VAR_POSITIONAL, annotation=Options)
    return inspect.Signature([*first, objects, *asked.values(), *last], return_annotation=returns)


def _word(value: object) -> object:
    """A default as a caller would write it: members of enumerations are words."""
    if isinstance(value, tuple):
        return tuple(map(_word, value))
    return str(value) if isinstance(value, StrEnum) else value


def _documented(text: str, classes: Sequence[type[Options]], own: object) -> str:
    """A docstring in which the options stand among the arguments."""
    helps = {
        one.name: one.help
        for cls in classes
        for one in declared_options(cls)
        if one.name not in own  # type: ignore[operator]
    }
    told = "\n".join(
        textwrap.fill(f"{name}: {said}", _WIDTH, initial_indent="    ", subsequent_indent="        ")
        for name, said in helps.items()
    )
    told = (
        f"    *objects: Objects of {', '.join(cls.__name__ for cls in classes)}, instead of keywords.\n{told}"
    )
    if "\n\nArgs:\n" in text:
        before, arguments = text.split("\n\nArgs:\n", 1)
        mine, gap, after = arguments.partition("\n\n")
        return f"{before}\n\nArgs:\n{mine}\n{told}{gap}{after}"
    at = min((found for found in map(text.find, _SECTIONS) if found >= 0), default=len(text))
    return f"{text[:at]}\n\nArgs:\n{told}{text[at:]}"
