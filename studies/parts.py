"""Parts of a study that are done once: what is there is read, and what it took is kept with it."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

CPU = "cpu_seconds"


def part(path: Path, make: Callable[[], pl.DataFrame], say: Callable[[str], None]) -> pl.DataFrame:
    """The table of a file; made and written first where it is not there, whole or not at all."""
    if not path.exists():
        started = time.process_time()
        frame = make()
        write(frame, path, seconds=time.process_time() - started)
        say(f"{path.stem}: {seconds_of([path]):.0f} CPU s")
    return pl.read_parquet(path)


def write(frame: pl.DataFrame, path: Path, *, seconds: float) -> None:
    """Write a table at once, with the processor time that it took."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    frame.write_parquet(unfinished, compression="zstd", metadata={CPU: json.dumps(seconds)})
    unfinished.replace(path)


def seconds_of(paths: Sequence[Path]) -> float:
    """Processor time of all that tables took; those that do not say count nothing."""
    return float(sum(json.loads(pl.read_parquet_metadata(path).get(CPU, "0")) for path in paths))
