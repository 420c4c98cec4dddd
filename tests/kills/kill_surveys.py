"""Kill surveys at random moments: in the end, no row is lost or doubled, and nothing is left behind.

    PYTHONPATH=tests/helpers python tests/kills/kill_surveys.py --kills 50 --files 30 [--state FILE]

A survey is started on a fresh lake and killed with SIGKILL, without its children, after a random time; then
started again. When it has come to its end, its rows are compared with those of a survey that was let alone,
and the next lake begins. Besides, children that look at files are killed, after which it goes on. With a file
for the state, which has a line for each lake, it goes on where it was stopped.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from populations import population
from warmchildren import warm_children

from emergraph.analysis.survey.survey import TIMES, read_paths, read_tables

HIDDEN = ".emergraph-"
CHILDREN = 0.3
"""Share of kills that are of a child."""


def rows(lake: Path) -> list[str]:
    """All rows of a lake that must not depend on when."""
    (survey,) = [place.name.partition("=")[2] for place in lake.glob("survey=*")]
    paths = read_paths(lake, survey)
    models, findings = read_tables(lake, paths["file"].to_list())
    assert models["file"].n_unique() == models.height == len(list(lake.glob("file=*")))
    graphs = models["graph"].drop_nulls()
    assert set(graphs) == {place.name.partition("=")[2] for place in lake.glob("graph=*")}
    kept = [paths.drop("changed"), models.drop(TIMES), findings]
    return [repr(row) for frame in kept for row in sorted(frame.rows(), key=repr)]


def start(models: Path, lake: Path, temporary: Path) -> "subprocess.Popen[bytes]":
    paths = os.pathsep.join(part for part in sys.path if part)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "emergraph", "survey", str(models), "--out", str(lake), "--quiet"],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def kill_one(process: "subprocess.Popen[bytes]", rng: random.Random, *, child: bool) -> str:
    """Kill the survey, or one of its children that look at files; say which."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
        workers = [one for one in family if os.getsid(one.pid) == one.pid]  # as children with limits are
        if child and workers:
            rng.choice(workers).kill()
            return "child"
        for one in (psutil.Process(process.pid), *family[:1]):  # the parent that watches, and the command
            one.kill()
    except (psutil.NoSuchProcess, ProcessLookupError):
        return "done"
    return "survey"


def still_runs(process: "subprocess.Popen[bytes]", lake: Path, rng: random.Random, pace: float) -> bool:
    """Wait until up to three more files are done, and then up to twice as long as a file takes."""
    enough = len(list(lake.glob("file=*"))) + rng.randint(0, 3)
    while len(list(lake.glob("file=*"))) < enough:
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    try:
        process.wait(rng.uniform(0, 2 * pace))
    except subprocess.TimeoutExpired:
        return True
    return False


def one_lake(
    models: Path, lake: Path, rng: random.Random, *, pace: float, most: int
) -> tuple[int, list[str]]:
    """Survey into a lake, killed again and again, until it comes to its end; return kills and faults.

    Kills of the survey count, those of its children come on top.
    """
    faults, killed = [], 0
    while True:
        process, what = start(models, lake, lake.parent / "tmp"), "done"
        while killed < most and what != "survey":
            if not still_runs(process, lake, rng, pace):
                break
            # one child of a run: a file whose child is killed twice is not looked at again
            what = kill_one(process, rng, child=what == "done" and rng.random() < CHILDREN)
            killed += what == "survey"
        talk = process.communicate()[1].decode()
        if process.returncode == 0:
            break
        if what != "survey":
            faults.append(f"{process.returncode}: {talk[-300:]}")
            break
    faults += [f"left {path.name}" for path in lake.rglob(f"{HIDDEN}*")]
    return killed, faults


def kills(n: int, n_files: int, *, seed: int = 0, state: Path | None = None) -> list[str]:
    """Kill so many times; return what was wrong.

    Args:
        n: Kills.
        n_files: Model files of the survey.
        seed: Of the moments.
        state: File with a line for each lake that is done; None keeps nothing.
    """
    known = state.read_text().splitlines() if state is not None and state.exists() else []
    lakes = [json.loads(line) for line in known]
    with tempfile.TemporaryDirectory(prefix="kills-") as name, warm_children():
        folder = Path(name)
        (folder / "tmp").mkdir()
        models = population(folder / "models", n_files)
        for place in ("warm", "alone"):  # the first one starts what the others are forked from
            begin = time.monotonic()
            with start(models, folder / place, folder / "tmp") as alone:
                said = alone.communicate()[1]
            assert alone.returncode == 0, said
            pace = (time.monotonic() - begin) / n_files
        expected = rows(folder / "alone")
        while (left := n - sum(lake["kills"] for lake in lakes)) > 0:
            lake = folder / f"lake{len(lakes)}"
            killed, faults = one_lake(
                models, lake, random.Random(f"{seed} {len(lakes)}"), pace=pace, most=left
            )
            if not faults and rows(lake) != expected:
                faults.append("other rows")
            lakes.append({"kills": killed, "faults": faults})
            print(f"lake {len(lakes)}: {killed} kills, {faults or 'nothing wrong'}", flush=True)
            if state is not None:
                with state.open("a") as file:
                    file.write(json.dumps(lakes[-1]) + "\n")
            shutil.rmtree(lake)
    return [f"lake {place}: {fault}" for place, lake in enumerate(lakes, 1) for fault in lake["faults"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state", type=Path, help="file that is added to")
    given = parser.parse_args()
    faults = kills(given.kills, given.files, seed=given.seed, state=given.state)
    print(*faults, sep="\n")
    print(f"{given.kills} kills, {len(faults)} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
