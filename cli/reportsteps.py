"""The commands that `emergraph report MODEL` runs, one after the other, within a budget of wall time.

Each is a process of its own: one that takes too long is ended and leaves the store as it was, and a command
line in the report is the one that ran.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.cli.links import Links, told_by_this_command
from emergraph.cli.storeargs import AnyName
from emergraph.errors import EmergraphError, ExitCode, LimitError
from emergraph.exporters.runtime.inputwords import InputWords
from emergraph.options import FileRole, command_line
from emergraph.safetext import escape_controls
from emergraph.steps import steps

if TYPE_CHECKING:
    from emergraph.analysis.report.document import Attempt

RESERVE = 0.2
"""Share of the budget that is kept for the report itself."""
LEAST = 2.0
"""Seconds below which no further command is begun."""
SHARES = {"audit": 0.25, "landscape": 0.5}
"""Of the time that is left, what commands with a budget of their own are given."""
SAMPLES = 64
"""Random inputs of the trace, where no others are given."""


@dataclass(frozen=True, kw_only=True)
class Making:
    """What is run where a model is given."""

    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Inputs to trace the model on.  [default: 64 random samples]"),
    ] = None
    store: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Where to keep the graph.  [default: the model's name, .duckdb]"),
        FileRole.STORES,
    ] = None
    any_name: AnyName = False
    budget: Annotated[str, typer.Option(metavar="TIME", help="Wall time for the whole report.")] = "60s"
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random draws.")] = 0

    def plan(
        self,
        model: Path,
        words: InputWords,
        links: Links,
        memory_limit: str,
        *,
        only: Collection[str] | None = None,
    ) -> "ReportPlan":
        """Return what to run on a model: everything, or the commands named here after its export."""
        from emergraph.optionforms import parse_seconds

        return ReportPlan(
            model=model,
            store=self.store or Path(f"{model.stem}.duckdb"),
            any_name=self.any_name,
            inputs=self.inputs,
            words=words,
            seed=self.seed,
            root=links.root,
            budget=parse_seconds(self.budget),
            memory_limit=memory_limit,
            only=only,
        )


@dataclass(frozen=True, kw_only=True)
class ReportPlan:
    """What to run on a model."""

    model: Path
    store: Path
    any_name: bool
    """Let it have a name that is not one of stores."""
    inputs: Path | None
    words: InputWords
    """--input and --input-shape of export, trace and landscape."""
    seed: int
    budget: float
    """Seconds for everything."""
    root: Path | None = None
    """--root of the commands that read the model."""
    memory_limit: str
    """Of each command."""
    only: Collection[str] | None = None
    """Commands after the export; None for all."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a plan."""

    graph: int
    """Id of the graph in the store."""
    attempts: "tuple[Attempt, ...]"


def run_plan(plan: ReportPlan, *, say: Callable[[str], None]) -> Outcome:
    """Run all commands of a plan as far as the budget goes.

    Args:
        plan: What to run.
        say: Takes one line after each command.

    Raises:
        EmergraphError: The model could not be exported; the message and exit code are those of `export`.
    """
    deadline = time.monotonic() + plan.budget * (1 - RESERVE)
    options = command_line(plan.words)
    options += [] if plan.root is None else ["--root", str(plan.root)]
    named = ["--any-name"] if plan.any_name else []
    limits = ["--memory-limit", plan.memory_limit]
    export = ["export", str(plan.model), str(plan.store), *options, *named]
    first, document = _run(export, deadline, limits)
    say(_line(first))
    if first.state == "out of time":
        raise LimitError(
            f"{plan.model.name}: not exported within {plan.budget:g} s; raise --budget, or export it first"
        )
    if first.state != "done":
        raise _refused(first, document)
    exported = json.loads(document)
    graph, in_place = int(str(exported["graph"])), bool(exported["in_place"])
    attempts = [first]
    for words in steps(_later(plan, graph, options, in_place=in_place), "commands"):
        attempt = _next(words, deadline, limits)
        attempts.append(attempt)
        say(_line(attempt))
    return Outcome(graph=graph, attempts=tuple(attempts))


def _later(plan: ReportPlan, graph: int, options: Sequence[str], *, in_place: bool) -> list[list[str]]:
    """The commands after the export, in the order of what readers need: none waits for slow ones.

    Where edges stayed in the model, commands on the store ask for it; null models of weights would run it,
    and are left out.
    """
    store, seed, of = str(plan.store), str(plan.seed), ["--graph", str(graph)]
    samples = [str(plan.inputs)] if plan.inputs is not None else ["--random", str(SAMPLES), "--seed", seed]
    given = [] if plan.inputs is None else ["--inputs", str(plan.inputs)]
    model, draws = str(plan.model), ["--seed", seed]
    weights = ["--model", model] if in_place else []
    full = [] if in_place else [["emergence", store, *of, "--full", *draws]]
    every = [
        ["audit", model, "--store", store, *given, *options, *draws],
        ["prune", store, *of, *weights],
        ["percolate", store, *of, *weights, *draws],
        ["topology", store, *of, *weights, *draws],
        ["trace", store, *samples, "--model", model, *of, *options],
        ["emergence", store, *of, *weights],
        *full,
        ["landscape", model, "--store", store, *given, *options, *draws],
    ]
    return [words for words in every if plan.only is None or words[0] in plan.only]


def _next(words: list[str], deadline: float, limits: Sequence[str]) -> "Attempt":
    from emergraph.analysis.report.document import Attempt

    left = deadline - time.monotonic()
    if left < LEAST:
        return Attempt(command=_shown(words), state="left out", message="the budget was spent")
    share = SHARES.get(words[0])
    if share is not None:
        return _run(words, deadline, limits, held_to=("--budget", f"{max(1.0, left * share):.0f}s"))[0]
    return _run(words, deadline, limits)[0]


def _run(
    words: list[str], deadline: float, limits: Sequence[str], *, held_to: Sequence[str] = ()
) -> "tuple[Attempt, str]":
    """Run one command until the deadline; return how it went and what it printed."""
    from emergraph.analysis.report.document import Attempt

    begin = time.monotonic()
    about = {"command": _shown(words), "held_to": shlex.join(held_to)}
    # Only this interpreter and this package run; every word is an argument of its own, no shell reads it.
    child = subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-m", "emergraph", *words, *held_to, *limits, "--quiet", "--format", "json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=surroundings(),
    )
    try:
        out, err = child.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        _end(child)
        spent = time.monotonic() - begin
        return Attempt(**about, state="out of time", seconds=round(spent, 1)), ""
    except BaseException:
        _end(child)
        raise
    seconds = round(time.monotonic() - begin, 1)
    if child.returncode in (ExitCode.OK, ExitCode.FINDINGS):
        return Attempt(**about, state="done", seconds=seconds), out.decode()
    lines = [line for line in err.decode(errors="replace").splitlines() if line.startswith("Error: ")]
    message = lines[-1].removeprefix("Error: ") if lines else f"exit status {child.returncode}"
    message = told_by_this_command(message)
    failed = Attempt(**about, state="failed", seconds=seconds, message=message)
    return failed, str(child.returncode)


def surroundings() -> dict[str, str]:
    """The environment of a command: this package, and half of the cores for products of matrices.

    Threads of BLAS wait for each other in busy loops. With as many as there are cores, the matrices of most
    layers take twice the processor time and no less wall time, and beside other work far more of both.
    """
    threads = str(max(1, (os.cpu_count() or 1) // 2))
    folders = os.pathsep.join(folder for folder in sys.path if folder)
    return {"OPENBLAS_NUM_THREADS": threads, **os.environ, "PYTHONPATH": folders}


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a command with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()


def _refused(attempt: "Attempt", status: str) -> EmergraphError:
    """The error of a command that failed, with its exit code."""
    kinds = {str(int(kind.exit_code)): kind for kind in EmergraphError.__subclasses__()}
    return kinds.get(status, EmergraphError)(attempt.message)


def _shown(words: Sequence[str]) -> str:
    """The command line without the folders of files."""
    names = [Path(word).name if os.sep in word and not word.startswith("-") else word for word in words]
    return " ".join(["emergraph", *(shlex.quote(escape_controls(name)) for name in names)])


def _line(attempt: "Attempt") -> str:
    took = "" if attempt.seconds is None else f" in {attempt.seconds:.1f} s"
    told = f": {attempt.message}" if attempt.message else ""
    command = " ".join(filter(None, (attempt.command, attempt.held_to)))
    return f"{attempt.state}{took}: {command}{told}"
