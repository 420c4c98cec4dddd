"""How far long loops are: the library counts, and whoever listens is told (the command line shows it)."""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int, int | None], None]
"""Called with what is done, how many steps of it are, and how many there are in all (None where unknown)."""

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def steps(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """Yield the items of a long loop, and tell whoever listens how many have been taken.

    Args:
        items: What the loop goes over.
        what: What is done with each, as people would say it: "null models".
        total: How many there are; by default their number where they have one.

    Example:
        >>> told = []
        >>> with listening(lambda *step: told.append(step)):
        ...     sum(steps([1, 2], "numbers"))
        3
        >>> told
        [('numbers', 0, 2), ('numbers', 1, 2), ('numbers', 2, 2)]
    """
    listener = _listener.get()
    if listener is None:
        yield from items
        return
    n = len(items) if total is None and isinstance(items, Sized) else total
    listener(what, 0, n)
    for done, item in enumerate(items, 1):
        yield item
        listener(what, done, n)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell a listener of the steps of the body."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)
