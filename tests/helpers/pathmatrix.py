"""Every command with every parameter that names a file, from the application itself, and lines that work."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from emergraph.cli.app import program

BASES = {
    "audit": ["{model}", "--fail-on", "error"],
    "check": ["{model}"],
    "circuit": ["{store}", "--model", "{model}", "--inputs", "{inputs}", "--samples", "2", "--draws", "1"],
    "compact": ["{store}"],
    "concepts": ["{table}"],
    "contributions": ["{store}", "--model", "{model}", "--inputs", "{inputs}", "--samples", "2"],
    "convert": ["{store}", "--to", "edgelist", "--target", "{new}/edges.txt"],
    "demo": [],
    "diff": ["{store}", "{store}"],
    "emergence": ["{store}"],
    "export": ["{model}", "{new}/net.duckdb"],
    "info": ["{store}"],
    "influence": ["{store}", "--model", "{model}", "--inputs", "{inputs}", "--samples", "2", "--only-layers"],
    "help": [],
    "information": ["{model}"],
    "landscape": ["{model}", "--budget", "1s"],
    "lineage": ["{model}", "{model}"],
    "ls": ["{store}"],
    "mcp": [],
    "merge": ["{store}", "{store}"],
    "paths": ["{store}"],
    "percolate": ["{store}"],
    "plot": ["{store}", "layers", "--out", "{new}/map.svg"],
    "prune": ["{store}", "--model", "{model}", "--level", "0.5"],
    "explore": ["{store}", "--out", "{new}/page.html"],
    "report": ["{store}", "--out", "{new}/page.html"],
    "rm": ["{store}", "--graph", "0"],
    "skills fit": ["{table}"],
    "skills predict": [],
    "skills simulate": ["--steps", "1"],
    "sql": ["{store}", "SELECT 1"],
    "survey": ["{model}", "--out", "{new}/lake"],
    "topology": ["{store}"],
    "trace": ["{store}", "{inputs}", "--model", "{model}"],
    "trajectory": ["{store}"],
    "transition": ["{table}"],
}
"""For each command, words with which it works or is refused at once."""


@dataclass(frozen=True)
class PathParameter:
    """A parameter of a command that names a file."""

    command: str
    name: str
    role: str
    option: str | None
    """None for an argument, which has `place`."""
    place: int | None

    def line(self, path: Path, files: dict[str, str]) -> list[str]:
        """The command line that gives it this path."""
        words = [word.format(**files) for word in BASES[self.command]]
        return self.add_to([*self.command.split(), *words], path)

    def add_to(self, line: list[str], path: Path) -> list[str]:
        """A line of the same command that gives it this path, too."""
        n_names = len(self.command.split())
        words = line[n_names:]
        if self.place is not None:
            words[self.place : self.place + 1] = [str(path)]
        elif self.option in words:
            words[words.index(self.option) + 1] = str(path)
        else:
            words += [str(self.option), str(path)]
        return [*line[:n_names], *words]


def path_parameters() -> list[PathParameter]:
    """All of them."""
    return list(_of(program(), ""))


def command_names() -> list[str]:
    """All commands; those of a group after its name."""
    return [name for name, _ in _commands(program(), "")]


def word_parameters():
    """(command, parameter) of all that is not a flag."""
    for name, command in _commands(program(), ""):
        for parameter in command.params:
            yield name, parameter


def _commands(group, prefix):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _of(group, prefix):
    for name, command in _commands(group, prefix):
        found = command.callback.file_roles
        arguments = [
            parameter.name for parameter in command.params if parameter.param_type_name == "argument"
        ]
        for parameter in command.params:
            if parameter.name not in found:
                continue
            is_option = parameter.param_type_name == "option"
            yield PathParameter(
                name,
                parameter.name,
                found[parameter.name].name,
                parameter.opts[0] if is_option else None,
                None if is_option else arguments.index(parameter.name),
            )


def special_files(folder: Path) -> dict[str, Path]:
    """What is no regular file, by kind."""
    fifo, sock = folder / "fifo", folder / "socket"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(folder)  # names of sockets are short
        bound.bind("socket")
        os.chdir(here)
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("fifo")
    return {
        "FIFO": fifo,
        "link to FIFO": folder / "link",
        "socket": sock,
        "device": Path("/dev/zero"),
        "folder": folder / "folder",
    }
