"""One file per command: its options, one call of the library, and what is shown."""

import importlib
from collections.abc import Callable

from emergraph.cli.app import app

NAMES = (
    "export",
    "trace",
    "emergence",
    "trajectory",
    "prune",
    "percolate",
    "concepts",
    "transition",
    "topology",
    "convert",
    "landscape",
    "report",
    "diff",
    "plot",
    "information",
    "skills",
    "info",
    "ls",
    "sql",
    "rm",
    "merge",
    "compact",
    "check",
    "demo",
)
"""The modules, in the order in which `--help` lists the commands."""


def register_all() -> None:
    """Put every command on the application; only light modules are imported."""
    for name in NAMES:
        importlib.import_module(f"emergraph.cli.commands.{name}")
    # an earlier import of one of the modules has registered its command already
    app.registered_commands.sort(key=lambda command: _place(command.callback))


def _place(callback: Callable[..., object] | None) -> int:
    """Return where in `NAMES` the module is that declares a command; commands from elsewhere come last."""
    module = "" if callback is None else callback.__module__.rpartition(".")[2]
    return NAMES.index(module) if module in NAMES else len(NAMES)
