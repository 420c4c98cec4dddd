"""About model files, many or one, and no graph: what to know, what is related, what a folder holds."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from emergraph.analysis.engines.options import EngineOptions
from emergraph.analysis.lineage.options import LineageOptions
from emergraph.analysis.survey.options import PopulationOptions
from emergraph.api.keywords import with_options

if TYPE_CHECKING:
    from emergraph.analysis.lineage.lineage import Lineage
    from emergraph.analysis.survey.survey import SurveyResult
    from emergraph.exporters.onnxfile.findings import Finding


def check(model: str | Path, *, plugin: str | None = None, root: str | Path | None = None) -> "list[Finding]":
    """Return what a user of a model file should know, the worst first; nothing in it is run.

    Args:
        model: A model file, a weight file, or a folder, of which every file is looked at.
        plugin: A format plug-in that reads the file, where nothing built in does.
        root: Folder inside which files of the model may be symbolic links.

    Raises:
        InvalidInputError: There is no such file.

    Example:
        >>> [found.message for found in check("model.onnx")]  # doctest: +SKIP
    """
    from emergraph.exporters.checking import check_any

    return check_any(model, root=None if root is None else Path(root), plugin=plugin)


@with_options(LineageOptions)
def lineage(
    models: Sequence[str | Path],
    *,
    options: tuple[LineageOptions],
    store: str | Path | None = None,
    any_name: bool = False,
    root: str | Path | None = None,
) -> "Lineage":
    """Find which models are the same, derived from one another, or independent; see `docs/lineage.md`.

    Args:
        models: Model files, stores and lakes with all of their graphs, or "FILE.duckdb:graph".
        store: Keep the relations there.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        root: Folder inside which files of models may be symbolic links.

    Raises:
        UsageError: There are fewer than two.
        InvalidInputError: There is no such file, or too few can be read.
    """
    from emergraph.analysis.lineage.analysis import save_lineage
    from emergraph.analysis.lineage.lineage import relate
    from emergraph.api.sources import graph_sources

    begin, texts = perf_counter(), list(map(str, models))
    with ExitStack() as stack:
        sources, _ = graph_sources(texts, None if root is None else Path(root), stack)
        found = relate(sources, options[0])
    if store is not None:
        save_lineage(
            Path(store),
            found,
            options[0],
            models=[Path(text).name for text in texts],
            duration=perf_counter() - begin,
            any_name=any_name,
        )
    return found


@with_options(PopulationOptions, EngineOptions)
def survey(
    models: str | Path,
    out: str | Path,
    *,
    options: tuple[PopulationOptions, EngineOptions],
    root: str | Path | None = None,
    progress: Callable[[int, int, float, float], None] | None = None,
) -> "SurveyResult":
    """Audit, export and fingerprint every model file found, and keep what is found in a lake.

    Args:
        models: A folder, or a text file with one path per line.
        out: The lake, made when missing; what is there already is not looked at again.
        root: Folder inside which files may be symbolic links.
        progress: Called with files done, files in all, files per second, and seconds left.

    Raises:
        InvalidInputError: There is no such folder or list.
        UsageError: An analysis or a cluster is not known, or the lake cannot be made.
        MissingExtraError: The engine is not installed.
    """
    from emergraph.analysis.survey.survey import survey as look_at_all

    place = None if root is None else Path(root)
    return look_at_all(Path(models), Path(out), *options, root=place, progress=progress)
