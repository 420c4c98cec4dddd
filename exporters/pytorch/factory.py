"""Modules by the name of a factory that the user trusts."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from emergraph.errors import EmergraphError, InvalidInputError, UsageError
from emergraph.exporters.pytorch.tensors import require_torch
from emergraph.graphstore.text import first_line


def load_factory(spec: str) -> Any:  # noqa: ANN401 - whatever the factory makes
    """Call a factory, which the caller trusts: its code runs.

    Args:
        spec: "package.module:callable", or "FILE.py:callable", which imports that one file: its folder does
            not become a place from which modules are imported.

    Returns:
        What the factory returns: a module, or a tuple (module, example arguments).

    Raises:
        UsageError: There is no such file, module or callable.
        InvalidInputError: The factory fails.
    """
    target, _, attribute = spec.rpartition(":")
    if not target or not attribute:
        raise UsageError(f"{spec!r} names no factory; expected package.module:callable or FILE.py:callable")
    try:
        found: Any = _of_file(Path(target)) if target.endswith(".py") else importlib.import_module(target)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        file = Path(f"{target.replace('.', '/')}.py")
        hint = f"; for the file in this folder: ./{file}:{attribute}" if file.is_file() else ""
        raise UsageError(f"cannot import {spec!r}: {first_line(error)}{hint}") from error
    try:
        return found() if callable(found) else found
    except EmergraphError:
        raise
    except Exception as error:
        raise InvalidInputError(f"{spec} failed: {type(error).__name__}: {first_line(error)}") from error


def _of_file(path: Path) -> ModuleType:
    """Import one file as a module of its own name.

    Raises:
        UsageError: There is no such file.
        InvalidInputError: Its code fails.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected FILE.py:callable")
    name = f"_emergraph_factory_{path.stem}"
    about = importlib.util.spec_from_file_location(name, path)
    if about is None or about.loader is None:
        raise UsageError(f"{path}: not a Python file; expected FILE.py:callable")
    module = importlib.util.module_from_spec(about)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        about.loader.exec_module(module)
    except (ImportError, EmergraphError):
        raise
    except Exception as error:
        raise InvalidInputError(f"{path} failed: {type(error).__name__}: {first_line(error)}") from error
    return module


def load_module(
    spec: str,
    *,
    programs: bool = False,
) -> tuple[Any, tuple[Any, ...] | None]:
    """Call a factory that makes a module, and return the module with its example arguments.

    Args:
        spec: "package.module:callable" or "FILE.py:callable", which the caller trusts: its code runs. It
            returns a module, or a tuple (module, example arguments).
        programs: A `torch.export.ExportedProgram` will do as well.

    Returns:
        The module, and its positional arguments; None where the factory gives none.

    Raises:
        MissingExtraError: torch is not installed.
        UsageError: There is no such factory, or it makes something else.
        InvalidInputError: The factory fails.
    """
    torch = require_torch()
    made = load_factory(spec)
    module, given = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    kinds = (torch.nn.Module, torch.export.ExportedProgram) if programs else torch.nn.Module
    if not isinstance(module, kinds):
        raise UsageError(f"{spec} made a {type(module).__name__}; expected a module, or (module, arguments)")
    if given is None:
        return module, None
    return module, tuple(given) if isinstance(given, tuple | list) else (given,)
