"""Run the tasks of a sweep: serial or parallel, resumable, with a time estimate and progress.

Parallel work goes to `engines`; a worker has its own copy of the evaluator and one thread inside. What is
done is saved task by task, so an interrupted sweep goes on where it was.
"""

import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.engines.options import Backend
from emergraph.analysis.engines.spread import Parallelism, WorkerDiedError, spread
from emergraph.analysis.landscape.evaluator import Evaluator
from emergraph.analysis.landscape.tasks import Task
from emergraph.atomic import together
from emergraph.errors import EmergraphError, InvalidInputError, UsageError
from emergraph.graphstore.text import first_line, printable
from emergraph.paths import open_file

LARGEST_LOSS = 1e100
"""Magnitude beyond which a loss counts as infinite: sums of squares would leave the range of floats."""
SAVE_SECONDS = 5.0
"""Least time between two writes of the checkpoint; the first one comes with the first result."""


@dataclass(frozen=True)
class Progress:
    """How far a sweep is."""

    done: int
    """Evaluations done, those of an earlier, interrupted run included."""
    total: int
    seconds: float
    """Since this run began."""
    seconds_left: float
    """Estimate; at the start from `rate`, later from this run's own speed."""


class ResumeFile:
    """Results by task in one file, valid for exactly one sweep of one evaluator.

    Args:
        path: The file; None keeps nothing.
        digest: Of everything that the results depend on.
        costs: Losses of each task.

    Raises:
        UsageError: The file belongs to another sweep.
        InvalidInputError: The file is damaged.
    """

    def __init__(self, path: Path | None, digest: str, costs: Sequence[int]) -> None:
        self._path = path
        self._digest = digest
        self._costs = costs
        self._saved = float("-inf")
        self.results: dict[int, NDArray[np.float64]] = {}
        if path is not None and path.exists():
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            with open_file(path, noted=False) as stream, np.load(stream, allow_pickle=False) as file:
                found = str(file["digest"])
                results = {int(key[1:]): np.asarray(file[key]) for key in file.files if key != "digest"}
        except EmergraphError:
            raise
        except Exception as error:  # numpy reads headers with Python's tokenizer: anything may come out
            raise self._damaged(first_line(error)) from error
        if found != self._digest:
            raise UsageError(
                f"checkpoint {path}: from another model, seed or setting; delete it or name another file"
            )
        for number, values in results.items():
            if not 0 <= number < len(self._costs) or values.dtype != np.float64:
                raise self._damaged(f"an array t{number} of {values.dtype}")
            if values.shape != (self._costs[number],):
                raise self._damaged(f"array t{number} has shape {list(values.shape)}")
        self.results = results

    def _damaged(self, what: str) -> InvalidInputError:
        return InvalidInputError(
            f"checkpoint {self._path}: damaged ({printable(what)}); delete it to start over"
        )

    def add(self, index: int, values: NDArray[np.float64]) -> None:
        """Keep one result and write the file now and then."""
        self.results[index] = values
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the file as a whole, then put it in place: a reader never sees half of one."""
        if self._path is None or not self.results:
            return
        arrays: dict[str, Any] = {f"t{i}": values for i, values in self.results.items()}
        with together() as outputs, outputs.stage(self._path).open("wb") as file:
            np.savez(file, digest=np.array(self._digest), **arrays)
        self._saved = time.monotonic()


def fingerprint(evaluator: Evaluator, tasks: Sequence[Task]) -> str:
    """Hash everything that the results of a sweep depend on: model, evaluation set, loss, tasks."""
    return str(joblib.hash((cloudpickle.dumps(evaluator), list(tasks)), hash_name="sha1"))


def run_sweep(
    evaluator: Evaluator,
    tasks: Sequence[Task],
    *,
    parallelism: Parallelism | None = None,
    checkpoint: Path | None = None,
    rate: float | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> list[NDArray[np.float64]]:
    """Run all tasks and return their losses in order.

    Args:
        evaluator: Picklable for any backend but `serial`, and for checkpoints.
        tasks: What to run; results do not depend on how they are spread.
        parallelism: How to spread them; serial by default.
        checkpoint: File that keeps results between runs; removed when the sweep is complete.
        rate: Evaluations per second from a probe, for the first estimate.
        progress: Called at the start and after every task.

    Returns:
        One array per task; losses beyond `LARGEST_LOSS` are infinite.

    Raises:
        InvalidInputError: A worker process died (a model can crash its engine), or the checkpoint is damaged.
        UsageError: The checkpoint is of another sweep.
        MissingExtraError: The backend is not installed.
    """
    plan = parallelism or Parallelism()
    digest = fingerprint(evaluator, tasks) if checkpoint is not None else ""
    store = ResumeFile(checkpoint, digest, [task.cost for task in tasks])
    todo = [i for i in range(len(tasks)) if i not in store.results]
    total = sum(task.cost for task in tasks)
    fresh, start = 0, time.perf_counter()

    def report() -> None:
        if progress is None:
            return
        seconds = time.perf_counter() - start
        done = sum(tasks[i].cost for i in store.results)
        speed = fresh / seconds if fresh and seconds > 0 else rate
        left = (total - done) / speed if speed else float("nan")
        progress(Progress(done, total, seconds, left))

    report()
    try:
        for index, values in _results(evaluator, tasks, todo, plan):
            fresh += tasks[index].cost
            store.add(index, values)
            report()
    except BaseException:
        store.save()
        raise
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return [_within_range(store.results[i]) for i in range(len(tasks))]


def _within_range(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(losses) > LARGEST_LOSS, np.copysign(np.inf, losses), losses)


def _results(
    evaluator: Evaluator, tasks: Sequence[Task], todo: Sequence[int], plan: Parallelism
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    if plan.backend is Backend.SERIAL or not todo:
        for i in todo:
            yield i, tasks[i].run(evaluator)
        return
    payload = np.frombuffer(cloudpickle.dumps(evaluator), dtype=np.uint8)
    token = str(joblib.hash(payload))
    # Without limits of their own, n workers of n threads each would fight for the cores.
    threads = plan.threads or 1
    calls = ((payload, token, threads, i, tasks[i]) for i in todo)
    try:
        yield from spread(_run_task, calls, plan)
    except WorkerDiedError as error:
        raise InvalidInputError(
            "a worker process died while running the model (crash or out of memory); try fewer jobs"
        ) from error


_LOCAL = threading.local()


def _run_task(
    payload: NDArray[np.uint8], token: str, threads: int, index: int, task: Task
) -> tuple[int, NDArray[np.float64]]:
    """Run one task in a worker; the evaluator is opened once per worker thread and sweep."""
    if getattr(_LOCAL, "token", None) != (token, threads):
        evaluator = pickle.loads(payload.tobytes())  # noqa: S301 - made by `_results` of this program
        limited = getattr(evaluator, "with_threads", None)
        _LOCAL.evaluator = limited(threads) if limited is not None else evaluator
        _LOCAL.token = (token, threads)
    return index, task.run(_LOCAL.evaluator)
