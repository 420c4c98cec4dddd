"""The tables of a survey, and the files of a lake that hold them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from emergraph.analysis.audit.analysis import FINDINGS
from emergraph.atomic import together
from emergraph.errors import UsageError
from emergraph.graphstore.lake.layout import FILE, SUFFIX, SURVEY, partition
from emergraph.graphstore.lake.writing import write_table

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
