"""One file per command: its options, one call of the library, and what is shown."""

import importlib

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
