"""What edges take in a lake, and how fast they get there.

    python benchmarks/bench_lake.py

Two layers of 2048 x 2048 units: dense random weights, 70 % exact zeros, and weights of 8 bits.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from emergraph.graphstore.lake.writing import write_lake
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
from emergraph.graphstore.store import StoreFile, open_store

SIDE = 2048


def main() -> None:
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((2, SIDE, SIDE)).astype(np.float32)
    kinds = {
        "dense": dense,
        "70 % zeros": np.where(rng.random(dense.shape) < 0.7, 0, dense).astype(np.float32),
        "8 bits": (np.round(dense * 20).clip(-127, 127) / 20).astype(np.float32),
    }
    for name, weights in kinds.items():
        with (
            tempfile.TemporaryDirectory() as folder,
            open_store(f"{folder}/net.duckdb", mode="create") as store,
        ):
            write_net(store, weights)
            lake = Path(folder, "lake")
            times = []
            for _ in range(2):
                begin = time.process_time()
                (row,) = write_lake(store, lake)
                times.append(row["edges"] / (time.process_time() - begin) / 1e6)
            size = sum(path.stat().st_size for path in lake.glob("graph=*/connections/*"))
            print(
                f"{name:10}  {row['edges']:10,} edges  {size / row['edges']:.2f} bytes per edge  "
                f"{times[0]:5.1f} M edges per CPU second, {times[1]:5.1f} where they are there already"
            )


def write_net(store: StoreFile, weights: np.ndarray) -> None:
    n_layers = len(weights) + 1
    with store.write_graph(GraphHeader(name="net", source="net", sha256="0" * 64, format="onnx")) as writer:
        for k, matrix in enumerate(weights):
            block = Block(id=k, name=f"b{k}", op="Gemm", kind=EdgeKind.WEIGHT, layer=k + 1, tensor=f"w{k}")
            units = np.arange(SIDE)
            writer.write_matrix(block, units + k * SIDE, units + (k + 1) * SIDE, matrix)
        kinds = [LayerKind.INPUT, *[LayerKind.DENSE] * (n_layers - 1)]
        writer.write_layers(
            [
                Layer(id=k, name=f"l{k}", op="Gemm", kind=kind, depth=k, first_unit=k * SIDE, n_units=SIDE)
                for k, kind in enumerate(kinds)
            ]
        )
        roles = [Role.INPUT, *[Role.HIDDEN] * (n_layers - 2), Role.OUTPUT]
        writer.write_units([UnitColumns(layer=k, role=role) for k, role in enumerate(roles)])
        n = int(weights.size)
        writer.finish(
            GraphFooter(n_parameters=n, n_parameters_understood=n, n_operations=2, n_operations_understood=2)
        )


if __name__ == "__main__":
    main()
