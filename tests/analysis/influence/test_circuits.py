"""Circuits that were planted are found: whole, and nothing else."""

import json
import re
from math import ceil

import jsonschema
import numpy as np
import onnx
import polars as pl
import pytest
import torch
from nets import Net
from onnx import numpy_helper

import emergraph
from emergraph.analysis.figures.reading import read_figure
from emergraph.analysis.figures.rendering import inline_svg
from emergraph.analysis.influence.circuits import kept_share
from emergraph.analysis.influence.figures import CIRCUIT
from emergraph.analysis.influence.options import Baseline, CircuitOptions, ModelRunOptions
from emergraph.analysis.influence.viewer import attribution_graph
from emergraph.analysis.influence.views import circuit_view
from emergraph.errors import UsageError
from emergraph.graphstore.store import open_store

SHARE = 0.95


@pytest.fixture
def find(tmp_path):
    """Export a network, and look for a circuit of it."""

    def run(net, arrays, **options):
        model = tmp_path / "net.onnx"
        onnx.save(net.model(), model)
        np.savez(tmp_path / "inputs.npz", **arrays)
        graph = emergraph.export(model, tmp_path / "net.duckdb")
        runs = ModelRunOptions(model=model, inputs=tmp_path / "inputs.npz")
        return graph, graph.analyse("circuit", runs, CircuitOptions(**{"share": SHARE, **options}))

    return run


def weights(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def one_class(rng):
    """Class 0 hangs on three of 24 units, the others on all of the rest."""
    planted = [2, 9, 17]
    net = Net()
    x = net.input("n", 6)
    head = weights(rng, 24, 4)
    head[:, 0] *= 0.01
    head[planted, 0] = [1.5, -2.0, 1.0]
    hidden = net.op("Relu", net.op("MatMul", x, net.value(weights(rng, 6, 24)), name="hidden"))
    net.output(net.op("MatMul", hidden, net.value(head), name="head"))
    return net, {x: weights(rng, 24, 6)}, {("hidden", k) for k in planted}, "head.out:0"


def two_layers(rng):
    """Two units of each of two layers, one behind the other, beside others that lead elsewhere."""
    first, second = [1, 6], [0, 11]
    net = Net()
    x = net.input("n", 5)
    middle = weights(rng, 16, 16)
    middle[:, second] *= 0.01
    middle[np.ix_(first, second)] = [[1.5, -1.2], [1.0, 1.4]]
    head = weights(rng, 16, 3)
    head[:, 1] *= 0.01
    head[second, 1] = [2.0, 1.5]
    h1 = net.op("Tanh", net.op("MatMul", x, net.value(weights(rng, 5, 16)), name="one"))
    h2 = net.op("Tanh", net.op("MatMul", h1, net.value(middle), name="two"))
    net.output(net.op("MatMul", h2, net.value(head), name="head"))
    planted = {("one", k) for k in first} | {("two", k) for k in second}
    return net, {x: weights(rng, 30, 5)}, planted, "head.out:1"


def exclusive_or(rng):
    """relu(a + b) - 2 relu(a + b - 1) of two bits, beside units that read four others."""
    net = Net()
    x = net.input("n", 6)
    first = np.zeros((6, 14), np.float32)
    first[2:, 2:] = weights(rng, 4, 12)
    first[:2, :2] = 1
    bias = np.zeros(14, np.float32)
    bias[1] = -1
    head = np.zeros((14, 2), np.float32)
    head[:2, 0], head[2:, 1] = [1, -2], weights(rng, 12)
    bent = net.op(
        "Relu", net.op("Add", net.op("MatMul", x, net.value(first), name="hidden"), net.value(bias))
    )
    net.output(net.op("MatMul", bent, net.value(head), name="head"))
    bits = rng.integers(0, 2, (32, 6)).astype(np.float32)
    return net, {x: bits}, {("hidden", 0), ("hidden", 1)}, "head.out:0"


def one_channel(rng):
    """One of ten channels decides, by its mean over the image."""
    net = Net()
    x = net.input("n", 1, 6, 6)
    head = weights(rng, 10, 3)
    head[:, 2] *= 0.02
    head[4, 2] = 3
    bent = net.op("Relu", net.op("Conv", x, net.value(weights(rng, 10, 1, 3, 3)), name="conv"))
    pooled = net.op("Flatten", net.op("GlobalAveragePool", bent))
    net.output(net.op("MatMul", pooled, net.value(head), name="head"))
    return net, {x: weights(rng, 16, 1, 6, 6)}, {("conv", 4)}, "head.out:2"


def recurrent(rng):
    """One of eight cells of an LSTM, with its gates, at its last step."""
    net, n = Net(), 8
    x = net.input("n", 5, 3)
    head = np.zeros((n, 2), np.float32)
    head[:, 1] = weights(rng, n)
    head[3, 0] = 2
    recurrence = 0.1 * weights(rng, 1, 4 * n, n)
    matrices = net.value(weights(rng, 1, 4 * n, 3)), net.value(recurrence)
    steps = net.op("Transpose", x, perm=[1, 0, 2])
    _, last = net.ops("LSTM", 2, steps, *matrices, hidden_size=n, name="rnn")
    net.output(net.op("MatMul", net.op("Squeeze", last, net.ints(0)), net.value(head), name="head"))
    planted = {("rnn", 3), ("rnn:cell", 3)} | {("rnn:gates", gate * n + 3) for gate in range(4)}
    return net, {x: weights(rng, 12, 5, 3)}, planted, "head.out:0"


def attention(rng):
    """Two of eight value features, whatever the scores are: queries and keys are next to nothing."""
    net = Net()
    x = net.input("n", 4, 6)
    q, k = (net.op("MatMul", x, net.value(1e-3 * weights(rng, 6, 8)), name=name) for name in ("query", "key"))
    v = net.op("MatMul", x, net.value(weights(rng, 6, 8)), name="value")
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    head = np.zeros((8, 3), np.float32)
    head[:, 1:] = weights(rng, 8, 2)
    head[[1, 5], 0] = [1, -1]
    net.output(net.op("MatMul", net.op("MatMul", scores, v), net.value(head), name="head"))
    return net, {x: weights(rng, 12, 4, 6)}, {("value", 1), ("value", 5)}, "head.out:0"


def induction(rng):
    """A head that looks one token back, one that looks for what followed; each beside a random one."""
    size, net = 8, Net()
    x = net.input("n", size, 2 * size)  # token, then position
    tokens = np.vstack([np.eye(size), np.zeros((size, size))])
    places = np.vstack([np.zeros((size, size)), np.eye(size)])

    def beside(planted):
        """A head, and another of random weights."""
        return net.value(np.hstack([planted, 0.3 * weights(rng, *planted.shape)]).astype(np.float32))

    def attended(names, queries, keys, values, at):
        heads = []
        for name, source, matrix in zip(at, names, (queries, keys, values), strict=True):
            parts = net.op("MatMul", source, beside(matrix), name=name)
            split = net.op("Reshape", parts, net.ints(0, 0, 2, size))
            heads.append(net.op("Transpose", split, perm=[0, 2, 1, 3]))
        scores = net.op("MatMul", heads[0], net.op("Transpose", heads[1], perm=[0, 1, 3, 2]))
        context = net.op("MatMul", net.op("Softmax", scores, axis=-1), heads[2])
        return net.op("Reshape", net.op("Transpose", context, perm=[0, 2, 1, 3]), net.ints(0, 0, 2 * size))

    before = attended([x, x, x], places, 20 * np.roll(places, 1, axis=1), tokens, ("q1", "k1", "v1"))
    looked = np.vstack([20 * np.eye(size), np.zeros((size, size))])
    after = attended([x, before, x], tokens, looked, tokens, ("q2", "k2", "v2"))
    last = net.op("Gather", after, net.ints(size - 1), axis=1)
    head = np.vstack([np.eye(size), 0.02 * weights(rng, size, size)])
    net.output(net.op("MatMul", last, net.value(head.astype(np.float32)), name="head"))
    order = np.array([rng.permutation(size) for _ in range(60)])
    order[:, -1] = order[np.arange(60), rng.integers(0, size - 2, 60)]
    data = np.concatenate([np.eye(size)[order], np.broadcast_to(np.eye(size), (60, size, size))], axis=2)
    read = range(1, size - 1)  # positions after the token that is met again
    planted = {(name, k) for name in ("q1", "k1") for k in read}
    planted |= {(name, k) for name in ("v1", "q2", "k2", "v2") for k in range(size)}
    return net, {x: data.astype(np.float32)}, planted, "head.out"


def one_gate(rng):
    """The forget gate of one cell of an LSTM: that cell lets nothing in, and all of what it keeps out."""
    net, n = Net(), 8
    x, c = net.input("n", 3, 4), net.input("n", n)
    w, r, bias = weights(rng, 1, 4 * n, 4), 0.05 * weights(rng, 1, 4 * n, n), np.zeros((1, 8 * n), np.float32)
    for gate, held in ((0, -9), (1, 9), (3, 0)):  # input, output, cell
        w[0, gate * n + 3] = r[0, gate * n + 3] = 1e-3
        bias[0, gate * n + 3] = held
    matrices = (net.value(one) for one in (w, r, bias))
    steps, start = net.op("Transpose", x, perm=[1, 0, 2]), net.op("Unsqueeze", c, net.ints(0))
    _, last = net.ops("LSTM", 2, steps, *matrices, "", "", start, hidden_size=n, name="rnn")
    head = 1e-3 * weights(rng, n, 2)
    head[3, 0] = 2
    net.output(net.op("MatMul", net.op("Squeeze", last, net.ints(0)), net.value(head), name="head"))
    data = {x: weights(rng, 24, 3, 4), c: weights(rng, 24, n)}
    return net, data, {("rnn:gates", 2 * n + 3), ("rnn:cell", 3), ("rnn", 3)}, "head.out:0"


FAMILIES = [one_class, two_layers, exclusive_or, one_channel, recurrent, attention, induction, one_gate]


def area_under_roc(effects, labels):
    """Chance that a planted unit has the larger effect; ties count half."""
    inside, outside = effects[labels], effects[~labels]
    pairs = inside[:, None] - outside[None, :]
    return float(((pairs > 0) + 0.5 * (pairs == 0)).mean())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_a_planted_circuit_is_found(find, family):
    net, arrays, planted, target = family(np.random.default_rng(5))
    _, result = find(net, arrays, target=target, edges=0, refine=30)
    first, names = result.first_units, result.layer_names

    def named(frame):
        return [(names[la], u - first[la]) for la, u in frame.select("layer", "unit").iter_rows()]

    labels = np.array([unit in planted for unit in named(result.candidates)])
    assert labels.sum() == len(planted)
    assert area_under_roc(result.candidates["effect"].to_numpy(), labels) >= 0.95
    assert result.kept.mean >= SHARE
    assert result.units.height <= ceil(1.2 * len(planted))
    assert set(named(result.units)) <= planted or result.units.height > len(planted)
    assert result.minimal
    assert (result.units["without"] < SHARE).all()
    drawn = result.curve.filter(pl.col("ranking") == "random like the circuit")["kept"].item()
    assert drawn < SHARE
    assert result.areas["influence"] > result.areas["random"]


def test_of_two_copies_one_is_found_and_the_other_is_named(find):
    """The larger of two equal units: neither does anything alone, and one of them is enough."""
    rng = np.random.default_rng(3)
    net = Net()
    x = net.input("n", 4)
    first = weights(rng, 4, 8)
    first[:, 1] = first[:, 0]
    hidden = net.op("Relu", net.op("MatMul", x, net.value(first), name="hidden"))
    one, two = (net.op("Gather", hidden, net.ints(k), axis=1) for k in (0, 1))
    rest = net.op("MatMul", hidden, net.value(1e-4 * weights(rng, 8, 1)), name="rest")
    net.output(net.op("Add", net.op("Max", one, two), rest))
    _, result = find(net, {x: weights(rng, 20, 4)}, baseline=Baseline.ZERO)
    assert result.units.height == 1
    assert result.units["unit"].item() - result.first_units[result.units["layer"].item()] in (0, 1)
    assert result.without.mean >= SHARE
    said = "the units outside of the circuit keep the share, too: another circuit suffices"
    view = circuit_view(result)
    assert said in view.notes
    assert view.finding.startswith("1 of 9 units keep ")
    assert (
        f"on 20 samples, and none of them can be left out; the others alone keep {result.without.mean:.2g}."
        in view.finding
    )


class EdgeTwin:
    """The network of `two_layers` in plain numpy, with edges left out one by one."""

    def __init__(self, matrices, starts, x, circuit):
        self.matrices, self.starts, self.x, self.circuit = (
            matrices,
            starts,
            x.astype(np.float64),
            set(circuit),
        )
        self.means, values = [self.x.mean(0)], self.x
        for matrix in matrices[:2]:
            values = np.tanh(values @ matrix)
            self.means.append(values.mean(0))
        self.clean = (values @ matrices[2])[:, 1]
        sources = set(range(starts[0], starts[0] + 5)) | self.circuit
        self.candidates = {
            (starts[k] + u, starts[k + 1] + v)
            for k, matrix in enumerate(matrices)
            for u in range(matrix.shape[0])
            for v in range(matrix.shape[1])
            if starts[k] + u in sources and (starts[k + 1] + v in self.circuit or k == 2)
        }
        self.nothing = np.square(self.run(self.candidates, set()) - self.clean).mean()

    def run(self, edges, units):
        """The number that is looked at, with some candidates alone and some units alone."""
        values = self.x
        for k, matrix in enumerate(self.matrices):
            if k:
                on = [self.starts[k] + u in units for u in range(len(matrix))]
                values = np.where(on, values, self.means[k])
            own = np.ones(matrix.shape)
            for u, v in self.candidates - edges:
                if self.starts[k] <= u < self.starts[k] + len(matrix):
                    own[u - self.starts[k], v - self.starts[k + 1]] = 0
            summed = values @ (matrix * own) + self.means[k] @ (matrix * (1 - own))
            values = np.tanh(summed) if k < 2 else summed
        return values[:, 1]

    def kept(self, edges, units=None):
        found = self.run(edges, self.circuit if units is None else units)
        return 1 - np.square(found - self.clean).mean() / self.nothing


class Chain(torch.nn.Module):
    """The network of `two_layers` as a module that keeps what its hidden units do."""

    def __init__(self, matrices):
        super().__init__()
        self.weights = [torch.tensor(m) for m in matrices]

    def forward(self, x):
        self.hidden = []
        for matrix in self.weights[:-1]:
            x = torch.tanh(x @ matrix)
            x.retain_grad()
            self.hidden.append(x)
        return x @ self.weights[-1]


def attribution_patching(matrices, x):
    """Of each hidden unit, the largest score of an edge out of it, (a - mean) w dL/dz, by gradients.

    L is the divergence that is kept small at a point half way to the baseline: at the model itself its
    gradient is zero.
    """
    module = Chain(matrices)
    values = torch.tensor(x.astype(np.float64), requires_grad=True)
    clean = module(values)[:, 1].detach()
    away = [h.detach() - h.detach().mean(0) for h in module.hidden]
    half = ((values + values.mean(0)) / 2).detach().requires_grad_(True)
    torch.square(module(half)[:, 1] - clean).sum().backward()
    scores = []
    for k, far in enumerate(away):
        last = k == len(away) - 1
        bent = None if last else 1 - torch.square(module.hidden[k + 1])
        into = torch.zeros(len(x), 3, dtype=torch.float64) if last else module.hidden[k + 1].grad * bent
        if last:
            into[:, 1] = 2 * (module(half)[:, 1] - clean).detach()
        edges = torch.einsum("nu,uv,nv->uv", far, module.weights[k + 1], into).abs()
        scores.append(edges.max(dim=1).values.detach().numpy())
    return np.concatenate(scores)


@pytest.mark.slow
def test_knockouts_order_units_no_worse_than_edge_attribution_patching(find):
    """On planted chains, and on chains of random weights; before they are ordered again, they do not."""
    single, refined, theirs = [], [], []
    for seed in range(2, 6):
        rng = np.random.default_rng(seed)
        net, arrays, _, target = two_layers(rng)
        if seed % 2:
            for tensor in net.initializers[:3]:
                values = weights(rng, *tensor.dims) / np.float32(2)
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        matrices = [numpy_helper.to_array(t).astype(np.float64) for t in net.initializers]
        (x,) = arrays.values()
        twin = EdgeTwin(matrices, [0, 5, 21, 37], x, range(5, 37))
        for areas, refine in ((single, 0), (refined, 100)):
            _, result = find(net, arrays, target=target, edges=0, refine=refine, draws=1)
            areas.append(result.areas["influence"])
        own = result.curve.filter(pl.col("ranking") == "influence").sort("size")
        order = 5 + np.argsort(-attribution_patching(matrices, x), kind="stable")
        kept = [twin.kept(twin.candidates, set(order[:size].tolist())) for size in own["size"]]
        spread = np.log1p(own["size"].to_numpy())
        theirs.append(np.trapezoid(np.clip(kept, 0, 1), spread) / spread[-1])
    assert np.mean(refined) > np.mean(theirs)
    assert np.mean(refined) > np.mean(single)
    assert min(np.subtract(refined, theirs)) > -0.05


def test_the_circuit_is_kept_in_the_store(find):
    net, arrays, planted, target = two_layers(np.random.default_rng(5))
    graph, result = find(net, arrays, target=target)
    store = emergraph.open(graph.path)
    kept = store.sql("SELECT n_units, kept, minimal, measure FROM circuits").row(0, named=True)
    assert kept == {
        "n_units": result.units.height,
        "kept": result.kept.mean,
        "minimal": True,
        "measure": "target",
    }
    assert store.sql("SELECT count(*) FROM circuit_units").item() == result.units.height == len(planted)
    rows = store.sql("SELECT src, dst, without FROM circuit_edges").rows()
    searched = result.searched
    assert searched.minimal
    assert searched.n_candidates == 5 * 2 + 2 * 2 + 2 * 3
    assert len(rows) == searched.frame.height
    assert all(without < SHARE for _, _, without in rows)
    matrices = [numpy_helper.to_array(t).astype(np.float64) for t in net.initializers]
    names = {row["name"]: row["first_unit"] for row in graph.layers.iter_rows(named=True)}
    starts = [names[layer] for layer in (net.inputs[0].name, "one", "two", "head")]
    whole = EdgeTwin(matrices, starts, arrays[net.inputs[0].name], result.units["unit"].to_list())
    edges = {(src, dst) for src, dst, _ in rows}
    assert {dst for _, dst in edges if dst >= starts[3]} == {starts[3] + 1}  # the number that is looked at
    assert searched.kept.mean == pytest.approx(whole.kept(edges), abs=1e-4)
    for src, dst, without in rows[:4]:
        assert without == pytest.approx(whole.kept(edges - {(src, dst)}), abs=1e-4)
    everything = set(range(starts[1], starts[3]))
    assert searched.without.mean == pytest.approx(whole.kept(whole.candidates - edges, everything), abs=1e-4)
    assert searched.without.mean < 0.5
    check_drawing(graph)
    check_viewer(graph, store)


def check_drawing(graph):
    with open_store(graph.path) as opened:
        drawn = read_figure(opened.graph(), CIRCUIT)
    svg = inline_svg(drawn.chart(), prefix="p-", label="A circuit")
    units, edges = drawn.frames["units"], drawn.frames["edges"]
    assert svg.count("<line") == edges.height
    assert units["x"].unique().sort().to_list() == [0, 1, 2, 3]
    assert set(units["unit"]) == set(edges["src"]) | set(edges["dst"])


def of(**fields):
    """A JSON schema of an object with just these fields, or more."""
    return {"type": "object", "properties": fields, "required": list(fields)}


TEXT, WHOLE, NUMBER = ({"type": name} for name in ("string", "integer", "number"))
TEXTS = {"type": "array", "items": TEXT}
VIEWER = of(
    metadata=of(slug=TEXT, scan=TEXT, transcoder_list=TEXTS, prompt_tokens=TEXTS, prompt=TEXT),
    qParams=of(
        pinnedIds=TEXTS,
        supernodes={"type": "array", "items": TEXTS},
        linkType=TEXT,
        clickedId=TEXT,
        sg_pos=TEXT,
    ),
    nodes={
        "type": "array",
        "items": of(
            node_id=TEXT,
            feature=WHOLE,
            layer=TEXT,
            ctx_idx=WHOLE,
            feature_type={"enum": ["embedding", "cross layer transcoder", "logit"]},
            jsNodeId=TEXT,
            token_prob=NUMBER,
            clerp=TEXT,
        ),
    },
    links={"type": "array", "items": of(source=TEXT, target=TEXT, weight=NUMBER)},
)
"""What the viewer of circuit-tracer asks of its files."""


def check_viewer(graph, store):
    """The files have the structure that the viewer asks for, and the circuit in them."""
    folder = graph.path.parent / "viewer"
    n_edges = store.sql("SELECT count(*) FROM circuit_edges").item()
    assert graph.convert(folder, "attribution-graph") == n_edges
    (index,) = json.loads((folder / "graph-metadata.json").read_text())["graphs"]
    found = json.loads((folder / f"{index['slug']}.json").read_text())
    jsonschema.validate(found, VIEWER)
    by_kind = {}
    for node in found["nodes"]:
        by_kind.setdefault(node["feature_type"], []).append(node)
    inputs, outputs = by_kind["embedding"], by_kind["logit"]
    assert [node["ctx_idx"] for node in inputs] == list(range(len(inputs)))
    assert found["metadata"]["prompt_tokens"] == [node["clerp"] for node in inputs]
    assert {node["layer"] for node in by_kind["cross layer transcoder"]} == {"0", "1"}
    assert [node["layer"] for node in outputs] == ["3"]
    assert re.fullmatch(r'Output "head\[1\]" \(p=\d\.\d{3}\)', outputs[0]["clerp"])
    ids = {node["node_id"] for node in found["nodes"]}
    assert len(ids) == len(found["nodes"]) == len({node["jsNodeId"] for node in found["nodes"]})
    assert all(link["source"] in ids and link["target"] in ids for link in found["links"])


@pytest.mark.parametrize(("n_inputs", "n_tokens"), [(0, 2), (1, 2), (2, 2), (3, 3)])
def test_the_viewer_has_more_tokens_than_it_deletes_units_for(n_inputs, n_tokens):
    """It leaves out what is at more than two thirds of the tokens: each unit is at one."""
    units = [(k, "input", "x", k, 1, None, None) for k in range(n_inputs)]
    units += [(7, "hidden", "h", 0, 2, 0.1, 0.2), (8, "output", "y", 0, 3, None, 0.5)]
    found = attribution_graph("net", 1, {}, units, [(7, 8, 0.5)])
    jsonschema.validate(found, VIEWER)
    tokens = found["metadata"]["prompt_tokens"]
    assert len(tokens) == n_tokens
    assert not len(tokens) * 2 / 3 < 1
    assert all(node["ctx_idx"] < n_tokens for node in found["nodes"])


def test_a_behaviour_that_nothing_changes_has_no_circuit(find):
    net = Net()
    x = net.input("n", 3)
    hidden = net.op("Relu", net.op("MatMul", x, net.value(np.ones((3, 4), np.float32)), name="hidden"))
    head = np.zeros((4, 2), np.float32)
    head[:, 1] = 1
    net.output(net.op("MatMul", hidden, net.value(head), name="head"))
    with pytest.raises(UsageError, match="there is no circuit to look for"):
        find(net, {x: np.eye(3, dtype=np.float32)}, target="head.out:0")


def test_the_share_that_is_kept():
    assert kept_share(np.array([[0.0, 1.0], [0.0, 3.0]])) == 1
    assert kept_share(np.array([[1.0, 1.0], [3.0, 3.0]])) == 0
    assert kept_share(np.array([[1.0, 2.0], [0.0, 2.0]])) == 0.75
