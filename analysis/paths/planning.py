"""What a path count will take, from its size and a probe of this machine, before anything is counted."""

import math
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np

from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.paths.reversepass import closed
from emergraph.analysis.paths.states import plan
from emergraph.analysis.unitgraph import UnitBlock, UnitGraph
from emergraph.exporters.modeltensors import BlankTensors
from emergraph.exporters.onnxfile.dtypes import BY_NAME
from emergraph.graphstore.inplace import PIECE_CELLS, Floats, in_order, tile_times
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.probes import pass_rates, seconds_of
from emergraph.graphstore.reader import GraphReader
from emergraph.processes import held_memory

_PROBE_EDGES = 2_000_000
_BYTES_PER_EDGE = 60
"""Of the largest block whose edges are rows, while it is grouped."""
_PIECES_AT_ONCE = 16
_PROBE_CELLS, _PROBE_TILES = 1 << 23, 8


@dataclass(frozen=True, kw_only=True)
class CountPlan(ShownInNotebooks):
    """What a count will take."""

    edges: int
    """Edges that are followed."""
    skipped: int
    """Edges among them of full matrices, which are counted without being read."""
    rows: int
    """Edges among them that are rows of the store."""
    in_file: int
    """Weights of the model file that are looked at."""
    seconds: float
    memory: int
    """Bytes."""

    def to_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return asdict(self)


def plan_count(
    graph: UnitGraph, reader: GraphReader, options: EmergenceOptions, *, cases: int = 1
) -> CountPlan:
    """Say what a count will take; a block of rows is read as a probe.

    Args:
        graph: The graph.
        reader: What reads it from its store.
        options: The conventions of the count.
        cases: Activities that are counted at once, such as thresholds.
    """
    sweep = plan(graph, options)
    blocks = [block for block in sweep.blocks if block.n_edges]
    read = [block for block in blocks if not closed(block, multiplicity=sweep.multiplicity)]
    rows = [block for block in read if not block.in_place]
    left = [block for block in read if block.in_place]
    cells = sum(_cells(block) for block in left)
    columns = len(sweep.interiors) * cases
    # units, their activity, and sums over them
    seconds = _row_seconds(graph, rows) + 3 * seconds_of(reader.units)
    if left:
        seconds += _pass_seconds(reader, left, columns)
    largest = max((block.n_edges for block in rows), default=0)
    values = 4 * 8 * columns * graph.n_units
    pieces = _PIECES_AT_ONCE * 12 * PIECE_CELLS if left else 0
    return CountPlan(
        edges=sum(block.n_edges for block in blocks),
        skipped=sum(block.n_edges for block in blocks) - sum(block.n_edges for block in read),
        rows=sum(block.n_edges for block in rows),
        in_file=cells,
        seconds=round(seconds, 2 - math.ceil(math.log10(max(seconds, 1e-2)))),
        memory=held_memory(os.getpid()) + values + pieces + largest * _BYTES_PER_EDGE,
    )


def _pass_seconds(reader: GraphReader, blocks: list[UnitBlock], columns: int) -> float:
    """Time for weights in the model file, which is read for its checksums, and then for its zeros.

    Of the blocks whose weights are packed alike, a part of one is passed over as if its codes were zeros.
    """
    with model_given(BlankTensors()):
        probed = GraphReader(reader.connection, reader.path, reader.id)
    kinds: dict[tuple[str, ...], list[UnitBlock]] = defaultdict(list)
    n_bytes: dict[str, int] = {}
    for block in blocks:
        tensor, coding = probed.wanted(block.id)
        kinds[(tensor.dtype,) if coding is None else tuple(coding.words())].append(block)
        for leaf in [tensor] if coding is None else coding.tensors():
            n_bytes[leaf.sha256] = math.prod(leaf.shape) * BY_NAME[leaf.dtype].dtype.itemsize
    seconds = sum(n_bytes.values()) / pass_rates().bytes
    for alike in kinds.values():
        matrix = probed.matrix(max(alike, key=_cells).id)
        tiles = matrix.pieces(cells=_PROBE_CELLS // _PROBE_TILES)[:_PROBE_TILES]
        vectors = np.ones((matrix.shape[1], columns))

        def work() -> list[Floats]:
            return list(in_order(lambda tile: tile_times(matrix, tile, vectors[tile[1]]), tiles))  # noqa: B023 - called at once

        looked_at = sum((down.stop - down.start) * (right.stop - right.start) for down, right in tiles)
        seconds += seconds_of(work) * sum(map(_cells, alike)) / looked_at
    return seconds


def _cells(block: UnitBlock) -> int:
    rows, columns = block.src_units, block.dst_units
    return 0 if rows is None or columns is None else len(rows) * len(columns)


def _row_seconds(graph: UnitGraph, blocks: list[UnitBlock]) -> float:
    """Time for edges that are rows, from some of them."""
    probe: list[UnitBlock] = []
    for block in sorted(blocks, key=lambda block: block.n_edges):
        if sum(one.n_edges for one in probe) + block.n_edges <= _PROBE_EDGES:
            probe.append(block)
    n = sum(block.n_edges for block in probe)
    if not n:
        return 0.0
    start = perf_counter()
    for _ in graph.iter_edges(probe, columns=("src", "dst")):
        pass
    return (perf_counter() - start) * 2 * sum(block.n_edges for block in blocks) / n
