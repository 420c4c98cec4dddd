"""The one family of errors that emergraph raises on purpose, each with its exit code.

A message is one line that says what is wrong, where, what was expected against what was found, and what to
do next. The command line prints it on stderr and exits with `exit_code`; library users catch
`EmergraphError`.
"""

from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    """Done."""
    FINDINGS = 1
    """`check` or `audit` found something."""
    USAGE = 2
    """The command line itself is wrong."""
    INVALID_INPUT = 3
    """A file is unreadable, not what it claims to be, or not supported."""
    UNSAFE = 4
    """Refused because going on would be unsafe."""
    STORE = 5
    """The store is locked, foreign, newer or damaged."""
    LIMIT = 6
    """A limit of time, memory or disk was hit."""
    INTERRUPTED = 130
    """Ctrl-C."""


class EmergraphError(Exception):
    """Root of all errors raised on purpose."""

    exit_code: ExitCode = ExitCode.INVALID_INPUT
    finding: object | None = None
    """What was found in a file that is refused (see `docs/findings.md`), if it is about a file."""


class UsageError(EmergraphError):
    """An option or argument does not make sense."""

    exit_code = ExitCode.USAGE


class InvalidInputError(EmergraphError):
    """A file is missing, unreadable, damaged, or not supported."""

    exit_code = ExitCode.INVALID_INPUT


class UnsafeInputError(EmergraphError):
    """A file asks for something that is refused: code, paths outside its folder, absurd sizes."""

    exit_code = ExitCode.UNSAFE


class StoreError(EmergraphError):
    """The store is locked, from elsewhere, newer than this version, or damaged."""

    exit_code = ExitCode.STORE


class NotAStoreError(StoreError):
    """A file that is no DuckDB file was given as a store; it is untouched."""

    def __init__(self, message: str, *, path: Path) -> None:
        """Keep the file: the command line says what it is instead."""
        super().__init__(message)
        self.path = path


class LimitError(EmergraphError):
    """A limit of wall time, memory or disk was hit; nothing was changed."""

    exit_code = ExitCode.LIMIT


class MissingExtraError(EmergraphError):
    """An optional dependency is needed; the message holds the pip command."""

    exit_code = ExitCode.USAGE


def chain_of(error: BaseException | None, *, context: bool = True) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on; each once, since such chains can be circles.

    Args:
        error: The outermost one.
        context: Also follow what was being handled where nothing was named as the cause.

    Example:
        >>> error = ValueError("a")
        >>> error.__cause__ = error
        >>> list(chain_of(error))
        [ValueError('a')]
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (error.__context__ if context else None)
