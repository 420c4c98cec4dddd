"""Speed of the store beside plain DuckDB: a synthetic transformer's weights in, and all its edges out.

Run `python benchmarks/bench_store.py [--layers 12]`. Every figure comes from this one run. The matrices are
made once, float32 and stored (out, in) as PyTorch does, so the writer sees transposed views of a mapped file;
each way of writing and reading runs in a child process, so that peak memory is its own.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from emergraph.graphstore.records import (
    Block,
    EdgeKind,
    GraphFooter,
    GraphHeader,
    Layer,
    LayerKind,
    Role,
    Tensor,
    UnitColumns,
)
from emergraph.graphstore.restore import restore_all
from emergraph.graphstore.store import open_store

WIDTH = 768
CHUNK = 1 << 23


def layer_sizes(n_layers: int) -> list[int]:
    """Sizes of a chain of layers that has the matrices of transformer blocks of width 768."""
    return [WIDTH] + [size for _ in range(n_layers) for size in (*[WIDTH] * 4, 4 * WIDTH, WIDTH)]


def make_weights(path: Path, sizes: list[int]) -> None:
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        for n_src, n_dst in itertools.pairwise(sizes):
            (0.02 * random.standard_normal((n_dst, n_src), dtype=np.float32)).tofile(file)


def matrices(path: Path, sizes: list[int]) -> Iterator[tuple[np.ndarray, int, int]]:
    """Yield (n_src, n_dst) views with the first source and the first target unit."""
    flat = np.memmap(path, dtype=np.float32, mode="r")
    position = first = 0
    for n_src, n_dst in itertools.pairwise(sizes):
        yield flat[position : position + n_src * n_dst].reshape(n_dst, n_src).T, first, first + n_src
        position += n_src * n_dst
        first += n_src


def write_store(folder: Path, sizes: list[int], *, n_outside: int = 0) -> None:
    """Through the project's writer; with `n_outside`, units are permuted, so that no range is contiguous."""
    random = np.random.default_rng(1)
    header = GraphHeader(name="net", source="net.onnx", sha256="0" * 64, format="onnx")
    with open_store(folder / "out.duckdb", mode="create") as store, store.write_graph(header) as writer:
        for i, (weights, src, dst) in enumerate(matrices(folder / "weights.bin", sizes)):
            block = Block(id=i, name=f"m{i}", op="Gemm", kind=EdgeKind.WEIGHT, layer=i + 1, tensor=f"w{i}")
            units = [np.arange(first, first + n) for first, n in zip((src, dst), weights.shape, strict=True)]
            if n_outside:
                units = [random.permutation(ids) for ids in units]
            writer.write_matrix(block, *units, weights)
            writer.write_tensor(
                Tensor(
                    name=f"w{i}",
                    dtype="float32",
                    shape=weights.T.shape,
                    n_params=weights.size,
                    n_zeros=0,
                    block=i,
                    block_transposed=True,
                )
            )
        starts = np.cumsum([0, *sizes])
        writer.write_layers(
            [
                Layer(
                    id=i,
                    name=f"layer{i}",
                    op="Gemm" if i else "Input",
                    kind=LayerKind.DENSE if i else LayerKind.INPUT,
                    depth=i,
                    first_unit=int(starts[i]),
                    n_units=size,
                )
                for i, size in enumerate(sizes)
            ]
        )
        writer.write_units([UnitColumns(layer=i, role=Role.HIDDEN) for i in range(len(sizes))])
        n = sum(a * b for a, b in itertools.pairwise(sizes))
        writer.finish(
            GraphFooter(n_parameters=n, n_parameters_understood=n, n_operations=0, n_operations_understood=0)
        )


def write_permuted(folder: Path, sizes: list[int]) -> None:
    write_store(folder, sizes, n_outside=1)


def _plain(folder: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(folder / "out.duckdb"))
    connection.execute("CREATE TABLE edges (block INTEGER, src INTEGER, dst INTEGER, weight FLOAT)")
    connection.execute("BEGIN")
    return connection


def write_plain_row_numbers(folder: Path, sizes: list[int]) -> None:
    """Plain DuckDB: weight and row number by Arrow, src and dst in SQL."""
    connection = _plain(folder)
    numbers = np.arange(CHUNK, dtype=np.int32)
    for i, (weights, src, dst) in enumerate(matrices(folder / "weights.bin", sizes)):
        flat, n = np.ascontiguousarray(weights).reshape(-1), weights.shape[1]
        for first in range(0, flat.size, CHUNK):
            piece = flat[first : first + CHUNK]
            connection.register("chunk", pa.table({"w": piece, "i": numbers[: piece.size]}))
            connection.execute(
                f"INSERT INTO edges SELECT {i}, {src} + (i + {first}) // {n}, {dst} + (i + {first}) % {n}, w "
                "FROM chunk WHERE w <> 0"
            )
    connection.execute("COMMIT")
    connection.close()


def write_plain_columns(folder: Path, sizes: list[int]) -> None:
    """Plain DuckDB: all four columns by Arrow."""
    connection = _plain(folder)
    for i, (weights, src, dst) in enumerate(matrices(folder / "weights.bin", sizes)):
        rows, columns = np.nonzero(weights)
        table = {
            "block": np.full(rows.size, i, dtype=np.int32),
            "src": (rows + src).astype(np.int32),
            "dst": (columns + dst).astype(np.int32),
            "w": weights[rows, columns],
        }
        connection.register("chunk", pa.table(table))
        connection.execute("INSERT INTO edges SELECT * FROM chunk")
    connection.execute("COMMIT")
    connection.close()


def read_store(folder: Path, columns: tuple[str, ...]) -> None:
    with open_store(folder / "out.duckdb") as store:
        total = sum(int(edges["src"][-1]) for _, edges in store.graph().iter_edges(columns=columns))
    if total <= 0:
        raise SystemExit("nothing was read")


def read_src_dst(folder: Path, _: list[int]) -> None:
    read_store(folder, ("src", "dst"))


def read_with_weight(folder: Path, _: list[int]) -> None:
    read_store(folder, ("src", "dst", "weight"))


def read_strength_view(folder: Path, _: list[int]) -> None:
    """SQL over the view `edges`: out-strength of every unit."""
    with open_store(folder / "out.duckdb") as store:
        store.connection.execute(
            "SELECT src, sum(abs(weight)) FROM edges WHERE graph = 0 GROUP BY src"
        ).fetchall()


def read_strength_one_layer(folder: Path, _: list[int]) -> None:
    """SQL over the view `edges`: strength of the units of one layer."""
    with open_store(folder / "out.duckdb") as store:
        store.connection.execute(
            "SELECT dst, sum(abs(weight)) FROM edges WHERE graph = 0 AND layer = 10 GROUP BY dst"
        ).fetchall()


def read_strength_plain(folder: Path, _: list[int]) -> None:
    """SQL over the base table, without the view."""
    with open_store(folder / "out.duckdb") as store:
        store.connection.execute("SELECT src, sum(abs(weight)) FROM connections GROUP BY src").fetchall()


def read_tensors(folder: Path, sizes: list[int]) -> None:
    """All tensors restored and compared with the originals."""
    originals = [weights.T for weights, _, _ in matrices(folder / "weights.bin", sizes)]
    with open_store(folder / "out.duckdb") as store:
        for name, values in restore_all(store.graph()):
            if not np.array_equal(values.view(np.uint32), originals[int(name[1:])].view(np.uint32)):
                raise SystemExit(f"{name} was not restored")


WRITERS: tuple[Callable[[Path, list[int]], None], ...] = (
    write_plain_columns,
    write_plain_row_numbers,
    write_permuted,
    write_store,
)
READERS: tuple[Callable[[Path, list[int]], None], ...] = (
    read_src_dst,
    read_with_weight,
    read_strength_view,
    read_strength_one_layer,
    read_strength_plain,
    read_tensors,
)


def measure(task: Callable[[Path, list[int]], None], folder: Path, n_layers: int) -> dict[str, float]:
    """Run a task in a child process; return seconds, seconds of CPU and peak memory in MB."""
    command = [
        sys.executable,
        __file__,
        "--layers",
        str(n_layers),
        "--task",
        task.__name__,
        "--folder",
        str(folder),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output)


def run_task(name: str, folder: Path, sizes: list[int]) -> None:
    start, start_cpu = time.perf_counter(), time.process_time()
    globals()[name](folder, sizes)
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": peak / 1e3}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--task")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    sizes = layer_sizes(arguments.layers)
    if arguments.task:
        run_task(arguments.task, arguments.folder, sizes)
        return
    n_edges = sum(a * b for a, b in itertools.pairwise(sizes))
    print(f"{n_edges / 1e6:.1f} M edges, duckdb {duckdb.__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_weights(folder / "weights.bin", sizes)
        for task in (*WRITERS, *READERS):
            store = folder / "out.duckdb"
            if task in WRITERS:
                store.unlink(missing_ok=True)
            result = measure(task, folder, arguments.layers)
            rate = n_edges / result["seconds"] / 1e6
            size = f"{store.stat().st_size / n_edges:5.2f} B/edge" if task in WRITERS else ""
            print(
                f"{task.__name__:25s} {result['seconds']:7.2f} s {result['cpu']:7.2f} s cpu "
                f"{rate:8.1f} M edges/s {result['peak_mb']:7.0f} MB {size}"
            )


if __name__ == "__main__":
    main()
