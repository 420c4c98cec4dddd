"""Kill commands at random moments, and see that contents are whole and that the next command leaves nothing.

    python tests/kills/kill_commands.py --kills 300 --state kills.jsonl    # goes on where it was
    python tests/kills/kill_commands.py --kills 300 --only 17              # one case again

Each case copies a folder with two models and two stores, starts one command in it with a temporary folder of
its own, and kills the whole tree of processes after a time that the seed and the number of the case decide,
uniform over what the command took when it was let alone. Then another command runs, of a kind that is drawn,
too. What must hold after it: every store opens, with all graphs that were in it before, to the last value;
every output is absent, as it was before, or what the whole command writes; and nothing else is in the folder
or in the temporary folder.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from emergraph.graphstore.store import open_store

DEMO = Path(__file__).resolve().parents[2] / "cli" / "demo-data"
RECORDER = """
import torch
import emergraph
torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
with emergraph.record(module, "net.duckdb", inputs=torch.randn(20, 8), name="run") as recorder:
    for step in range(6):
        recorder.step(step, loss=1.0)
"""
OLD_PAGE = "an older page\n"


@dataclass(frozen=True)
class Scenario:
    """A command to kill."""

    name: str
    words: str = ""
    outputs: Sequence[str] = ()
    """Names of what it makes, beside the store `net.duckdb`."""
    program: str | None = None
    """Instead of words: what Python runs."""
    same: bool = True
    """Whether a whole run writes the same bytes each time."""

    def command(self) -> list[str]:
        python = [sys.executable, "-P"]
        return (
            [*python, "-c", self.program]
            if self.program
            else [*python, "-m", "emergraph", *self.words.split()]
        )


PRUNE = "prune net.duckdb --graph digits_dense --level 0.5 --model digits_dense.onnx"
SCENARIOS = (
    Scenario("export", "export digits_dense.onnx new.duckdb", ("new.duckdb",), same=False),
    Scenario("export into", "export digits_dense.onnx net.duckdb --force --name again"),
    Scenario("trace", "trace net.duckdb digits.npz --model digits_dense.onnx --graph digits_dense"),
    Scenario("prune", f"{PRUNE} --write pruned.onnx --save-graph pruned", ("pruned.onnx",)),
    Scenario("convert", "convert net.duckdb --to graphml --target net.graphml", ("net.graphml",)),
    Scenario("convert to a folder", "convert net.duckdb --to parquet --target net", ("net",)),
    Scenario("report", "report net.duckdb --out page.html", ("page.html",), same=False),
    Scenario(
        "report of a model",
        "report digits_dense.onnx --budget 40s --out page.html",
        ("page.html", "digits_dense.duckdb"),
        same=False,
    ),
    Scenario("recorder", program=RECORDER),
    Scenario("compact", "compact net.duckdb"),
    Scenario("merge", "merge net.duckdb other.duckdb"),
)
NEXT = (
    "ls net.duckdb",
    "info net.duckdb",
    "check digits_conv.onnx",
    "sql net.duckdb 'SELECT 1 AS one'",
    "ls other.duckdb",
)


@dataclass
class Outcome:
    """What came of a case."""

    number: int
    scenario: str
    after: float
    """Seconds after which it was killed."""
    finished: bool
    """It was done before."""
    next_command: str
    left_by_kill: list[str] = field(default_factory=list)
    """What was in the folder and the temporary folder before the next command, and did not belong there."""
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ground:
    """What every case starts from."""

    folder: Path
    durations: dict[str, float]
    references: dict[str, str]
    """Digest of each output of a whole run."""
    graphs: dict[str, dict[str, str]]
    """By store: graphs by name, each as a digest."""


def prepare(folder: Path, jobs: int) -> Ground:
    """Make the folder that every case copies, and let each command run alone once."""
    base = folder / "base"
    base.mkdir()
    for name in ("digits_conv.onnx", "digits_dense.onnx", "digits.npz"):
        shutil.copy(DEMO / name, base / name)
    (base / "page.html").write_text(OLD_PAGE)
    for words in (
        "export digits_conv.onnx net.duckdb",
        "export digits_dense.onnx net.duckdb",
        "trace net.duckdb digits.npz --model digits_dense.onnx",
        "export digits_conv.onnx other.duckdb --name third",
    ):
        run_emergraph(words.split(), base, folder)
    stores = {name: digests(base / name) for name in ("net.duckdb", "other.duckdb")}
    ground = Ground(base, {}, {}, stores)
    with ThreadPoolExecutor(jobs) as pool:
        for scenario, duration, found in pool.map(lambda s: alone(s, ground), SCENARIOS):
            ground.durations[scenario.name] = duration
            ground.references.update(found)
    return ground


def run_emergraph(words: Sequence[str], folder: Path, temporary: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "emergraph", *words],
        cwd=folder,
        env=environment(temporary),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.returncode}: {done.stderr[-500:]}"


def alone(scenario: Scenario, ground: Ground) -> tuple[Scenario, float, dict[str, str]]:
    """Let a command run to its end: seconds, and what it writes."""
    with case_folder(ground) as (work, temporary):
        start = time.monotonic()
        done = subprocess.run(
            scenario.command(),
            cwd=work,
            env=environment(temporary),
            capture_output=True,
            text=True,
            check=False,
        )
        duration = time.monotonic() - start
        assert done.returncode == 0, f"{scenario.name}: {done.returncode}: {done.stderr[-800:]}"
        left = strangers(scenario, work, ground) + names(temporary)
        assert not left, f"{scenario.name}: left {left}"
        return (
            scenario,
            duration,
            {f"{scenario.name}/{name}": digest(work / name) for name in scenario.outputs},
        )


@contextlib.contextmanager
def case_folder(ground: Ground) -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        work, temporary = Path(folder, "work"), Path(folder, "tmp")
        shutil.copytree(ground.folder, work)
        temporary.mkdir()
        yield work, temporary


def environment(temporary: Path) -> dict[str, str]:
    path = os.pathsep.join(part for part in sys.path if part)
    return {**os.environ, "TMPDIR": os.fspath(temporary), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run_case(number: int, seed: int, ground: Ground) -> Outcome:
    """Kill one command, run the next one, and look."""
    rng = random.Random(f"{seed}-{number}")
    scenario = SCENARIOS[number % len(SCENARIOS)]
    outcome = Outcome(
        number, scenario.name, rng.uniform(0, ground.durations[scenario.name]), False, rng.choice(NEXT)
    )
    with case_folder(ground) as (work, temporary):
        with subprocess.Popen(
            scenario.command(),
            cwd=work,
            env=environment(temporary),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                start = time.monotonic()
                process.wait(outcome.after)
                outcome.finished = True
                # the machine is less busy than it was: later cases are killed earlier
                ground.durations[scenario.name] = min(
                    ground.durations[scenario.name], time.monotonic() - start
                )
            except subprocess.TimeoutExpired:
                kill_tree(process.pid)
        outcome.left_by_kill = strangers(scenario, work, ground) + names(temporary)
        after(outcome, scenario, work, temporary, ground)
    return outcome


def after(outcome: Outcome, scenario: Scenario, work: Path, temporary: Path, ground: Ground) -> None:
    """Run the next command, and note every fault."""
    words = outcome.next_command.replace("'SELECT 1 AS one'", "SELECT\t1\tAS\tone").split(" ")
    try:
        run_emergraph([word.replace("\t", " ") for word in words], work, temporary)
        left = strangers(scenario, work, ground) + names(temporary)
        if "net.duckdb" not in outcome.next_command:  # what is committed in its log belongs to the store
            left = [name for name in left if name != "net.duckdb.wal"]
        outcome.faults += [f"left: {name}" for name in left]
        for store, graphs in ground.graphs.items():
            now = digests(work / store)
            outcome.faults += [f"{store}: {name} changed" for name in graphs if now.get(name) != graphs[name]]
        for name in scenario.outputs:
            outcome.faults += output_faults(scenario, work / name, ground)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is a fault
        outcome.faults.append(f"{type(error).__name__}: {error}")


def output_faults(scenario: Scenario, path: Path, ground: Ground) -> list[str]:
    """An output is absent, as before, or whole."""
    if not path.exists():
        return [f"{path.name} is gone"] if (ground.folder / path.name).exists() else []
    if path.suffix == ".duckdb":
        return [] if digests(path) else [f"{path.name} is an empty store"]
    if scenario.same:
        whole = digest(path) == ground.references[f"{scenario.name}/{path.name}"]
    else:
        text = path.read_text()
        whole = text == OLD_PAGE or text.rstrip().endswith("</html>")
    return [] if whole else [f"{path.name} is not whole"]


def strangers(scenario: Scenario, work: Path, ground: Ground) -> list[str]:
    """Names in the folder that neither were there nor are outputs."""
    expected = {*names(ground.folder), *scenario.outputs}
    return [name for name in names(work) if name not in expected]


def names(folder: Path) -> list[str]:
    """What is in a folder, but for the cache that torch makes for itself in the temporary one, and keeps."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("torchinductor_"))


def digest(path: Path) -> str:
    """Of a file, or of a folder's files."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    return hashlib.sha256(b"".join(file.name.encode() + file.read_bytes() for file in files)).hexdigest()


def digests(store: Path) -> dict[str, str]:
    """Every graph of a store by name: its units, edges, tensors and traces as one digest."""
    found = {}
    with open_store(store) as opened:
        for name in opened.graphs()["name"]:
            graph = opened.graph(name)
            frames = [graph.layers(), graph.units(), graph.edges(), graph.tensors(), graph.metrics()]
            first = graph.traces().head(1)
            frames += [first, *([graph.activations(first["name"][0])] if first.height else [])]
            text = "".join(frame.write_json() for frame in frames)
            found[name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def kill_tree(pid: int) -> None:
    """Kill a process with all its descendants: all are stopped first, so that none can start another."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        while True:
            tree = [root, *root.children(recursive=True)]
            fresh = [process for process in tree if process.pid not in found]
            if not fresh:
                break
            for process in fresh:
                found[process.pid] = process
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGSTOP)
    for process in found.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs([process for process in found.values() if process.pid != pid], timeout=30)


def kill_all(
    kills: int, *, seed: int = 0, jobs: int = 2, state: Path | None = None, only: int | None = None
) -> list[Outcome]:
    """Run all cases that the state file does not hold yet; return all outcomes."""
    outcomes = []
    if state is not None and state.exists():
        outcomes = [Outcome(**json.loads(line)) for line in state.read_text().splitlines()]
    done = {outcome.number for outcome in outcomes}
    todo = [number for number in range(kills) if number not in done] if only is None else [only]
    if not todo:
        return outcomes
    with tempfile.TemporaryDirectory(prefix="kills-") as folder, ThreadPoolExecutor(jobs) as pool:
        ground = prepare(Path(folder), jobs)
        for outcome in pool.map(lambda number: run_case(number, seed, ground), todo):
            outcomes.append(outcome)
            if state is not None:
                with state.open("a") as stream:
                    stream.write(json.dumps(asdict(outcome)) + "\n")
    return outcomes


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int)
    parser.add_argument("--state", type=Path)
    options = parser.parse_args()
    outcomes = kill_all(
        options.kills, seed=options.seed, jobs=options.jobs, state=options.state, only=options.only
    )
    finished = sum(outcome.finished for outcome in outcomes)
    littered = sum(bool(outcome.left_by_kill) for outcome in outcomes)
    print(f"{len(outcomes)} kills, {finished} of commands that were done by then")
    print(f"{littered} left something for the next command to take away")
    print(dict(Counter(outcome.scenario for outcome in outcomes)))
    faulty = [outcome for outcome in outcomes if outcome.faults]
    for outcome in faulty:
        print(f"FAULT {outcome}")
    return bool(faulty)


if __name__ == "__main__":
    sys.exit(main())
