"""Survey the same files one by one, in threads, in processes, on dask and on ray: one answer.

python tests/kills/survey_everywhere.py --files 60
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from populations import population

from emergraph.analysis.engines.options import Backend, EngineOptions
from emergraph.analysis.survey.survey import SurveyResult, survey
from emergraph.analysis.survey.tables import TIMES
from emergraph.errors import MissingExtraError


def rows(result: SurveyResult) -> list[str]:
    """All rows that must not depend on where and when."""
    models, findings = result.models.drop(TIMES), result.findings
    return [*sorted(map(repr, models.rows())), *sorted(map(repr, findings.rows()))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="serial,threading,loky,dask,ray", help="backends")
    given = parser.parse_args()
    expected, faults = None, 0
    with tempfile.TemporaryDirectory() as folder:
        models = population(Path(folder, "models"), given.files, onnx_files=given.files // 4)
        for name in given.only.split(","):
            begin = time.monotonic()
            try:
                engine = EngineOptions(backend=Backend(name), jobs=given.jobs)
                found = survey(models, Path(folder, name), engine=engine)
            except MissingExtraError as error:
                print(f"{name:10} left out: {error}")
                continue
            expected = expected or rows(found)
            same = rows(found) == expected
            faults += not same
            print(
                f"{name:10} {found.models.height} models, {len(rows(found))} rows, "
                f"{'the same' if same else 'DIFFERENT'}, {time.monotonic() - begin:.0f} s",
                flush=True,
            )
    return faults


if __name__ == "__main__":
    sys.exit(main())
