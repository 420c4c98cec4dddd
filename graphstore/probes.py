"""How fast this machine is at what takes long with large graphs, measured in a fraction of a second."""

import functools
import hashlib
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from emergraph.graphstore.inplace import Matrix, sum_up
from emergraph.graphstore.records import (
    Block,
    EdgeKind,
    GraphFooter,
    GraphHeader,
    Layer,
    LayerKind,
    Role,
    UnitColumns,
)
from emergraph.graphstore.store import open_store

_SIDE = 1024
_BYTES = 1 << 24
_REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class PassRates:
    """Passes over what lies in a model file, per second of wall time."""

    sums: float
    """Weights that are summed up, as an export does with those that it leaves in the file."""
    bytes: float
    """Bytes whose checksum is computed."""


@functools.cache
def pass_rates() -> PassRates:
    """Measure passes over a matrix of a million random weights, once."""
    values = np.random.default_rng(0).standard_normal((_SIDE, _SIDE), dtype=np.float32)
    matrix, data = Matrix.over(values), bytes(_BYTES)
    return PassRates(
        sums=values.size / seconds_of(lambda: sum_up(matrix)),
        bytes=_BYTES / seconds_of(lambda: hashlib.sha256(data)),
    )


def write_rate(folder: Path) -> float:
    """Return how many edges per second a store takes, which is measured once on each disk.

    Args:
        folder: Where a store of a few megabytes is made, and removed again.
    """
    disk = folder.stat().st_dev
    if disk not in _WRITE_RATES:
        _WRITE_RATES[disk] = measured_write_rate(folder)
    return _WRITE_RATES[disk]


_WRITE_RATES: dict[int, float] = {}


def measured_write_rate(folder: Path) -> float:
    """Measure it; see `write_rate`."""
    n = 2 * _SIDE
    weights = np.random.default_rng(0).standard_normal((n, n), dtype=np.float32)
    layers = [
        Layer(id=k, name=str(k), op="", kind=LayerKind.DENSE, depth=k, first_unit=k * n, n_units=n)
        for k in range(2)
    ]
    header = GraphHeader(name="probe", source="", sha256="", format="")
    footer = GraphFooter(n_parameters=0, n_parameters_understood=0, n_operations=0, n_operations_understood=0)
    block = Block(id=0, name="", op="", kind=EdgeKind.WEIGHT, layer=1)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        start = perf_counter()
        path = Path(place) / "probe.duckdb"
        with (
            open_store(path, mode="create", in_place=True) as store,
            store.write_graph(header) as writer,
        ):
            writer.write_matrix(block, np.arange(n), np.arange(n, 2 * n), weights)
            writer.write_layers(layers)
            writer.write_units([UnitColumns(layer=k, role=Role.HIDDEN) for k in range(2)])
            writer.finish(footer)
        return weights.size / (perf_counter() - start)


def seconds_of(do: Callable[[], object]) -> float:
    """Return how long a call takes here and now: the median of a few."""
    found = []
    for _ in range(_REPEATS):
        start = perf_counter()
        do()
        found.append(perf_counter() - start)
    return max(statistics.median(found), 1e-9)
