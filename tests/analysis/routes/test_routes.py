"""Paths against enumeration and networkx on random nets; what no path reaches against perturbed inputs."""

import itertools

import networkx as nx
import numpy as np
import onnx
import onnxruntime as ort
import polars as pl
import pytest
from nets import Net

import emergraph
from emergraph.analysis.routes import routes
from emergraph.analysis.routes.options import PathOptions
from emergraph.analysis.routes.views import paths_view
from emergraph.errors import LimitError, UsageError


def random_net(seed, sizes=(4, 5, 4, 3), density=0.4):
    """Layers of sparse weights, and the same as a networkx graph of (layer, position)."""
    rng = np.random.default_rng(seed)
    net, graph = Net(), nx.DiGraph()
    h = net.input("n", sizes[0])
    for layer, (a, b) in enumerate(itertools.pairwise(sizes)):
        w = (rng.standard_normal((a, b)) * (rng.random((a, b)) < density)).astype(np.float32)
        h = net.op("Tanh", net.op("MatMul", h, net.value(w), name=f"layer{layer + 1}"))
        graph.add_nodes_from((layer + k, p) for k, n in ((0, a), (1, b)) for p in range(n))
        graph.add_weighted_edges_from(
            ((layer, i), (layer + 1, j), abs(float(w[i, j]))) for i, j in zip(*np.nonzero(w), strict=True)
        )
    net.output(h)
    return net, graph


def stored(net, folder):
    model = folder / "net.onnx"
    onnx.save(net.model(), model)
    return emergraph.export(model, folder / "net.duckdb"), model


@pytest.mark.parametrize("seed", range(6))
def test_paths_are_those_of_an_enumeration(seed, tmp_path):
    sizes = (4, 5, 4, 3)
    net, graph = random_net(seed, sizes)
    handle, _ = stored(net, tmp_path)
    result = handle.analyse("paths", PathOptions(k=4))
    starts, ends = [(0, p) for p in range(sizes[0])], [(3, p) for p in range(sizes[3])]
    offset = np.cumsum([0, *sizes])
    every = {(s, e): list(nx.all_simple_paths(graph, s, e)) for s in starts for e in ends}
    expected = {(s[1], offset[3] + e[1]): len(found) for (s, e), found in every.items() if found}
    assert {(s, e): n for s, e, n in result.pairs.iter_rows()} == expected
    assert result.n_pairs == len(expected)
    paths = [path for found in every.values() for path in found]
    strengths = sorted(
        (float(np.prod([graph.edges[a, b]["weight"] for a, b in itertools.pairwise(p)])) for p in paths),
        reverse=True,
    )
    found = result.paths.filter(path="strongest")
    own = [group["strength"][0] for _, group in found.group_by("rank", maintain_order=True)]
    np.testing.assert_allclose(own, strengths[:4], rtol=1e-5)
    for _, group in found.group_by("rank", maintain_order=True):
        assert len(group) == 4
    split = nx.DiGraph()
    for node in graph:
        split.add_edge((node, 0), (node, 1), capacity=1 if 0 < node[0] < 3 else 99)
    split.add_edges_from((((a, 1), (b, 0)) for a, b in graph.edges), capacity=99)
    split.add_edges_from((("s", (s, 0)) for s in starts), capacity=99)
    split.add_edges_from((((e, 1), "t") for e in ends), capacity=99)
    assert len(result.cut) == nx.maximum_flow_value(split, "s", "t")
    place = {int(offset[layer]) + p: (layer, p) for layer, n in enumerate(sizes) for p in range(n)}
    graph.remove_nodes_from([place[unit] for unit in result.cut])
    assert not any(nx.has_path(graph, s, e) for s in starts for e in ends if s in graph and e in graph)


def test_a_skip_is_the_shortest_path(tmp_path):
    net = Net()
    x = net.input("n", 2)
    one = net.op("Relu", net.op("MatMul", x, net.value(np.full((2, 2), 2, np.float32)), name="one"))
    two = net.op("MatMul", one, net.value(np.full((2, 2), 2, np.float32)), name="two")
    net.output(
        net.op(
            "MatMul", net.op("Concat", two, x, axis=1), net.value(np.ones((4, 1), np.float32)), name="head"
        )
    )
    handle, _ = stored(net, tmp_path)
    result = handle.analyse("paths", PathOptions(k=1))
    by_path = {path: len(group) for (path,), group in result.paths.group_by("path")}
    assert by_path == {"shortest": 2, "strongest": 4}
    assert result.no_cut == "an edge leads from a start to an end, with no unit between"
    assert paths_view(result).finding == "2 of 2 starts reach 1 of 1 ends."


def test_where_paths_begin_and_end(tmp_path):
    net, graph = random_net(1)
    handle, _ = stored(net, tmp_path)
    result = handle.analyse(
        "paths", PathOptions(start="layer = 'layer1' AND position = 0", end="layer = 'layer2'")
    )
    assert {row[1] - 9 for row in result.pairs.iter_rows()} == {p for _, p in graph.successors((1, 0))}
    assert set(result.pairs["start"]) <= {4}
    said = paths_view(result).finding
    assert said.startswith(f"1 of 1 starts reach {result.reached} of {result.n_ends} ends")
    with pytest.raises(UsageError, match="--from layer = 'no': no unit is like that"):
        handle.analyse("paths", PathOptions(start="layer = 'no'"))
    with pytest.raises(UsageError, match="may lead back"):
        handle.analyse("paths", PathOptions(kinds=("recurrent",)))


def test_limits(tmp_path, monkeypatch):
    net, graph = random_net(0)
    handle, _ = stored(net, tmp_path)
    whole = handle.analyse("paths", PathOptions())
    from_inputs = set().union(*({(0, p)} | nx.descendants(graph, (0, p)) for p in range(4)))
    to_outputs = set().union(*({(3, p)} | nx.ancestors(graph, (3, p)) for p in range(3)))
    count = sum(a in from_inputs and b in to_outputs for a, b in graph.edges)
    monkeypatch.setattr(routes, "MOST_CUT_EDGES", count)
    assert handle.analyse("paths", PathOptions()).cut == whole.cut
    monkeypatch.setattr(routes, "MOST_CUT_EDGES", count - 1)
    assert "a cut is looked for among up to" in handle.analyse("paths", PathOptions()).no_cut
    monkeypatch.setattr(routes, "MOST_PAIRS", whole.n_pairs - 1)
    assert handle.analyse("paths", PathOptions()).pairs.height == whole.n_pairs - 1
    monkeypatch.setattr(routes, "MOST_EDGES", 1)
    with pytest.raises(LimitError, match="name fewer units with --from and --to"):
        handle.analyse("paths", PathOptions())


def sparse(rng, *shape, density=0.3):
    return (rng.standard_normal(shape) * (rng.random(shape) < density)).astype(np.float32)


def dense_net(rng):
    net, _ = random_net(int(rng.integers(1000)), sizes=(6, 5, 5, 6), density=0.25)
    return net, (6,)


def grouped_net(rng):
    """Grouped convolutions with a channel shuffle between, and a residual."""
    net = Net()
    x = net.input(1, 6, 4, 4)
    first = net.op("Conv", x, net.value(sparse(rng, 6, 3, 3, 3, density=0.1)), group=2, pads=[1] * 4)
    parts = net.op("Reshape", net.op("Relu", first), net.ints(1, 2, 3, 4, 4))
    mixed = net.op("Reshape", net.op("Transpose", parts, perm=[0, 2, 1, 3, 4]), net.ints(1, 6, 4, 4))
    second = net.op("Conv", mixed, net.value(sparse(rng, 6, 2, 1, 1, density=0.6)), group=3)
    # A convolution at the end, so that the channels of the output are the units of one layer.
    total, ones = net.op("Add", second, first), net.value(np.ones((6, 1, 1, 1), np.float32))
    net.output(net.op("Conv", total, ones, group=6))
    return net, (6, 4, 4)


def heads_net(rng):
    """Two heads that read different features; what mixes them afterwards is sparse."""
    net = Net()
    x = net.input(1, 3, 6)
    names = []
    for _ in range(3):
        weights = np.kron(np.eye(2), np.ones((3, 2))) * sparse(rng, 6, 4, density=0.5)
        split = net.op("Reshape", net.op("MatMul", x, net.value(weights)), net.ints(0, 0, 2, 2))
        names.append(net.op("Transpose", split, perm=[0, 2, 1, 3]))
    q, k, v = names
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    context = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    flat = net.op("Reshape", net.op("Transpose", context, perm=[0, 2, 1, 3]), net.ints(0, 0, 4))
    net.output(net.op("MatMul", flat, net.value(sparse(rng, 4, 6, density=0.35))))
    return net, (3, 6)


def gated_net(rng):
    net = Net()
    x = net.input(1, 6)
    gate = net.op("Sigmoid", net.op("MatMul", x, net.value(sparse(rng, 6, 5))))
    product = net.op("Mul", gate, net.op("MatMul", x, net.value(sparse(rng, 6, 5))))
    net.output(net.op("MatMul", product, net.value(sparse(rng, 5, 6))))
    return net, (6,)


FAMILIES = (dense_net, grouped_net, heads_net, gated_net)


def perturbed(family, seed, folder, count):
    """Perturb single input units; returns how many pairs without a path were looked at."""
    rng = np.random.default_rng(seed)
    net, shape = family(rng)
    if net.inputs[0].type.tensor_type.shape.dim[0].dim_value:
        net.inputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    handle, model = stored(net, folder)
    units = handle.units
    first = units.filter(pl.col("role") == "output")["id"].min()
    pairs = handle.analyse("paths", PathOptions()).pairs
    reached = {(start, end - first) for start, end, _ in pairs.iter_rows()}
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name, axis = session.get_inputs()[0].name, 1 if family is grouped_net else -1
    seen = 0
    for number in range(count):
        base = rng.standard_normal((1, *shape)).astype(np.float32)
        (clean,) = session.run(None, {name: base})
        start = number % 6
        moved = np.moveaxis(base.copy(), axis, 0)
        moved[start] += 10 * rng.standard_normal(moved[start].shape).astype(np.float32)
        (found,) = session.run(None, {name: np.moveaxis(moved, 0, axis)})
        for end in set(range(6)) - {end for s, end in reached if s == start}:
            np.testing.assert_array_equal(np.take(found, end, axis), np.take(clean, end, axis))
            seen += 1
    return seen


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_what_no_path_reaches_is_not_moved_by_any_perturbation(family, tmp_path):
    assert perturbed(family, 1, tmp_path, 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_ten_thousand_perturbations_over_twenty_models(family, seed, tmp_path):
    perturbed(family, seed, tmp_path, 500)
