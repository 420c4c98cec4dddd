"""Survey the same files one by one, in threads, in processes, on dask and on ray: one answer.

    PYTHONPATH=tests/helpers python tests/kills/survey_everywhere.py --files 60 [--state FOLDER]

With a folder for the state, it goes on where it was stopped: a survey looks at no file twice. Children that
look at files are forked from a process that has imported everything, in workers of clusters, too.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from populations import population
from warmchildren import warm_from_now_on

from emergraph.analysis.engines.options import Backend, EngineOptions
from emergraph.analysis.survey import survey as module
from emergraph.analysis.survey.search import ModelFile
from emergraph.analysis.survey.survey import TIMES, Look, SurveyResult, survey, survey_one
from emergraph.errors import MissingExtraError


def rows(result: SurveyResult) -> list[str]:
    """All rows that must not depend on where and when."""
    models, findings = result.models.drop(TIMES), result.findings
    return [*sorted(map(repr, models.rows())), *sorted(map(repr, findings.rows()))]


def warm_one(model: ModelFile, key: str, look: Look) -> str:
    """Look at a model from a worker whose children start warm."""
    warm_from_now_on()
    return survey_one(model, key, look)


def everywhere(state: Path, files: int, *, jobs: int, backends: list[str]) -> int:
    """Survey on each of the backends; return how many give other rows than the first."""
    models = state / "models"
    if not models.exists():
        population(models, files, onnx_files=files // 4)
    expected, faults = None, 0
    for name in backends:
        begin = time.monotonic()
        try:
            engine = EngineOptions(backend=Backend(name), jobs=jobs)
            found = survey(models, state / name, engine=engine)
        except MissingExtraError as error:
            print(f"{name:10} left out: {error}")
            continue
        assert found.paths.height == files, found.paths.height
        expected = expected or rows(found)
        same = rows(found) == expected
        faults += not same
        print(
            f"{name:10} {found.models.height} models, {len(rows(found))} rows, "
            f"{'the same' if same else 'DIFFERENT'}, {found.looked_at} looked at now, "
            f"{time.monotonic() - begin:.0f} s",
            flush=True,
        )
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="serial,threading,loky,dask,ray", help="backends")
    parser.add_argument("--state", type=Path, help="folder in which everything is kept")
    given = parser.parse_args()
    module.survey_one = warm_one
    with tempfile.TemporaryDirectory() as folder:
        state = given.state or Path(folder)
        state.mkdir(parents=True, exist_ok=True)
        return everywhere(state, given.files, jobs=given.jobs, backends=given.only.split(","))


if __name__ == "__main__":
    # by its name, so that workers import what they are asked to call
    import survey_everywhere

    sys.exit(survey_everywhere.main())
