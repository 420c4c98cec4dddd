"""Kill surveys at random moments: in the end, no row is lost or doubled, and nothing is left behind.

    PYTHONPATH=tests/helpers python tests/kills/kill_surveys.py --kills 50 --files 30

A survey is started on a fresh lake and killed with SIGKILL, without its children, after a random time; then
started again. When it has come to its end, its rows are compared with those of a survey that was let alone,
and the next lake begins. Every third kill is of one of its children instead, after which it goes on.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from populations import population

from emergraph.analysis.survey.tables import TIMES, read_paths, read_tables

HIDDEN = ".emergraph-"


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
        workers = [one for one in family if "offlineworker" in " ".join(one.cmdline())]
        if child and workers:
            rng.choice(workers).kill()
            return "child"
        for one in (psutil.Process(process.pid), *family[:1]):  # the parent that watches, and the command
            one.kill()
    except psutil.NoSuchProcess:
        return "done"
    return "survey"


def kills(n: int, n_files: int, seed: int = 0) -> list[str]:
    """Kill so many times; return what was wrong."""
    rng, faults, killed = random.Random(seed), [], 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        temporary = Path(folder, "tmp")
        temporary.mkdir()
        models = population(Path(folder, "models"), n_files)
        begin = time.monotonic()
        with start(models, Path(folder, "alone"), temporary) as alone:
            said = alone.communicate()[1]
        assert alone.returncode == 0, said
        seconds, expected, lakes = time.monotonic() - begin, rows(Path(folder, "alone")), 0
        while killed < n:
            lake, lakes = Path(folder, f"lake{lakes}"), lakes + 1
            while True:
                process = start(models, lake, temporary)
                what = "done"
                if killed < n:
                    try:
                        process.wait(rng.uniform(0.2, 0.5) * seconds)
                    except subprocess.TimeoutExpired:
                        what = kill_one(process, rng, child=killed % 3 == 2)
                        killed += what != "done"
                talk = process.communicate()[1].decode()
                if process.returncode == 0:
                    break
                if what != "survey":
                    faults.append(f"lake {lakes}: {process.returncode}: {talk[-300:]}")
                    break
            print(f"lake {lakes}: {killed} kills", flush=True)
            if rows(lake) != expected:
                faults.append(f"lake {lakes}: other rows")
            left = [str(path) for path in lake.rglob(f"{HIDDEN}*")]
            faults += [f"lake {lakes}: left {name}" for name in left]
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    faults = kills(given.kills, given.files, given.seed)
    print(*faults, sep="\n")
    print(f"{given.kills} kills, {len(faults)} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
