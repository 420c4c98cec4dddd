"""Naive twins: path counts by enumeration, on graphs small enough to list every path."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from emergraph.analysis.unitgraph import UnitBlock, UnitGraph, UnitLayer, from_arrays
from emergraph.graphstore.records import EdgeKind, LayerKind


@dataclass
class Small:
    """A graph as plain Python: units by layer, edges as (src, dst, multiplicity, kind)."""

    sizes: list[int]
    edges: list[tuple[int, int, int, EdgeKind]]
    structural: set[int] = field(default_factory=set)

    @property
    def n(self) -> int:
        return sum(self.sizes)

    def layer(self, unit: int) -> int:
        return int(np.searchsorted(np.cumsum(self.sizes), unit, side="right"))

    def graph(self, *, shuffle: int | None = None) -> UnitGraph:
        firsts = np.cumsum([0, *self.sizes])
        layers = [
            UnitLayer(
                id=3 * i,  # ids need not be consecutive
                name=f"l{i}",
                kind=LayerKind.DENSE if i else LayerKind.INPUT,
                first_unit=int(firsts[i]),
                n_units=size,
            )
            for i, size in enumerate(self.sizes)
        ]
        groups: dict[tuple[int, EdgeKind, int], list[tuple[int, int, int]]] = {}
        for src, dst, times, kind in self.edges:
            slot = 0
            while any((src, dst) == e[:2] for e in groups.get((self.layer(dst), kind, slot), [])):
                slot += 1
            groups.setdefault((self.layer(dst), kind, slot), []).append((src, dst, times))
        blocks, columns = [], {}
        for index, ((layer, kind, _), members) in enumerate(sorted(groups.items())):
            table = np.array(sorted(members), dtype=np.int64)
            if shuffle is not None:
                np.random.default_rng(shuffle).shuffle(table)
            blocks.append(
                UnitBlock(
                    id=index,
                    kind=kind,
                    layer=3 * layer,
                    n_edges=len(table),
                    has_kernels=True,
                    name=f"b{index}",
                )
            )
            columns[index] = {
                "src": table[:, 0],
                "dst": table[:, 1],
                "n_params": table[:, 2].astype(np.int32),
            }
        neuron = np.array([u not in self.structural for u in range(self.n)])
        return from_arrays(layers, blocks, columns, neuron=neuron)


@pytest.fixture(scope="session")
def small():
    return Small


@pytest.fixture(scope="session")
def brute_force(brute_force_paths):
    return brute_force_paths
