"""What a survey adds to the same steps by hand: CPU and wall seconds, over the files of the manifest.

    python benchmarks/bench_survey.py [--folder FOLDER] [--most 25MB] [--jobs 2] [--repeats 1]

By hand: one process of Python per file, as many at a time, that does what a survey's child does (audit, graph
into the lake, fingerprints), started by a pool of threads. Of a survey, everything counts: search, checksums,
children, rows, tables. Both begin with an empty lake. Seconds of CPU are of all processes that have ended.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emergraph.analysis.engines.options import EngineOptions
from emergraph.analysis.survey.options import PopulationOptions
from emergraph.analysis.survey.search import find_models
from emergraph.analysis.survey.survey import survey
from emergraph.optionforms import parse_bytes
from emergraph.quiet import offline_environment

MODELS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "emergraph" / "models"
SCRIPT = """
import sys
from emergraph.analysis.survey.onefile import Look, look_at
look_at(Look(path=sys.argv[1], lake=sys.argv[2], seconds=600, memory=8 << 30))  # as `options` say it
"""


def by_hand(paths: list[Path], lake: Path, jobs: int) -> None:
    """Look at files, so many at a time, each in a process; what fails has failed."""
    lake.mkdir()

    def one(path: Path) -> None:
        command = [sys.executable, "-P", "-c", SCRIPT, str(path), str(lake)]
        with tempfile.TemporaryDirectory() as folder:
            environment = offline_environment(folder)  # as a survey's child has it
            subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, paths))


def taken(do: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a call, with those of children that it has waited for."""
    begin, before = time.monotonic(), _cpu()
    do()
    return time.monotonic() - begin, _cpu() - before


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=MODELS)
    parser.add_argument("--most", default="1024GiB", help="bytes of the largest file")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {model.path: model.size for model in find_models(given.folder, root=given.folder).models}
        paths = [Path(path) for path, size in sizes.items() if size <= parse_bytes(given.most)]
        listed = folder / "list.txt"
        listed.write_text("".join(f"{path}\n" for path in paths))
        print(
            f"{len(paths)} files, {sum(sizes[str(path)] for path in paths) / 1e6:.0f} MB, {given.jobs} jobs"
        )
        options = PopulationOptions(file_time="10m", file_memory="8GiB")
        engine, found = EngineOptions(jobs=given.jobs), {"by hand": (0.0, 0.0), "survey": (0.0, 0.0)}
        for repeat in range(given.repeats):
            ways: dict[str, Callable[[], object]] = {
                "by hand": lambda at=repeat: by_hand(paths, folder / f"hand{at}", given.jobs),
                "survey": lambda at=repeat: survey(listed, folder / f"lake{at}", options, engine),
            }
            for way in sorted(ways, reverse=bool(repeat % 2)):
                wall, cpu = taken(ways[way])
                print(f"{way:8} {wall:8.1f} s wall, {cpu:8.1f} s CPU", flush=True)
                found[way] = (found[way][0] + wall, found[way][1] + cpu)
    ratio = [found["survey"][k] / found["by hand"][k] - 1 for k in (0, 1)]
    print(f"the survey adds {100 * ratio[0]:+.1f} % wall, {100 * ratio[1]:+.1f} % CPU")
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # kB, of one process
    print(f"the largest process took {largest / 1e6:.2f} GB of {options.file_memory}")


if __name__ == "__main__":
    main()
