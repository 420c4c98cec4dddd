"""Counts beyond int64 and beyond float64: logarithms to 1e-12, integers to the last digit."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergraph.analysis.emergence.closedforms import layered_form
from emergraph.analysis.emergence.exact import is_prime
from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.layerednets import dense_net
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.paths.scaled import Scaled, add
from emergraph.analysis.unitgraph import UnitBlock, UnitLayer, from_arrays
from emergraph.graphstore.records import EdgeKind, LayerKind


def log10_of(number):
    """Logarithm of a Python integer of any size."""
    bits = max(0, number.bit_length() - 64)
    return math.log10(number >> bits) + bits * math.log10(2)


@pytest.mark.parametrize("depth", [3, 30, 120, 400])
def test_dense_nets_of_any_depth(depth):
    sizes = [300] * depth
    on = [100 + 7 * k % 90 for k in range(depth)]
    active = np.concatenate([np.arange(n) < a for n, a in zip(sizes, on, strict=True)])
    result = path_count_emergence(dense_net(sizes), active, options=EmergenceOptions(exact=True))
    for interior in ("active", "any"):
        true = layered_form(sizes, on, interior=interior)
        count = result.count(interior)
        assert count.exact == true
        assert count.emergence.log10 == pytest.approx(log10_of(true), rel=1e-12)
        if true < 1e300:
            assert count.emergence.value == pytest.approx(float(true), rel=1e-12)
        else:
            assert count.emergence.value == math.inf


def masked_net(depth, width, *, density, multiplicity, seed):
    """A random masked net with skip edges, and its successor lists."""
    rng = np.random.default_rng(seed)
    layers, blocks, columns = [], [], {}
    successors = [[] for _ in range(depth * width)]
    for k in range(depth):
        layers.append(
            UnitLayer(
                id=k,
                name=f"l{k}",
                kind=LayerKind.DENSE if k else LayerKind.INPUT,
                first_unit=k * width,
                n_units=width,
            )
        )
        for back in (1, 4):
            if k < back:
                continue
            src, dst = np.nonzero(rng.random((width, width)) < (density if back == 1 else density / 8))
            if not len(src):
                continue
            times = rng.integers(1, 10, len(src)) if multiplicity else np.ones(len(src), dtype=np.int64)
            src, dst = src + (k - back) * width, dst + k * width
            blocks.append(
                UnitBlock(
                    id=len(blocks), kind=EdgeKind.WEIGHT, layer=k, n_edges=len(src), has_kernels=multiplicity
                )
            )
            columns[len(blocks) - 1] = {"src": src, "dst": dst, "n_params": times}
            for a, b, m in zip(src.tolist(), dst.tolist(), times.tolist(), strict=True):
                successors[a].append((b, m))
    return from_arrays(layers, blocks, columns), successors


def naive(successors, active, interior):
    """The recursion of the definition, in Python integers."""
    paths = [0] * len(successors)
    total = 0
    for unit in reversed(range(len(successors))):
        below = sum(m * paths[target] for target, m in successors[unit])
        if active[unit]:
            paths[unit] = 1 + below
        else:
            paths[unit] = below if interior == "any" else 0
            total += below
    return total


@pytest.mark.parametrize(
    ("depth", "width", "multiplicity"), [(6, 40, False), (40, 30, True), (260, 24, True)], ids=str
)
def test_masked_nets_of_any_depth(depth, width, multiplicity):
    graph, successors = masked_net(depth, width, density=0.7, multiplicity=multiplicity, seed=depth)
    active = np.random.default_rng(1).random(graph.n_units) < 0.6
    options = EmergenceOptions(exact=True, paths="weights" if multiplicity else "units")
    result = path_count_emergence(graph, active, options=options)
    for interior in ("active", "any"):
        true = naive(successors, active, interior)
        count = result.count(interior)
        assert count.exact == true
        assert count.emergence.log10 == pytest.approx(log10_of(true), rel=1e-12)
        if true < 1e300:
            assert count.emergence.value == pytest.approx(float(true), rel=1e-12)
        shares = result.layers[f"start_{interior}"]
        assert shares.sum() == pytest.approx(1.0, rel=1e-9)


def test_a_small_count_survives_beside_numbers_beyond_float64():
    # Unit 0 of every layer heads a huge net, all active; the lone inactive input sees only the last layer.
    depth, width = 300, 200
    graph = dense_net([width] * depth)
    first, last = graph.layers[0], graph.layers[-1]
    layers = [
        UnitLayer(id=-1, name="lone", kind=LayerKind.INPUT, first_unit=0, n_units=1),
        *(
            UnitLayer(id=x.id, name=x.name, kind=x.kind, first_unit=x.first_unit + 1, n_units=x.n_units)
            for x in graph.layers
        ),
    ]
    blocks = [
        UnitBlock(
            id=b.id, kind=b.kind, layer=b.layer, n_edges=b.n_edges, dense=True,
            src_units=b.src_units + 1, dst_units=b.dst_units + 1,
        )
        for b in graph.blocks
    ]  # fmt: skip
    blocks.append(UnitBlock(id=len(blocks), kind=EdgeKind.WEIGHT, layer=last.id, n_edges=2))
    columns = {
        len(blocks) - 1: {
            "src": np.array([0, 0]),
            "dst": np.array([last.first_unit + 1, last.first_unit + 2]),
        }
    }
    active = np.ones(graph.n_units + 1, dtype=bool)
    active[0] = False
    result = path_count_emergence(from_arrays(layers, blocks, columns), active)
    assert result.active.exact is None or result.active.exact == 2
    assert result.active.emergence.value == 2.0
    assert result.any.emergence.value == 2.0
    assert first.n_units == width


def test_a_small_count_in_the_layer_of_a_huge_one():
    # Two chains in the same layers: one multiplies by 2**40 per layer, the other by 1. Only the small one
    # starts inactive.
    depth = 60
    layers, blocks, columns = [], [], {}
    for k in range(depth):
        layers.append(UnitLayer(id=k, name=str(k), kind=LayerKind.DENSE, first_unit=2 * k, n_units=2))
        if k:
            blocks.append(UnitBlock(id=k, kind=EdgeKind.WEIGHT, layer=k, n_edges=2, has_kernels=True))
            columns[k] = {
                "src": np.array([2 * k - 2, 2 * k - 1]),
                "dst": np.array([2 * k, 2 * k + 1]),
                "n_params": np.array([2**30, 1]),
            }
    active = np.ones(2 * depth, dtype=bool)
    active[1] = False
    result = path_count_emergence(
        from_arrays(layers, blocks, columns), active, options=EmergenceOptions(paths="weights")
    )
    assert result.active.emergence.value == depth - 1
    active[0] = False
    both = path_count_emergence(
        from_arrays(layers, blocks, columns), active, options=EmergenceOptions(paths="weights", exact=True)
    )
    true = depth - 1 + sum(2 ** (30 * k) for k in range(1, depth))
    assert both.active.exact == true
    assert both.active.emergence.log10 == pytest.approx(log10_of(true), rel=1e-12)


@settings(max_examples=60)
@given(values=st.lists(st.tuples(st.integers(0, 10**150), st.integers(0, 3)), min_size=1, max_size=8))
def test_scaled_sums_equal_integer_sums(values):
    scaled = Scaled(np.array([float(v) for v, _ in values]), np.array([b for _, b in values], dtype=np.int32))
    true = sum(int(float(v)) * 2 ** (512 * b) for v, b in values)
    total = scaled.sum(axis=0)
    one_by_one = Scaled.zeros()
    for index in range(len(values)):
        one_by_one = add(one_by_one, scaled[index])
    for result in (total, one_by_one):
        if true == 0:
            assert result.log10() == -np.inf
        else:
            assert float(result.log10()) == pytest.approx(log10_of(true), rel=1e-12, abs=1e-12)


def test_primes_are_prime():
    sieve = [n for n in range(2, 3000) if all(n % d for d in range(2, math.isqrt(n) + 1))]
    assert [n for n in range(3000) if is_prime(n)] == sieve
    assert is_prime(2**31 - 1)
    assert not is_prime(3215031751)  # a strong pseudoprime to bases 2, 3, 5, 7
