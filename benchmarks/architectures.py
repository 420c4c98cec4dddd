"""The zoo: whether the graphs of today's architectures are true.

    python benchmarks/architectures.py [NAME ...] [--ci] [--jobs 2] [--again | --any-code] [--page [--no-run]]

Every architecture is built with random weights at a reduced size, exported as a module, and judged:
parameters understood, units per layer, and what changes when a unit is changed, against what the graph
reaches. Rows go to a file, one JSON line each; a rerun skips those that this version of the code has. `make
zoo` runs all and writes docs/architectures.md; `make test-zoo` runs the few that CI has time for, and fails
where one of them is not right.
"""

import argparse
import fnmatch
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoomodels.spec import Architecture

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

STATE = ROOT / "zoo.jsonl"
PAGE = ROOT / "docs" / "architectures.md"
SOURCES = ("exporters", "graphstore", "benchmarks/zoomodels")
SECONDS = 400
"""For one architecture, before it is given up."""

Row = dict[str, Any]


def main() -> int:
    """Run what was asked for; returns the exit code."""
    options = _arguments()
    known = read_rows(options.state)
    wrong = [] if options.no_run else _run_chosen(options, known)
    if options.page:
        from zoomodels.page import page

        PAGE.write_text(page(list(known.values())), encoding="utf-8")
    return 1 if options.ci and wrong else 0


def _run_chosen(options: argparse.Namespace, known: dict[str, Row]) -> list[str]:
    """Run what was asked for and note its rows; returns the names of those that are not right."""
    from zoomodels.catalogue import chosen_architectures

    chosen = chosen_architectures(ci=options.ci)
    if options.names:
        chosen = [a for a in chosen if any(fnmatch.fnmatch(a.name, name) for name in options.names)]
    if not chosen:
        sys.exit(f"no architecture is called {' or '.join(options.names)}; --list names them")
    if options.list:
        print("\n".join(f"{a.group:14} {a.family:24} {a.source:12} {a.name}" for a in chosen))
        return []
    code = code_version()
    todo = [
        a for a in chosen if options.again or not _is_done(known, a.name, code, any_code=options.any_code)
    ]
    for row in run_all(todo, options.jobs):
        row["code"] = code
        known[row["name"]] = row
        options.state.parent.mkdir(parents=True, exist_ok=True)
        with options.state.open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        print(line(row), flush=True)
    wrong = [a.name for a in chosen if a.name in known and problems(known[a.name])]
    print(f"{len(chosen)} architectures, {len(todo)} run now, {len(wrong)} not right {' '.join(wrong)}")
    return wrong


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="architectures; * stands for anything")
    parser.add_argument("--ci", action="store_true", help="those of CI; fail where one is not right")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--again", action="store_true", help="run also what this version of the code has run")
    parser.add_argument("--any-code", action="store_true", help="skip what any version of the code has run")
    parser.add_argument("--state", type=Path, default=STATE, help="file of rows (default zoo.jsonl)")
    parser.add_argument("--page", action="store_true", help="write docs/architectures.md from the rows")
    parser.add_argument("--no-run", action="store_true", help="with --page: write it from the rows there are")
    parser.add_argument("--list", action="store_true", help="name the architectures and stop")
    return parser.parse_args()


def code_version() -> str:
    """Checksum of the code that decides a row."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def read_rows(path: Path) -> dict[str, Row]:
    """The last row of each architecture."""
    if not path.exists():
        return {}
    rows = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines() if text.strip()]
    return {row["name"]: row for row in rows}


def _is_done(known: dict[str, Row], name: str, code: str, *, any_code: bool) -> bool:
    return name in known and (any_code or known[name]["code"] == code)


def run_all(todo: "Sequence[Architecture]", jobs: int) -> Iterator[Row]:
    """Measure each in a process of its own, a few at a time; what crashes or takes too long is a row, too."""
    from zoomodels.measure import warm_up

    warm_up()
    context = multiprocessing.get_context("fork")
    waiting, running = list(todo), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            architecture = waiting.pop(0)
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_measure, args=(architecture, theirs))
            process.start()
            theirs.close()
            running[ours] = (architecture, process, time.monotonic())
        for ready in wait(list(running), timeout=1.0):
            architecture, process, _ = running.pop(ready)
            try:
                yield ready.recv()
            except EOFError:
                process.join()
                yield _failed(architecture, f"the process ended with {process.exitcode}")
            process.join()
        for ours, (architecture, process, start) in list(running.items()):
            if time.monotonic() - start > SECONDS:
                process.kill()
                process.join()
                del running[ours]
                yield _failed(architecture, f"not done after {SECONDS} s")


def _measure(architecture: "Architecture", out: Connection) -> None:
    from zoomodels.measure import measured

    sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - until the process ends
    out.send(measured(architecture))


def _failed(architecture: "Architecture", error: str) -> Row:
    return {
        "name": architecture.name,
        "family": architecture.family,
        "group": architecture.group,
        "source": architecture.source,
        "error": error,
    }


def problems(row: Row) -> list[str]:
    """What is not right about an architecture."""
    if "error" in row:
        return [row["error"]]
    found = []
    numbers, layers, oracle = row["parameters"], row["layers"], row["oracle"]
    if numbers["understood"] != numbers["graph"]:
        lost = "; ".join(f"{op}: {reason}" for op, reason in row["opaque"].items())
        found.append(f"{numbers['understood']:,} of {numbers['graph']:,} parameters understood ({lost})")
    if numbers["graph"] != numbers["module"] - numbers["unused"]:
        found.append(
            f"{numbers['graph']:,} parameters, the module uses {numbers['module'] - numbers['unused']:,}"
        )
    if layers["n_other"]:
        found.append(f"units of {layers['n_other']} layers: {', '.join(layers['other'][:3])}")
    if oracle["missing"]:
        found.append(f"{oracle['missing']} missing paths: {'; '.join(oracle['missing_shown'][:2])}")
    return found


def line(row: Row) -> str:
    """A row on the screen."""
    told = problems(row)
    if "error" in row:
        return f"{row['name']:28} {row.get('seconds', 0):6} s  {told[0]}"
    layers, oracle = row["layers"], row["oracle"]
    return (
        f"{row['name']:28} {row['seconds']:6} s  {row['parameters']['graph']:9,} parameters, "
        f"layers {layers['equal']}/{layers['weighted']}, silent {layers['n_without_activation']}, "
        f"missing {oracle['missing']}, excess {oracle['excess']}/{oracle['claimed']}  "
        f"{'; '.join(told) or 'right'}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
