"""The command line reference, made from the help texts: `python -m emergraph.cli.reference > docs/cli.md`."""

import sys
import textwrap

from emergraph.cli.app import program
from emergraph.errors import ExitCode

WIDTH = 100

_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FINDINGS: "`check` or `audit` found something",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.INVALID_INPUT: "a file is unreadable, invalid or not supported",
    ExitCode.UNSAFE: "refused as unsafe",
    ExitCode.STORE: "the store is locked, foreign, newer or damaged",
    ExitCode.LIMIT: "a limit of time, memory or disk was hit",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
}


def exit_code_table() -> str:
    """Return the exit codes as a Markdown table."""
    rows = [f"| {int(code)} | {_MEANINGS[code]} |" for code in ExitCode]
    return "\n".join(["| exit code | meaning |", "|---:|---|", *rows])


def reference() -> str:
    """Return the help text of every command as one Markdown page."""
    group = program()
    root = group.make_context("emergraph", [], resilient_parsing=True, terminal_width=WIDTH)
    parts = [
        "# Command line reference\n\nMade from the help texts by `make docs`.",
        f"```text\n{group.whole_help(root)}\n```",
        exit_code_table(),
    ]
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        context = command.make_context(name, [], parent=root, resilient_parsing=True, terminal_width=WIDTH)
        text = textwrap.dedent(command.get_help(context))
        parts.append(f"## emergraph {name}\n\n```text\n{text}\n```")
        for part in getattr(command, "commands", ()):
            inner = command.get_command(context, part)
            below = inner.make_context(part, [], parent=context, resilient_parsing=True, terminal_width=WIDTH)
            text = textwrap.dedent(inner.get_help(below))
            parts.append(f"### emergraph {name} {part}\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
