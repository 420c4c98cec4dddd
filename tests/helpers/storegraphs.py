"""Small graphs for tests of the store."""

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
from emergraph.graphstore.writer import GraphWriter


def header(name: str = "net", **changes) -> GraphHeader:
    return GraphHeader(
        **{"name": name, "source": f"{name}.onnx", "sha256": "a" * 64, "format": "onnx", **changes}
    )


def footer(**changes) -> GraphFooter:
    counts = {
        "n_parameters": 0,
        "n_parameters_understood": 0,
        "n_operations": 0,
        "n_operations_understood": 0,
    }
    return GraphFooter(**{**counts, **changes})


def block(number: int = 0, *, layer: int = 1, kind: EdgeKind = EdgeKind.WEIGHT, **changes) -> Block:
    return Block(
        **{"id": number, "name": f"op{number}", "op": "Gemm", "kind": kind, "layer": layer, **changes}
    )


def chain_layers(sizes: list[int]) -> list[Layer]:
    """Layers of the given sizes, the first one inputs."""
    starts = np.cumsum([0, *sizes]).tolist()
    return [
        Layer(
            id=i,
            name=f"layer{i}",
            op="Gemm" if i else "Input",
            kind=LayerKind.DENSE if i else LayerKind.INPUT,
            depth=i,
            first_unit=starts[i],
            n_units=size,
        )
        for i, size in enumerate(sizes)
    ]


def finish(writer: GraphWriter, sizes: list[int], **changes) -> int:
    """Write layers and units of a chain and finish the graph."""
    writer.write_layers(chain_layers(sizes))
    writer.write_units(
        [
            UnitColumns(
                layer=i, role=Role.INPUT if i == 0 else Role.OUTPUT if i == len(sizes) - 1 else Role.HIDDEN
            )
            for i in range(len(sizes))
        ]
    )
    return writer.finish(footer(**changes))


def unit_ranges(sizes: list[int]) -> list[NDArray[np.int64]]:
    ends = np.cumsum(sizes)
    return [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def write_chain(store: StoreFile, weights: list[NDArray[np.floating]], name: str = "net", **changes) -> int:
    """Write a chain of dense layers with the given matrices (n_src, n_dst)."""
    sizes = [weights[0].shape[0], *(matrix.shape[1] for matrix in weights)]
    units = unit_ranges(sizes)
    with store.write_graph(header(name, **changes)) as writer:
        for i, matrix in enumerate(weights):
            writer.write_matrix(block(i, layer=i + 1, tensor=f"w{i}"), units[i], units[i + 1], matrix)
        return finish(writer, sizes)


def random_chain(sizes: list[int], seed: int = 0) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return [
        random.standard_normal((n_src, n_dst)).astype(np.float32)
        for n_src, n_dst in itertools.pairwise(sizes)
    ]


def make_store(path: Path, *, seed: int = 0, name: str = "net") -> Path:
    """Make a store with one small chain."""
    with open_store(path, mode="create") as store:
        write_chain(store, random_chain([3, 4, 2], seed), name)
    return path


def single_block_edges(path: Path, columns: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """Edges of the first block of the newest graph, copied out of the store."""
    with open_store(path) as store:
        reader = store.graph()
        edges = reader.block_edges(reader.blocks_info()[0], columns=columns)
        return {name: column.copy() for name, column in edges.items()}
