"""`emergraph survey`: thousands of model files, each looked at once, all findings in one lake."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from emergraph.analysis.engines.options import EngineOptions
from emergraph.analysis.survey.options import PopulationOptions
from emergraph.cli.app import command
from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.cli.output import FolderOutput, emit, say
from emergraph.cli.progress import progress_bar
from emergraph.errors import UsageError
from emergraph.options import FileRole

PAGE = "survey.html"
"""The page about the population, in the lake."""
_TALK_SECONDS = 30.0


@command(
    examples="""
    emergraph survey models --out lake
    emergraph survey list.txt --out lake --analyses topology,percolate --jobs 4
    emergraph survey models --out lake --backend dask --cluster tcp://host:8786
    emergraph survey models --out lake --file-time 10m --file-memory 16GiB --memory-limit 64GiB
    """,
    limits=Limits(time_limit="168h", memory_limit="32GiB"),
)
def survey(
    models: Annotated[
        Path,
        typer.Argument(metavar="FOLDER|LIST", help="Folder, or text file with one path per line."),
        FileRole.READS,
    ],
    *,
    options: PopulationOptions,
    engine: EngineOptions,
    links: Links,
    output: FolderOutput,
) -> None:
    """Audit, export and fingerprint every model file found, and keep what is found in a lake.

    Files are told by their content. Each is looked at in a child process with limits of its own; what fails
    is a row with its reason. A later run looks only at what is new, or hit a limit. A page about all of them
    is survey.html in the lake.
    """
    from emergraph.analysis.report.html import page_html
    from emergraph.analysis.survey.summary import survey_page, survey_view
    from emergraph.analysis.survey.survey import survey as look_at_all
    from emergraph.atomic import write_atomically

    if output.out is None:
        raise UsageError("survey keeps its results in a folder: give --out LAKE, which is made when missing")
    lake, output = output.out, replace(output, out=None)
    with progress_bar(f"looking at {models}", output) as update:

        def moved(done: int, total: int, rate: float, left: float) -> None:
            if not done or (total and not rate):
                say(f"{total} model files, {done} of them done before", output)
            update(done, total, f"{rate:.2g} files/s, {_clock(left)} left" if rate else "")

        result = look_at_all(models, lake, options, engine, root=links.root, progress=moved)
    page = lake / PAGE
    write_atomically(page, page_html(survey_page(result, models.name)).encode())
    emit(survey_view(result, str(page)), output)


def _clock(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes // 60}:{minutes % 60:02d}:{int(seconds) % 60:02d}"
