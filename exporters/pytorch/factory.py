"""Modules by the name of a factory that the user trusts."""

import importlib
from typing import Any

from emergraph.errors import EmergraphError, InvalidInputError, UsageError
from emergraph.exporters.pytorch.tensors import first_line


def load_factory(spec: str) -> Any:  # noqa: ANN401 - whatever the factory makes
    """Call a factory named "package.module:callable", which the caller trusts: its code runs.

    Returns:
        What the factory returns: a module, or a tuple (module, example arguments).

    Raises:
        UsageError: There is no such module or callable.
        InvalidInputError: The factory fails.
    """
    target, _, attribute = spec.partition(":")
    if not target or not attribute:
        raise UsageError(f"{spec!r} names no factory; expected package.module:callable")
    try:
        found: Any = importlib.import_module(target)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"there is no {spec!r}: {first_line(error)}") from error
    try:
        return found() if callable(found) else found
    except EmergraphError:
        raise
    except Exception as error:
        raise InvalidInputError(f"{spec} failed: {type(error).__name__}: {first_line(error)}") from error
