"""Run whole commands on spoiled files, and see each of them done or refused in one line.

    python tests/fuzz/fuzz_commands.py --mode processes --cases 3000 --seed 1 --state fuzz-commands/processes
    python tests/fuzz/fuzz_commands.py --mode inside --cases 20000 --seed 1 --state fuzz-commands/inside
    python tests/fuzz/fuzz_commands.py --sound                     # all command lines on sound files
    python tests/fuzz/fuzz_commands.py --seed 1 --only 1234        # one case again, with its traceback

Every case is decided by the seed and its number: a format, a sound file of it that is spoiled, and a command
that takes it (see `commandseeds` and `commandmutations`). With "processes" each command is a process as users
start it; with "inside" many run through the same entry point in one process, which starts anew when it is
lost. Children come from a process that has the libraries already (see `warmchildren`), but for every tenth of
the "processes", which starts cold. One oracle judges both, see `judged`. Failing files are kept in the folder
of --state, where the next run with the same options goes on.
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from commandmutations import copied, spoil
from commandseeds import COMMANDS, SHARES, WEIGHTS, make_seeds
from warmchildren import warm_children

REPOSITORY = str(Path(__file__).resolve().parents[2])
DOCUMENTED = frozenset({0, 1, 2, 3, 4, 5, 6})
JUDGING = ("audit", "check")
"""Commands that end with 1 where they find something."""
TALK = re.compile(
    r"Note: |Wrote |\d+ evaluations, about |\d+ model files, |[a-z ]+( in [\d.]+ s)?: emergraph |"
    r".*: read as separated by "
)
"""How lines on stderr begin that are no errors."""
FORBIDDEN = re.compile(
    r"unexpected|please report|Traceback|\b[A-Z]\w*Warning\b|panicked|(site|dist)-packages"
    f"|{re.escape(REPOSITORY)}|{re.escape(sys.prefix)}"
)
SECONDS = 90.0
"""Processor time that a command may take; all that have a budget have a small one."""
PATIENCE = 6 * SECONDS
"""On the clock, until a command counts as one that never ends."""
MEMORY_BYTES = 3 << 30
COLD = 10
"""Of so many processes one starts as users start it; the others are forked where all imports are done."""
_DEPRECATIONS = re.compile("/(transformers|torch)/")
PER_PROCESS = 1000
"""Cases of one process of the mode "inside"."""


@dataclass(frozen=True)
class Case:
    """A command on a spoiled file."""

    number: int
    format: str
    command: str
    arguments: list[str]


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str
    seconds: float
    """Of processor time."""
    memory_bytes: int = 0
    warned: list[str] = field(default_factory=list)
    """Warnings of Python code, which a process keeps from its user."""
    where: str = ""
    """Where an error came from that is not of this project."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    case: int
    format: str
    line: str
    code: int
    seconds: float
    problems: list[str]


def judged(ran: Ran, *, quiet: bool, check: bool) -> list[str]:
    """Say what is not as documented about an answer.

    Args:
        ran: The answer.
        quiet: The command had --quiet.
        check: It was one that may end with 1.
    """
    problems = []
    if ran.code not in DOCUMENTED or (ran.code == 1 and not check):
        problems.append(f"exit code {ran.code}")
    if found := FORBIDDEN.search(ran.err):
        problems.append(f"stderr: {found[0]}")
    if found := re.search(f"{re.escape(REPOSITORY)}|{re.escape(sys.prefix)}|Traceback", ran.out):
        problems.append(f"stdout: {found[0]}")
    problems += _wrong_lines(ran, quiet=quiet)
    if ran.seconds > SECONDS:
        problems.append(f"took {ran.seconds:.0f} s")
    if ran.memory_bytes > MEMORY_BYTES:
        problems.append(f"took {ran.memory_bytes >> 20} MiB")
    problems += [f"warned: {text[:300]}" for text in ran.warned[:1]]
    if ran.where and problems:
        problems.append(ran.where)
    return problems


def _wrong_lines(ran: Ran, *, quiet: bool) -> list[str]:
    problems = []
    lines = ran.err.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    if len(errors) != (ran.code > 1):
        problems.append(f"{len(errors)} errors with exit code {ran.code}")
    if other := [line for line in lines if line not in errors and (quiet or not TALK.match(line))]:
        problems.append(f"stderr: {other[0][:200]}")
    if any(not character.isprintable() for line in lines for character in line):
        problems.append("stderr: characters that steer a terminal")
    if any(len(line) > 2000 for line in errors):
        problems.append("stderr: a line of more than 2000 characters")
    return problems


def prepared(number: int, seed: int, seeds: dict[str, list[Path]], folder: Path, formats: str = "") -> Case:
    """Write the spoiled file of a case into a folder; return the case."""
    rng = random.Random(f"{seed}:{number}")
    kinds = sorted(formats.split(",") if formats else COMMANDS)
    kind = rng.choices(kinds, [WEIGHTS.get(name, 1.0) for name in kinds])[0]
    lines = COMMANDS[kind]
    line = rng.choices(lines, [SHARES.get(text.split()[0], 1.0) for text in lines])[0]
    path = copied(rng.choice(seeds[kind]), folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spoil(path, kind, rng)
    arguments = filled(line, path, folder, seeds)
    arguments += rng.choice(([], ["--quiet"], ["--quiet", "--format", "json"], ["--format", "csv"]))
    return Case(number, kind, line, arguments)


def filled(line: str, path: Path, folder: Path, seeds: dict[str, list[Path]]) -> list[str]:
    """The words of a command line of `COMMANDS` on a file, with what else it names in a folder."""
    outputs, store, sound = folder / "out", folder / "sound.duckdb", seeds["store"][0].parent
    outputs.mkdir()
    if "{s}" in line:
        shutil.copy(seeds["store"][0], store)
    return [word.format(f=path, o=outputs, s=store, d=sound) for word in shlex.split(line)]


def as_process(arguments: list[str], *, cold: bool = False) -> Ran:
    """Run a command as users do.

    Args:
        arguments: Its words.
        cold: As a fresh interpreter also where children come warm.
    """
    module = ["-Pm"] if cold else ["-P", "-m"]  # the same, but only the second form is what is kept warm
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, *module, "emergraph", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        killer = threading.Timer(PATIENCE, process.kill)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        killer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    return Ran(process.returncode, *texts, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def inside(arguments: list[str], noise: int) -> Ran:
    """Run a command in this process; what libraries write to descriptor 2 goes to `noise`."""
    from emergraph.analysis.landscape import modelsurvey
    from emergraph.cli import main as entry

    where: list[str] = []
    report = entry._report

    def reported(error: BaseException) -> int:
        frames = traceback.extract_tb(error.__traceback__)
        where.append(" < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:])))
        return report(error)

    os.ftruncate(noise, 0)
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8")
    begun = time.process_time()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(record=True) as warned,
        mock.patch.object(entry, "_report", reported),
        mock.patch.object(modelsurvey, "TRIAL_SECONDS", 0.05),
    ):
        warnings.simplefilter("default")
        code = entry.main(arguments)
    seconds = time.process_time() - begun
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8", "replace"))
    said = [
        f"{w.category.__name__}: {w.message} ({Path(w.filename).name}:{w.lineno})"
        for w in warned
        if not _DEPRECATIONS.search(w.filename)  # of settings in a folder's config.json
    ]
    return Ran(int(code), *texts, seconds, 0, said, where[0] if where else "")


def run_case(number: int, options: argparse.Namespace, seeds: dict[str, list[Path]], noise: int) -> Outcome:
    """Run one case; keep its files if it fails."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        case = prepared(number, options.seed, seeds, folder, options.formats)
        processes = options.mode == "processes"
        if processes:
            ran = as_process(case.arguments, cold=number % COLD == 0)
        else:
            ran = inside(case.arguments, noise)
        check = case.arguments[0] in JUDGING
        problems = judged(ran, quiet="--quiet" in case.arguments, check=check)
        if problems:
            kept = Path(options.state) / f"case-{options.seed}-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, symlinks=True, ignore=shutil.ignore_patterns("out", "sound.duckdb"))
            said = f"{shlex.join(case.arguments)}\n{problems}\n{ran.err[:5000]}"
            (kept / "what.txt").write_text(said, errors="replace")
    return Outcome(number, case.format, case.command, ran.code, round(ran.seconds, 2), problems)


def work(options: argparse.Namespace, seeds: dict[str, list[Path]]) -> None:
    """Run a range of cases in this process; a line of JSON goes out before and after each."""
    sys.excepthook = lambda *error: (Path(options.state) / "worker.log").write_text(
        "".join(traceback.format_exception(*error))
    )
    own = os.fdopen(os.dup(1), "w")
    noise = os.memfd_create("noise")
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    for number in range(options.first, options.first + options.cases):
        print(json.dumps({"begins": number}), file=own, flush=True)
        outcome = run_case(number, options, seeds, noise)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if grown > MEMORY_BYTES:
            outcome.problems.append(f"took {grown >> 20} MiB")
        print(json.dumps(asdict(outcome)), file=own, flush=True)
        if grown > MEMORY_BYTES:
            return


def supervise(options: argparse.Namespace, first: int) -> Iterator[Outcome]:
    """Run cases in children, a new one after each loss; yield what came of them."""
    words = ["--mode", options.mode, "--seed", str(options.seed), "--formats", options.formats]
    with warm_children():
        words += ["--state", options.state]
        while first < options.cases:
            size = min(PER_PROCESS, options.cases - first)
            first = yield from _worked([*words, "--first", str(first), "--cases", str(size)], first)


def _worked(words: list[str], first: int) -> Generator[Outcome, None, int]:
    """Run cases in one child; yield what came of them, and return the number of the next case."""
    command = [sys.executable, __file__, "--worker", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        running, lost = first, True
        killer = threading.Timer(PATIENCE, child.kill)
        killer.start()
        for line in child.stdout or ():
            killer.cancel()
            killer = threading.Timer(PATIENCE, child.kill)
            killer.start()
            message = json.loads(line)
            if "begins" in message:
                running, lost = message["begins"], True
            else:
                yield Outcome(**message)
                running, lost = message["case"] + 1, False
        killer.cancel()
        code = child.wait()
    if code and lost:
        yield Outcome(running, "?", "?", code, 0.0, [f"the process was lost with {code}"])
        running += 1
    return running


def in_processes(options: argparse.Namespace, first: int, seeds: dict[str, list[Path]]) -> Iterator[Outcome]:
    """Run each case as a process, some side by side."""
    from concurrent.futures import ThreadPoolExecutor

    with warm_children(), ThreadPoolExecutor(options.jobs) as pool:
        for start in range(first, options.cases, 4 * options.jobs):
            numbers = range(start, min(options.cases, start + 4 * options.jobs))
            yield from pool.map(lambda number: run_case(number, options, seeds, -1), numbers)


def sound_lines() -> list[tuple[str, str]]:
    """Every command line, with its format; folders last, whose commands load torch."""
    kinds = sorted(COMMANDS, key=lambda kind: (kind == "folder", kind))
    return [(kind, line) for kind in kinds for line in COMMANDS[kind]]


def sample_of(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """A line of each format and of each command."""
    kinds, commands = set(), set()
    found = []
    for kind, line in lines:
        if kind not in kinds or line.split()[0] not in commands:
            found.append((kind, line))
        kinds.add(kind)
        commands.add(line.split()[0])
    return found


def not_done(
    lines: list[tuple[str, str]], seeds: dict[str, list[Path]], folder: Path
) -> list[tuple[str, str, str]]:
    """Run command lines on sound files, two at a time; return those that are not done, with what they say."""
    from concurrent.futures import ThreadPoolExecutor

    def run(number: int) -> Ran:
        kind, line = lines[number]
        here = folder / str(number)
        here.mkdir()
        words = filled(line, copied(seeds[kind][0], here), here, seeds)
        return as_process([*words, "--quiet"])

    with warm_children(), ThreadPoolExecutor(2) as pool:
        ran = list(pool.map(run, range(len(lines))))
    return [
        (kind, line, answer.err)
        for (kind, line), answer in zip(lines, ran, strict=True)
        if answer.code not in ((0, 1) if line.split()[0] in JUDGING else (0,))
    ]


def found_seeds(folder: Path) -> dict[str, list[Path]]:
    """The sound files of a folder, made when they are missing, or those of a format are."""
    listed = folder / "seeds.json"
    if not listed.exists() or not set(COMMANDS) <= set(json.loads(listed.read_text())):
        shutil.rmtree(folder / "seeds", ignore_errors=True)
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            made = make_seeds(folder / "seeds")
        names = {kind: [path.name for path in paths] for kind, paths in made.items()}
        listed.write_text(json.dumps(names))
    names = json.loads(listed.read_text())
    return {kind: [folder / "seeds" / name for name in paths] for kind, paths in names.items()}


def main() -> int:
    """Run the fuzzing; 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=["processes", "inside"], default="inside")
    parser.add_argument("--cases", type=int, default=500, help="cases in all, those of earlier runs included")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--sound", action="store_true", help="run every command line on sound files")
    parser.add_argument("--only", type=int, help="run this one case here, and show its traceback")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default="", help="some of the formats, separated by commas")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--state", default="fuzz-commands", help="folder of sound files, progress, failures")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    Path(options.state).mkdir(parents=True, exist_ok=True)
    seeds = found_seeds(Path(options.state))
    if options.worker:
        work(options, seeds)
        return 0
    if options.sound:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            failed = not_done(sound_lines(), seeds, Path(name))
        print(*failed, f"{len(sound_lines())} command lines, {len(failed)} not done", sep="\n")
        return 1 if failed else 0
    if options.only is not None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        case = prepared(options.only, options.seed, seeds, folder, options.formats)
        print("emergraph", shlex.join(case.arguments), flush=True)
        ran = as_process([*case.arguments, "--debug"])
        print(
            ran.out,
            ran.err,
            f"exit code {ran.code}, {ran.seconds:.1f} s, {ran.memory_bytes >> 20} MiB",
            sep="\n",
        )
        return 0
    return run(options, seeds)


def run(options: argparse.Namespace, seeds: dict[str, list[Path]]) -> int:
    """Go on where the state says, and write it after every case."""
    path = Path(options.state) / f"{options.mode}-{options.seed}.json"
    state = {"next": options.first, "counts": {}, "failures": [], "seconds": 0.0, "slowest": 0.0}
    if path.exists():
        state = json.loads(path.read_text())
    said = f"seed {options.seed}, mode {options.mode}"
    print(f"{said}, from case {state['next']} to {options.cases - 1}", flush=True)
    counts = Counter(state["counts"])
    begun = time.monotonic() - state["seconds"]
    first = state["next"]
    outcomes = (
        in_processes(options, first, seeds) if options.mode == "processes" else supervise(options, first)
    )
    for outcome in outcomes:
        counts[f"{outcome.format} {outcome.code}"] += 1
        if outcome.problems:
            state["failures"].append(asdict(outcome))
            print(f"case {outcome.case} {outcome.line}: {outcome.problems}", flush=True)
        state |= {
            "next": outcome.case + 1,
            "counts": dict(sorted(counts.items())),
            "seconds": time.monotonic() - begun,
            "slowest": max(state["slowest"], outcome.seconds),
        }
        part = path.with_suffix(".part")
        part.write_text(json.dumps(state, indent=1))
        part.replace(path)
    for name, count in sorted(counts.items()):
        print(f"{name:24s} {count}")
    took = f"slowest {state['slowest']:.1f} s, {state['seconds']:.0f} s in all"
    print(f"{len(state['failures'])} failures, {took}")
    return 1 if state["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
