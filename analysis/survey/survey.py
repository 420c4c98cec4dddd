"""A survey: every model of a folder looked at once, spread over workers, its findings in a lake.

A worker (a thread of this process, or one on a cluster) hands each file to a child process with limits and no
network, and writes what came of it as one folder of the lake named after the file's checksum. So nothing is
looked at twice, and whatever is killed costs the files that were being looked at.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from emergraph.analysis.audit.analysis import FINDINGS
from emergraph.analysis.engines.cluster import connected
from emergraph.analysis.engines.options import Backend, EngineOptions
from emergraph.analysis.engines.spread import Parallelism, WorkerDiedError, spread
from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.registry import analysis_named
from emergraph.analysis.survey.onefile import Look, failure, look_at
from emergraph.analysis.survey.options import PopulationOptions
from emergraph.analysis.survey.search import ModelFile, Population, find_models
from emergraph.atomic import together
from emergraph.errors import EmergraphError, ExitCode, LimitError, UsageError
from emergraph.exporters.runtime.offline import Task, call_offline
from emergraph.graphstore.lake.layout import FILE, SUFFIX, SURVEY, partition
from emergraph.graphstore.lake.writing import write_table
from emergraph.graphstore.text import printable
from emergraph.optionforms import parse_bytes, parse_seconds
from emergraph.version import __version__

_ROUNDS = 4
"""Times that work is given out again after a worker has died."""
_TRIES = 2
"""Times that a file is looked at whose child was killed by somebody else."""
_KILLED = "(SIGKILL)"

T = TypeVar("T")
Progress = Callable[[int, int, float, float], None]
"""Called with files done, files in all, files per second, and seconds left."""
MODELS: dict[str, tuple[Any, str]] = {
    "name": (pl.String, "Name of the file or folder, of the first of several copies."),
    "format": (pl.String, "What it is, by its content: onnx, safetensors, folder, ..."),
    "bytes": (pl.Int64, "Of all files that belong to it."),
    "status": (
        pl.String,
        "done; refused, as unsafe; limit, of time or memory; unsupported, a format that is not read; failed.",
    ),
    "reason": (pl.String, "Why it is not done; NULL where it is."),
    "code": (pl.Int32, "Exit code that a command would have had for that reason; 0 where it is done."),
    "family": (pl.String, "What kind of network it seems to be; NULL where it is not known."),
    "task": (pl.String, "What it seems to be for; NULL where it is not known."),
    "producer": (pl.String, "Program that wrote it, as it says."),
    "licence": (pl.String, "As its metadata says."),
    "graph": (pl.String, "Its graph in the lake; NULL where it has none."),
    "n_layers": (pl.Int64, "As in graphs."),
    "n_units": (pl.Int64, "As in graphs."),
    "n_edges": (pl.Int64, "As in graphs."),
    "n_parameters": (pl.Int64, "As in graphs."),
    "n_parameters_understood": (pl.Int64, "As in graphs."),
    "n_operations": (pl.Int64, "As in graphs."),
    "n_operations_understood": (pl.Int64, "As in graphs."),
    "n_zeros": (pl.Int64, "Parameters that are exactly zero."),
    "n_errors": (pl.Int64, "Findings of the audit of severity error."),
    "n_warnings": (pl.Int64, "Of severity warning."),
    "n_infos": (pl.Int64, "Of severity info."),
    "weights": (pl.String, "Checksum of all weights, whatever their names and order."),
    "wiring": (pl.String, "Checksum of layers and blocks without weights and names."),
    "sketch": (pl.List(pl.Float32), "Numbers by which relatives are found; NULL above 50 M parameters."),
    "sketch_sizes": (pl.List(pl.Int32), "Targets, sources and taps of each matrix in it."),
    "notes": (pl.List(pl.String), "What could not be had."),
    "seconds": (pl.Float64, "Wall time that it took."),
    "cpu_seconds": (pl.Float64, "Processor time that it took, of all processes."),
    "settings": (pl.String, "What was asked for, as JSON."),
    "tool_version": (pl.String, "Version of emergraph."),
}
"""Columns of the table `models`: one row per file, its checksum in the partition."""
PATHS: dict[str, tuple[Any, str]] = {
    "path": (pl.String, "Where it was found."),
    "file": (pl.String, "Its checksum: models.file."),
    "format": (pl.String, "As in models."),
    "bytes": (pl.Int64, "As in models."),
    "changed": (pl.Int64, "Time of the last change, in nanoseconds since 1970."),
}
"""Columns of the table `paths`: one row per model that a survey found, copies included."""
TIMES = ("seconds", "cpu_seconds", "tool_version")
"""Columns that differ between two surveys of the same files."""


@dataclass(frozen=True, kw_only=True)
class SurveyResult(ShownInNotebooks):
    """What a survey found."""

    lake: Path
    models: pl.DataFrame
    """The table `models` of all files that were found, with `file`."""
    findings: pl.DataFrame
    paths: pl.DataFrame
    others: dict[str, int]
    """Files that are no models, by what they are."""
    looked_at: int
    """Files that were looked at in this run."""
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            "files": self.paths.height,
            "models": self.models.sort("name", "file").to_dicts(),
            "others": self.others,
            "looked_at": self.looked_at,
            "seconds": self.seconds,
        }


def survey(
    place: Path,
    lake: Path,
    options: PopulationOptions | None = None,
    engine: EngineOptions | None = None,
    *,
    root: Path | None = None,
    progress: Progress | None = None,
) -> SurveyResult:
    """Look at every model of a folder, or of a list of paths, and keep what is found in a lake.

    Args:
        place: A folder, or a text file with one path per line.
        lake: Where the results go; made when missing. What is there already is not looked at again.
        options: What is found out, and what each file may take.
        engine: Where files are looked at.
        root: Folder inside which files may be links.
        progress: Called when a file is done.

    Raises:
        InvalidInputError: There is no such folder or list.
        UsageError: An analysis or a cluster is not known, or the lake cannot be made.
        MissingExtraError: The engine is not installed.
    """
    options, engine = options or PopulationOptions(), engine or EngineOptions()
    begin = time.monotonic()
    for name in options.analyses:
        if analysis_named(name).run is None:
            raise UsageError(f"--analyses {name}: not about a graph of a store; take another one")
    found = find_models(place, root=root)
    if not lake.is_dir() and not lake.exists() and lake.absolute().parent.is_dir():
        lake.mkdir()
    if not lake.is_dir():
        raise UsageError(f"{printable(str(lake))}: no folder can be made there; name another one")
    run = _Run(found, place, lake, options, root)
    with connected(engine, processes=True):
        run.carry_out(_plan(engine), progress)
    paths = read_paths(lake, run.name)
    models, findings = read_tables(lake, paths["file"].to_list())
    return SurveyResult(
        lake=lake,
        models=models,
        findings=findings,
        paths=paths,
        others=dict(found.others.most_common()),
        looked_at=run.looked_at,
        seconds=time.monotonic() - begin,
    )


def _plan(engine: EngineOptions) -> Parallelism:
    """Threads on this machine: all that they do is to wait for children."""
    backend = Backend.THREADING if engine.backend is Backend.LOCAL else engine.backend
    return Parallelism(backend=backend, n_jobs=engine.n_workers)


class _Run:
    """One run of a survey."""

    def __init__(
        self, found: Population, place: Path, lake: Path, options: PopulationOptions, root: Path | None
    ) -> None:
        self._found, self._lake, self._options, self._root = found, lake, options, root
        self.name = hashlib.sha256(os.fsencode(place.resolve())).hexdigest()[:32]
        self._by_path = {model.path: model for model in found.models}
        self._keys = self._known_keys()
        self.looked_at = 0

    def carry_out(self, plan: Parallelism, progress: Progress | None) -> None:
        """Read all files once, and look at one of each that is left to look at."""
        for path, key, error in self._again_and_again(
            checksum, lambda: [(model,) for model in self._found.models if model.path not in self._keys], plan
        ):
            self._keys[path] = key
            if error is not None:
                about = _about(self._by_path[path], self._look(self._by_path[path]))
                write_found(self._lake, key, about | failure(error), [], again=True)
        self.save()
        left = self._left()
        begin, total = time.monotonic(), len(self._found.models)
        if progress is not None:
            progress(total - len(left), total, 0.0, 0.0)
        for done in self._again_and_again(
            survey_one, lambda: [(model, key, self._look(model)) for key, model in left.items()], plan
        ):
            del left[done]
            self.looked_at += 1
            if progress is not None:
                rate = self.looked_at / max(time.monotonic() - begin, 1e-9)
                progress(total - len(left), total, rate, len(left) / rate)

    def _again_and_again(
        self, function: Callable[..., T], calls: Callable[[], Sequence[tuple[Any, ...]]], plan: Parallelism
    ) -> Iterator[T]:
        """Spread calls, and after the death of a worker those that are left.

        Raises:
            LimitError: Workers die again and again.
        """
        for _ in range(_ROUNDS):
            try:
                yield from spread(function, calls(), plan)
            except WorkerDiedError:
                continue
            return
        raise LimitError(
            f"workers died {_ROUNDS} times in turn: out of memory? Take fewer jobs, and run again: "
            "what is done stays"
        )

    def _left(self) -> dict[str, ModelFile]:
        """What is to be looked at, by checksum: of copies, the first by path."""
        left: dict[str, ModelFile] = {}
        for model in self._found.models:
            left.setdefault(self._keys[model.path], model)
        resume = self._options.resume
        return {
            key: model
            for key, model in left.items()
            if not is_done(self._lake, key, _settings(self._look(model)), resume=resume)
        }

    def save(self) -> None:
        """Write which files were found where."""
        rows = [
            {
                "path": model.path,
                "file": self._keys[model.path],
                "format": model.format,
                "bytes": model.size,
                "changed": model.changed,
            }
            for model in self._found.models
            if model.path in self._keys
        ]
        write_paths(self._lake, self.name, rows)

    def _known_keys(self) -> dict[str, str]:
        """Checksums of files that have not changed since an earlier run."""
        before = {row["path"]: row for row in read_paths(self._lake, self.name).iter_rows(named=True)}
        known = {}
        for model in self._found.models:
            row = before.get(model.path)
            if row is not None and (row["bytes"], row["changed"]) == (model.size, model.changed):
                known[model.path] = str(row["file"])
        return known

    def _look(self, model: ModelFile) -> Look:
        return Look(
            path=str(Path(model.path).absolute()),
            lake=str(self._lake.absolute()),
            seconds=parse_seconds(self._options.file_time),
            memory=parse_bytes(self._options.file_memory),
            analyses=self._options.analyses,
            seed=self._options.seed,
            root=None if self._root is None else str(self._root.absolute()),
        )


def is_done(lake: Path, key: str, settings: str, *, resume: bool) -> bool:
    """Whether a file need not be looked at: it was, with these settings, and no limit was in the way."""
    row = read_row(lake, key)
    if row is None or row["settings"] != settings or row["tool_version"] != __version__:
        return False
    return resume or row["status"] != "limit"


def checksum(model: ModelFile) -> tuple[str, str, EmergraphError | None]:
    """Return the path of a model and its checksum; of one that cannot be read, another one, and why."""
    try:
        return model.path, model.key(), None
    except EmergraphError as error:
        name = f"unread\0{model.path}".encode("utf-8", "surrogateescape")
        return model.path, hashlib.sha256(name).hexdigest(), error


def survey_one(model: ModelFile, key: str, look: Look) -> str:
    """Look at one model and write what is found; runs in a worker. Returns its checksum."""
    lake = Path(look.lake)
    again = read_row(lake, key) is not None
    row, findings = _found(model, look)
    write_found(lake, key, _about(model, look) | row, findings, again=again)
    return key


def _about(model: ModelFile, look: Look) -> dict[str, Any]:
    """What is known about a model before anyone looks into it."""
    about: dict[str, Any] = {"name": Path(model.path).name, "format": model.format, "bytes": model.size}
    settings = {"settings": _settings(look), "tool_version": __version__}
    return about | settings | {"code": int(ExitCode.OK)}


def _settings(look: Look) -> str:
    return json.dumps(look.settings)


def _found(model: ModelFile, look: Look) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a child finds out about a model, or why it does not."""
    if model.step:
        reason = f"{model.title}: {model.step}"
        return {"status": "unsupported", "reason": reason, "code": int(ExitCode.INVALID_INPUT)}, []
    begin = time.monotonic()
    error: EmergraphError = LimitError()
    for _ in range(_TRIES):
        try:
            answer = call_offline(
                look_at,
                look,
                limits=look.limits,
                task=Task(doing="looking at the file", advice="it is left out"),
            )
        except EmergraphError as raised:
            error = raised
            if _KILLED not in str(raised):
                break
        else:
            return answer["row"], answer["findings"]
    return failure(error) | {"seconds": time.monotonic() - begin}, []


def place_of(lake: Path, key: str) -> Path:
    """Return the folder of what was found out about a file."""
    return lake / partition(FILE, key)


def read_row(lake: Path, key: str) -> dict[str, Any] | None:
    """Return the row of a file; None where there is none yet."""
    path = place_of(lake, key) / "models" / f"part{SUFFIX}"
    if not path.is_file():
        return None
    return pl.read_parquet(path, hive_partitioning=False).row(0, named=True)


def write_found(
    lake: Path, key: str, row: Mapping[str, Any], findings: Sequence[Mapping[str, Any]], *, again: bool
) -> None:
    """Write what was found out about a file, all of it or nothing."""
    target = place_of(lake, key)
    model = pl.DataFrame([{name: row.get(name) for name in MODELS}], schema=_schema(MODELS))
    schema = {name: kind for name, kind in FINDINGS.schema.items() if name != "place"}
    listed = pl.DataFrame(list(findings), schema=schema).with_row_index("place", 1)
    try:
        with together() as outputs:
            folder = outputs.stage(target, replace=False)
            for name, frame in (("models", model), ("findings", listed.cast({"place": pl.Int32}))):
                (folder / name).mkdir(parents=True)
                write_table(folder / name / f"part{SUFFIX}", frame.to_arrow())
            if again:
                shutil.rmtree(target, ignore_errors=True)
    except UsageError:
        if not target.is_dir():  # else a copy of the file was quicker
            raise


def write_paths(lake: Path, survey: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the list of what a survey has found."""
    target = lake / partition(SURVEY, survey) / "paths" / f"part{SUFFIX}"
    target.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(list(rows), schema=_schema(PATHS))
    with together() as outputs:
        write_table(outputs.stage(target), frame.sort("path").to_arrow())


def read_paths(lake: Path, survey: str) -> pl.DataFrame:
    """Return the list of an earlier run of a survey; empty where there is none."""
    target = lake / partition(SURVEY, survey) / "paths" / f"part{SUFFIX}"
    if not target.is_file():
        return pl.DataFrame(schema=_schema(PATHS))
    return pl.read_parquet(target, hive_partitioning=False)


def read_tables(lake: Path, keys: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the tables `models` and `findings` of these files, with the column `file`."""
    found: list[list[pl.DataFrame]] = [[], []]
    for key in sorted(set(keys)):
        for frames, name in zip(found, ("models", "findings"), strict=True):
            frame = pl.read_parquet(place_of(lake, key) / name / f"part{SUFFIX}", hive_partitioning=False)
            frames.append(frame.with_columns(file=pl.lit(key)))
    schemas = (_schema(MODELS), {"place": pl.Int32, **FINDINGS.schema})
    return tuple(
        pl.concat(frames) if frames else pl.DataFrame(schema={**schema, "file": pl.String})
        for frames, schema in zip(found, schemas, strict=True)
    )  # type: ignore[return-value]


def _schema(columns: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    return {name: kind for name, (kind, _) in columns.items()}
