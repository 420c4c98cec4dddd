"""Progress bars on stderr, for people at a terminal only."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from emergraph.cli.limits import doing
from emergraph.cli.output import Output
from emergraph.safetext import escape_controls

Update = Callable[[float, float], None]
"""Called with the work done and the work there is, in the same unit."""


@contextmanager
def progress_bar(label: str, output: Output) -> Iterator[Update]:
    """Show a bar while the body runs; nothing with --quiet or where stderr is not a terminal.

    Args:
        label: What is being done; names from files may be part of it.
        output: The options of the command.

    Yields:
        The function that moves the bar.
    """
    with doing(label):
        yield from _bar(label, output)


def _bar(label: str, output: Output) -> Iterator[Update]:
    if output.quiet or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    console = Console(stderr=True, markup=False, highlight=False)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(escape_controls(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
