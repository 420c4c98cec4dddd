"""Spoil ONNX models and see that nothing but the documented errors comes of it.

    python tests/fuzz/fuzz_onnx.py --cases 20000 --seed 1
    python tests/fuzz/fuzz_onnx.py --stages read,check --cases 500 --real
    python tests/fuzz/fuzz_onnx.py --seed 1 --only 1234        # one case again, with its traceback

Every case is decided by the seed and its number alone. Cases run in child processes under limits of memory;
a case that crashes its process, raises anything but an EmergraphError, gives a message of more than one line,
or takes longer than --case-seconds is a failure. What can be read is exported too: run, traced and written.
Failing files are kept in --keep. To fuzz a further stage,
add a function of a path to STAGES.
"""

import argparse
import contextlib
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from onnxmutations import mutate
from onnxseeds import Seed, own_seeds, real_seeds

from emergraph.errors import EmergraphError
from emergraph.safetext import escape_controls


def read(path: Path) -> None:
    """Read the file."""
    from emergraph.exporters.onnxfile.reader import read_onnx

    assert read_onnx(path).sha256


def values(path: Path) -> None:
    """Decode every tensor."""
    from onnx import SparseTensorProto

    from emergraph.exporters.onnxfile.reader import read_onnx
    from emergraph.exporters.onnxfile.traverse import bodies, body_tensors

    file = read_onnx(path)
    for body in bodies(file.model):
        for proto in body_tensors(body):
            if isinstance(proto, SparseTensorProto):
                sparse = file.sparse_tensor_of(proto)
                assert len(sparse.coordinates()) == len(sparse.linear_indices()) == len(sparse.array())
            else:
                tensor = file.tensor_of(proto)
                if tensor.dtype != "string":
                    assert tensor.array().shape == tensor.shape
                    assert len(tensor.raw()) == tensor.n_bytes


def check(path: Path) -> None:
    """List the findings."""
    from emergraph.exporters.onnxfile.check import check_onnx

    assert all(escape_controls(finding.line()) == finding.line() for finding in check_onnx(path))


Stage = Callable[[Path], None]
STAGES: dict[str, Stage] = {"read": read, "values": values, "check": check}
"""What is done with every case, by name; `Exports` is one more."""
ALL_STAGES = (*STAGES, "export")


class Exports:
    """The stage "export": one graph after the other into one store, by one child process that is kept.

    Starting Python and onnxruntime anew for each case would take longer than everything else together.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "graphs.duckdb"
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        from emergraph.exporters.runtime import concrete
        from emergraph.exporters.runtime.limits import RunLimits
        from emergraph.exporters.runtime.process import ModelProcess
        from emergraph.graphstore.store import open_store

        limits = RunLimits(wall_seconds=20, memory_bytes=4 << 30)
        process = self._open.enter_context(ModelProcess(limits))

        @contextlib.contextmanager
        def lend(_: RunLimits) -> Iterator[ModelProcess]:
            process.renew()
            yield process

        self._store = self._open.enter_context(open_store(self._path, mode="create"))
        self._open.enter_context(mock.patch.object(concrete, "ModelProcess", lend))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, path: Path) -> None:
        """Export the graph."""
        from emergraph.exporters.export import ExportOptions, export_onnx

        export_onnx(path, self._store, options=ExportOptions(force=True))


@dataclass(frozen=True)
class Outcome:
    """What came of one case."""

    case: int
    seed_model: str
    results: dict[str, str]
    """Per stage: "done", "refused N" with the exit code, or "FAILED ..."."""
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether any stage did something that is not documented."""
        return any(result.startswith("FAILED") for result in self.results.values())


def spoiled(case: int, seed: int, seeds: Sequence[Seed]) -> tuple[Seed, bytes]:
    """Return the model that a case starts from, and its spoiled bytes."""
    rng = random.Random(f"{seed}:{case}")
    chosen = rng.choice(seeds)
    return chosen, mutate(chosen.content, rng)


def run_case(
    case: int, seed: int, seeds: Sequence[Seed], stages: Mapping[str, Stage], folder: Path, *, limit: float
) -> Outcome:
    """Run the stages of one case, on a file in a folder."""
    chosen, content = spoiled(case, seed, seeds)
    path = folder / "model.onnx"
    path.write_bytes(content)
    for name, side in chosen.beside.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(side)
    results = {}
    start = time.monotonic()
    for stage, function in stages.items():
        begun = time.monotonic()
        results[stage] = _result(function, path)
        if time.monotonic() - begun > limit:
            results[stage] = f"FAILED took {time.monotonic() - begun:.1f} s"
    return Outcome(case, chosen.name, results, round(time.monotonic() - start, 3))


def _result(stage: Stage, path: Path) -> str:
    try:
        stage(path)
    except EmergraphError as error:
        if escape_controls(str(error)) != str(error) or len(str(error)) > 2000:
            return f"FAILED message: {error!r}"
        return f"refused {int(error.exit_code)}"
    except Exception as error:  # noqa: BLE001 - whatever else comes out is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        return (
            f"FAILED {type(error).__name__}: {str(error)[:200]} at {Path(place.filename).name}:{place.lineno}"
        )
    return "done"


def work(options: argparse.Namespace) -> None:
    """Run a range of cases in this process; a line of JSON goes out before and after each."""
    resource.setrlimit(resource.RLIMIT_DATA, (options.memory_mib << 20, resource.RLIM_INFINITY))
    seeds = all_seeds(real=options.real)
    with chosen_stages(options.stages) as stages, tempfile.TemporaryDirectory() as folder:
        for case in range(options.first, options.first + options.cases):
            print(json.dumps({"begins": case}), flush=True)
            outcome = run_case(case, options.seed, seeds, stages, Path(folder), limit=options.case_seconds)
            if outcome.failed and options.keep:
                kept = Path(options.keep) / f"case-{options.seed}-{case}"
                shutil.copytree(folder, kept, dirs_exist_ok=True, symlinks=True)
            print(json.dumps(asdict(outcome)), flush=True)


@contextlib.contextmanager
def chosen_stages(names: str = ",".join(ALL_STAGES)) -> Iterator[dict[str, Stage]]:
    """The stages with these names, separated by commas, ready to be called."""
    with contextlib.ExitStack() as stack:
        found = {name: STAGES[name] for name in names.split(",") if name != "export"}
        if "export" in names.split(","):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            found["export"] = stack.enter_context(Exports(Path(folder)))
        yield found


def all_seeds(*, real: bool) -> list[Seed]:
    """Return the models that cases start from."""
    return own_seeds() + (real_seeds() if real else [])


def supervise(options: argparse.Namespace) -> Iterator[Outcome]:
    """Run cases in children, a new one after each crash; yield what came of them."""
    first, last = options.first, options.first + options.cases
    while first < last:
        size = min(options.batch, last - first)
        passed_on = [
            "--seed",
            options.seed,
            "--stages",
            options.stages,
            "--case-seconds",
            options.case_seconds,
        ]
        passed_on += ["--memory-mib", options.memory_mib, "--first", first, "--cases", size]
        command = [sys.executable, __file__, "--worker", *map(str, passed_on)]
        command += (["--real"] if options.real else []) + (["--keep", options.keep] if options.keep else [])
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            running = first
            killer = _Killer(child, options.case_seconds * 10 * len(options.stages.split(",")))
            for line in child.stdout or ():
                killer.postpone()
                message = json.loads(line)
                if "begins" in message:
                    running = message["begins"]
                else:
                    yield Outcome(**message)
                    running = message["case"] + 1
            killer.stop()
            code = child.wait()
            trouble = (child.stderr.read() if child.stderr else "")[-300:]
        if code:
            reason = "FAILED ran forever" if killer.fired else f"FAILED process ended with {code}: {trouble}"
            yield Outcome(running, "?", {"process": reason}, 0.0)
            first = running + 1
        else:
            first += size


class _Killer:
    """Kills a child that has said nothing for too long."""

    def __init__(self, child: "subprocess.Popen[str]", seconds: float) -> None:
        self.child, self.seconds, self.fired = child, seconds, False
        self.postpone()

    def postpone(self) -> None:
        import threading

        if hasattr(self, "timer"):
            self.timer.cancel()
        self.timer = threading.Timer(self.seconds, self._fire)
        self.timer.daemon = True
        self.timer.start()

    def _fire(self) -> None:
        self.fired = True
        self.child.kill()

    def stop(self) -> None:
        self.timer.cancel()


def main() -> int:
    """Run the fuzzing; 1 if anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="run this one case here, and show its traceback")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default=",".join(ALL_STAGES), help="some of the default")
    parser.add_argument("--real", action="store_true", help="also start from third-party models")
    parser.add_argument("--case-seconds", type=float, default=20.0)
    parser.add_argument("--memory-mib", type=int, default=3072)
    parser.add_argument("--batch", type=int, default=1000, help="cases per child process")
    parser.add_argument("--keep", help="folder for the files of failing cases")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return 0
    if options.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            seeds = all_seeds(real=options.real)
            chosen, _ = spoiled(options.only, options.seed, seeds)
            print(f"case {options.only} starts from {chosen.name}")
            run_case(options.only, options.seed, seeds, {}, Path(folder), limit=options.case_seconds)
            with chosen_stages(options.stages) as stages:
                for function in stages.values():
                    function(Path(folder) / "model.onnx")
        return 0
    print(f"seed {options.seed}, cases {options.first} to {options.first + options.cases - 1}", flush=True)
    return _summary(supervise(options))


def _summary(outcomes: Iterator[Outcome]) -> int:
    counts: Counter[tuple[str, str]] = Counter()
    failures, slowest, start = 0, 0.0, time.monotonic()
    for outcome in outcomes:
        slowest = max(slowest, outcome.seconds)
        counts.update((stage, result.split(":")[0]) for stage, result in outcome.results.items())
        if outcome.failed:
            failures += 1
            print(f"case {outcome.case} from {outcome.seed_model}: {outcome.results}", flush=True)
    for (stage, result), count in sorted(counts.items()):
        print(f"{stage:8s} {result:40s} {count}")
    print(f"{failures} failures, slowest case {slowest:.2f} s, {time.monotonic() - start:.0f} s in all")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
