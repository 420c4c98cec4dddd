"""Links of model files: the one option that follows them, and the command line that every refusal names."""

import re
import shlex
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from emergraph.errors import EmergraphError

_ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())
_RUN = re.compile(r"; run: emergraph .* --root (?P<root>\S.*)$")


@dataclass(frozen=True, kw_only=True)
class Links:
    """Which links are followed."""

    HEADING: ClassVar = "Limits"

    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="FOLDER",
            help="Folder inside which files of the model may be links, as in a download cache.",
        ),
    ] = None


def note_arguments(arguments: Sequence[str]) -> None:
    """Keep the command line that is running, for messages that name it."""
    _ARGUMENTS.set(tuple(arguments))


def has_empty_word() -> bool:
    """Whether a word or the value of an option is empty, as an unset variable of the shell leaves it."""
    return any(not word or (word.startswith("--") and word.endswith("=")) for word in _ARGUMENTS.get())


def with_command(message: str, root: str) -> str:
    """Return a refusal of a link with the command that follows it."""
    return f"{message}; run: {_command(root)}" if root else message


def refusal_text(error: EmergraphError) -> str:
    """Return the message of an error, with the command that follows the link where it is about one."""
    return with_command(str(error), getattr(error.finding, "root", ""))


def told_by_this_command(message: str) -> str:
    """Return the message of a command that this one ran, with this one's command line in it."""
    found = _RUN.search(message)
    if found is None:
        return message
    words = shlex.split(found["root"])
    return f"{message[: found.start()]}; run: {_command(words[0] if words else found['root'])}"


def _command(root: str) -> str:
    """The command line that is running, with this root instead of any other."""
    words: list[str] = []
    skip = False
    for word in _ARGUMENTS.get():
        if skip or word.startswith("--root="):
            skip = False
        elif word == "--root":
            skip = True
        else:
            words.append(word)
    at = words.index("--") if "--" in words else len(words)
    return shlex.join(["emergraph", *words[:at], "--root", root, *words[at:]])
