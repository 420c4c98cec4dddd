"""Contributions sum to pre-activations of onnxruntime, and are those of a network cut down to one edge."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import polars as pl
import pytest
from nets import Net
from onnx import numpy_helper

import emergraph
from emergraph.analysis.activity.options import ActivityOptions
from emergraph.analysis.emergence.options import ExtentOptions
from emergraph.analysis.emergence.views import count_view
from emergraph.analysis.influence.options import ContributionOptions, ModelRunOptions
from emergraph.analysis.influence.views import contribution_view
from emergraph.analysis.percolation.options import OrderOptions, PercolationOptions
from emergraph.errors import UsageError

RNG = np.random.default_rng(3)
DOCUMENTED = Path(__file__).parents[3] / "docs" / "influence.md"
TOLERANCE = 1e-5
"""Of the sum of absolute terms."""


@pytest.fixture
def asked(tmp_path):
    """Export a network, and take its sums apart on given samples."""

    def run(net, arrays, *, axes=(), **options):
        model = net.model() if isinstance(net, Net) else net
        onnx.save(model, tmp_path / "net.onnx")
        np.savez(tmp_path / "inputs.npz", **arrays)
        graph = emergraph.export(tmp_path / "net.onnx", tmp_path / "net.duckdb")
        runs = ModelRunOptions(model=tmp_path / "net.onnx", inputs=tmp_path / "inputs.npz", sample_axis=axes)
        return graph, graph.analyse("contributions", runs, ContributionOptions(**{"top": 0, **options}))

    return run


def tensors(net, arrays, *names):
    """Tensors of a model as onnxruntime computes them, all samples at once."""
    model = net.model() if isinstance(net, Net) else net
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(names), arrays)


def of_layer(graph, result, layer):
    """Rows into a layer, with positions for ids."""
    row = graph.layers.filter(pl.col("name") == layer).row(0, named=True)
    first, n = row["first_unit"], row["n_units"]
    return result.frame.filter(pl.col("dst").is_between(first, first + n - 1)).with_columns(
        pl.col("dst") - first
    )


def check_sums(graph, result, layer, expected):
    """The rows of a layer sum to means that were computed otherwise."""
    rows = of_layer(graph, result, layer)
    sums = rows.group_by("dst").agg(pl.col("mean", "mean_abs").sum()).sort("dst")
    assert sums["dst"].to_list() == list(range(len(expected)))
    error = np.abs(sums["mean"].to_numpy() - expected)
    assert (error <= TOLERANCE * sums["mean_abs"].to_numpy()).all()
    shares = rows.group_by("dst").agg(pl.col("share").sum())["share"].to_numpy()
    np.testing.assert_allclose(shares, 1, rtol=1e-9)


def spatial(array):
    """Mean of (n, channels, ...) over all but channels."""
    return array.astype(np.float64).mean(axis=(0, *range(2, array.ndim)))


def test_a_dense_network_edge_by_edge(asked):
    net = Net()
    first, second = net.random(3, 4, zeros=0.3), net.random(4, 2)
    bias = net.random(4)
    x = net.input(2, 3)
    gemm = net.op("Gemm", x, net.value(first), net.value(bias), alpha=0.5, beta=2.0, name="hid")
    hidden = net.op("Relu", gemm)
    net.output(net.op("MatMul", hidden, net.value(second), name="head"))
    data = RNG.standard_normal((6, 3)).astype(np.float32)
    graph, result = asked(net, {x: data})
    assert not result.left_out
    assert (result.frame.filter(pl.col("kind") == "weight")["share"] == 0).any()
    before = data @ (0.5 * first) + 2 * bias
    check_sums(graph, result, "hid", before.mean(0))
    check_sums(graph, result, "head", (np.maximum(before, 0) @ second).mean(0))
    rows = of_layer(graph, result, "hid")
    for u in range(3):
        for v in range(4):
            found = rows.filter((pl.col("src") == u) & (pl.col("dst") == v))
            terms = data[:, u] * 0.5 * first[u, v]
            if first[u, v] == 0:
                assert found.is_empty()  # no edge
            else:
                assert found["mean"].item() == pytest.approx(terms.mean(), rel=1e-5)
                assert found["mean_abs"].item() == pytest.approx(np.abs(terms).mean(), rel=1e-5)
    biases = rows.filter(pl.col("kind") == "bias").sort("dst")
    np.testing.assert_allclose(biases["mean"], 2 * bias, rtol=1e-6)
    assert biases["src"].null_count() == 4
    assert result.worst < 1e-6
    check_finding(result)
    store = emergraph.open(graph.path)
    stored = store.sql("SELECT count(*) AS n FROM edge_contributions")
    assert stored["n"].item() == result.frame.height
    expression = "(SELECT mean_abs FROM edge_contributions c WHERE c.src = edges.src AND c.dst = edges.dst)"
    by_name, by_sql = (
        graph.analyse("percolate", OrderOptions(order=order), PercolationOptions(nulls=0, seeds=1))
        for order in ("contribution", expression)
    )
    assert by_name.curve().equals(by_sql.curve())
    assert by_name.n_without_key == 0
    check_carried_paths(graph, result)
    questions = re.findall(r"```sql\n(.*?)```", DOCUMENTED.read_text(), re.DOTALL)
    assert len(questions) == 2
    for question in questions:
        assert store.sql(question).height


def check_finding(result):
    """How many edges make half of what flows into a unit, and the one that makes most of it."""
    flows = {}
    for row in result.frame.iter_rows(named=True):
        if row["src"] is not None:
            flows.setdefault(row["dst"], []).append(row["share"])
    needed = []
    for shares in flows.values():
        if sum(shares) >= 0.5:
            half = np.cumsum(sorted(shares, reverse=True)) >= 0.5
            needed.append(int(half.argmax()) + 1)
    best = max(max(shares) for shares in flows.values())
    said = contribution_view(result).finding
    assert said.startswith(f"Half of what flows into a unit comes along {np.median(needed):g} edge")
    assert f"(median over {len(needed)} units, 6 samples)" in said
    assert f"{100 * best:.3g} % of what flows into" in said


def test_nothing_flows_from_silent_units(asked):
    net = Net()
    x = net.input(2, 3)
    net.output(net.op("MatMul", x, net.value(net.random(3, 2)), name="head"))
    _, result = asked(net, {x: np.zeros((4, 3), np.float32)})
    assert contribution_view(result).finding == "Nothing flows into the 2 units on 4 samples."


def check_carried_paths(graph, result):
    """Paths through three layers along strong edges, counted with matrices."""
    folder = graph.path.parent
    with np.load(folder / "inputs.npz") as inputs:
        graph.trace(dict(inputs), model=folder / "net.onnx")
    means = graph.activations().sort("unit")["mean"].to_numpy()
    for share in (0.0, 0.3):
        asked = (ActivityOptions(threshold=0.0), ExtentOptions(carried=share))
        found = graph.analyse("emergence", *asked)
        strong = result.frame.filter((pl.col("kind") == "weight") & (pl.col("share") > share))
        steps = np.zeros((9, 9))
        steps[strong["src"].to_numpy(), strong["dst"].to_numpy()] = 1
        paths = (steps + steps @ steps)[np.ix_(means <= 0, means > 0)].sum()
        (counted,) = (count for count in found.carried if count.interior == "any")
        assert counted.exact == paths
        assert counted.exact < found.any.exact  # one hidden unit is silent: its edges carry nothing
    assert any("along edges that carry more than 0.3" in fact for fact in count_view(found).facts)
    with pytest.raises(UsageError, match="--carried is for a single count"):
        graph.analyse("emergence", asked[0], ExtentOptions(carried=0.1, full=True))


CONVOLUTIONS = {
    "plain": ((2, 4, 6, 7), (3, 4, 3, 2), {"pads": [1, 0, 1, 1], "strides": [2, 1]}),
    "dilated": ((1, 4, 9), (3, 4, 3), {"dilations": [2], "pads": [2, 1]}),
    "same": ((1, 4, 7, 8), (3, 4, 4, 3), {"strides": [3, 2], "auto_pad": "SAME_UPPER"}),
    "grouped": ((1, 4, 6, 6), (6, 2, 3, 3), {"group": 2}),
    "depthwise": ((1, 4, 6, 6), (8, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    "transposed": ((1, 4, 5), (4, 3, 3), {"strides": [2], "pads": [1, 0], "output_padding": [1]}),
    "transposed in groups": ((1, 4, 4, 5), (4, 3, 3, 2), {"group": 2, "strides": [2, 3]}),
    "transposed and dilated": ((1, 4, 4, 5), (4, 3, 3, 2), {"dilations": [1, 2], "pads": [1, 1, 0, 1]}),
    "transposed to a size": ((1, 4, 5), (4, 3, 4), {"strides": [2], "output_shape": [9]}),
}


def test_convolutions_channel_by_channel(asked):
    """All in one model, each with an input of its own; one channel at a time by onnxruntime."""
    net, arrays, made = Net(), {}, {}
    for case, (shape, kernel, attributes) in CONVOLUTIONS.items():
        turned = case.startswith("transposed")
        x = net.input(*shape, name=f"{case} input")
        net.inputs[-1].type.tensor_type.shape.dim[0].dim_param = "n"
        n_out = kernel[1] * attributes.get("group", 1) if turned else kernel[0]
        bias = net.param(n_out, name=f"{case} bias")
        op = "ConvTranspose" if turned else "Conv"
        made[case] = net.op(op, x, net.param(*kernel), bias, name=case, **attributes)
        net.output(made[case])
        arrays[x] = RNG.standard_normal((3, *shape[1:])).astype(np.float32)
    graph, result = asked(net, arrays)
    whole = dict(zip(made, tensors(net, arrays, *made.values()), strict=True))
    biases = {t.name: numpy_helper.to_array(t) for t in net.initializers if t.name.endswith("bias")}
    alone = []
    for u in range(4):
        cut = {
            x: np.where(np.arange(4)[None, :, *[None] * (a.ndim - 2)] == u, a, 0) for x, a in arrays.items()
        }
        alone.append(dict(zip(made, tensors(net, cut, *made.values()), strict=True)))
    first = dict(graph.layers.select("name", "first_unit").iter_rows())
    for case, output in whole.items():
        check_sums(graph, result, case, spatial(output))
        rows = of_layer(graph, result, case).with_columns(pl.col("src") - first[f"{case} input"])
        for u in range(4):
            bias = biases[f"{case} bias"].reshape(1, -1, *[1] * (output.ndim - 2))
            terms = alone[u][case] - bias
            mean, size = spatial(terms), spatial(np.abs(terms))
            own = rows.filter(pl.col("src") == u)
            np.testing.assert_allclose(own["mean"], mean[own["dst"]], atol=1e-5)
            np.testing.assert_allclose(own["mean_abs"], size[own["dst"]], atol=1e-5)
            assert np.abs(np.delete(size, own["dst"].to_numpy())).max(initial=0) < 1e-5


def test_normalised_layers_and_units_that_share_a_channel(asked):
    """The value that is read is behind the norm; a flattened channel is one unit with several weights."""
    net = Net()
    x = net.input(1, 3, 4, 4)
    conv = net.op("Conv", x, net.param(5, 3, 3, 3), name="conv")
    vectors = [net.param(5) for _ in range(3)]
    variance = net.value(np.abs(net.random(5)))
    normed = net.op("Relu", net.op("BatchNormalization", conv, *vectors, variance))
    flat = net.op("Flatten", normed)
    dense = net.op("MatMul", flat, net.param(20, 6), name="dense")
    shifted = net.op("Add", dense, net.param(6))
    rescaled = net.op("LayerNormalization", shifted, net.param(6), net.param(6), axis=-1)
    head = net.op("Gemm", rescaled, net.param(2, 6), net.param(2), transB=1, name="head")
    net.output(head)
    data = RNG.standard_normal((5, 3, 4, 4)).astype(np.float32)
    net.inputs[0].type.tensor_type.shape.dim[0].dim_param = "n"
    graph, result = asked(net, {x: data})
    found = tensors(net, {x: data}, conv, shifted, head, normed)
    check_sums(graph, result, "conv", spatial(found[0]))
    check_sums(graph, result, "dense", found[1].mean(0))
    check_sums(graph, result, "head", found[2].mean(0))
    weights = numpy_helper.to_array(net.initializers[5]).reshape(5, 4, 6)
    terms = np.einsum("ncp,cpv->ncv", found[3].reshape(5, 5, 4), weights)
    channels = graph.layers.filter(pl.col("name") == "conv")["first_unit"].item()
    rows = of_layer(graph, result, "dense").filter(pl.col("kind") == "weight")
    assert rows.height == 30
    for row in rows.iter_rows(named=True):
        own = terms[:, row["src"] - channels, row["dst"]]
        assert row["mean"] == pytest.approx(own.mean(), abs=1e-5)
        assert row["mean_abs"] == pytest.approx(np.abs(own).mean(), abs=1e-5)


def attention_net(heads=2, width=3, steps=4):
    net = Net()
    x = net.input(1, steps, 5)
    names = []
    for part in "qkv":
        product = net.op("MatMul", x, net.param(5, heads * width), name=part)
        names.append(net.op("Reshape", product, net.ints(0, 0, heads, width)))
    orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (net.op("Transpose", name, perm=p) for name, p in zip(names, orders, strict=True))
    scores = net.op("MatMul", q, k, name="qk")
    weights = net.op("Softmax", scores, axis=-1)
    context = net.op("MatMul", weights, v, name="ctx")
    back = net.op("Reshape", net.op("Transpose", context, perm=[0, 2, 1, 3]), net.ints(0, 0, heads * width))
    mixed = net.op("MatMul", back, net.param(heads * width, 5), name="mix")
    total = net.op("Add", mixed, x, name="residual")
    gate = net.op("Sigmoid", net.op("MatMul", total, net.param(5, 5), name="gate"))
    product = net.op("Mul", gate, total, name="product")
    net.output(product)
    shown = {"scores": scores, "context": context, "mix": mixed, "residual": total, "p": weights}
    return net, x, {**shown, "q": q, "k": k, "v": v, "product": product, "gate": gate}


def test_attention_gives_half_to_each_factor_and_the_whole_to_values(asked):
    net, x, names = attention_net()
    data = RNG.standard_normal((3, 4, 5)).astype(np.float32)
    graph, result = asked(net, {x: data})
    values = [dict(zip(names, tensors(net, {x: one[None]}, *names.values()), strict=True)) for one in data]
    kinds = {row["kind"]: row["name"] for row in graph.layers.iter_rows(named=True)}
    scores = np.mean([v["scores"].mean(axis=(0, 2, 3)) for v in values], axis=0)
    check_sums(graph, result, kinds["score"], scores)
    context = np.mean([v["context"].mean(axis=(0, 2)) for v in values], axis=0).ravel()
    check_sums(graph, result, kinds["context"], context)
    check_sums(graph, result, "mix", np.mean([v["mix"].mean(axis=(0, 1)) for v in values], axis=0))
    check_sums(graph, result, "residual", np.mean([v["residual"].mean(axis=(0, 1)) for v in values], axis=0))
    check_sums(graph, result, "product", np.mean([v["product"].mean(axis=(0, 1)) for v in values], axis=0))
    first = dict(graph.layers.select("name", "first_unit").iter_rows())
    into = of_layer(graph, result, kinds["score"])
    for feature in range(6):
        head, within = divmod(feature, 3)
        pairs = [(v["q"][0, head, :, within, None], v["k"][0, head, None, within]) for v in values]
        half = np.mean([0.5 * q * k for q, k in pairs])
        for part in "qk":
            row = into.filter(pl.col("src") == first[part] + feature)
            assert row["dst"].item() == head
            assert row["mean"].item() == pytest.approx(half, abs=1e-6)
    weighed = of_layer(graph, result, kinds["context"])
    score_rows = weighed.filter(pl.col("src").is_between(first[kinds["score"]], first[kinds["score"]] + 1))
    assert score_rows["mean_abs"].sum() == 0
    gates = of_layer(graph, result, "product")
    halves = np.mean([(0.5 * v["gate"] * v["residual"]).mean(axis=(0, 1)) for v in values], axis=0)
    for unit in range(5):
        np.testing.assert_allclose(gates.filter(pl.col("dst") == unit)["mean"], halves[unit], atol=1e-6)


def test_fused_attention_is_written_out(asked):
    """Four heads of queries on two of keys and values, causal and with a mask, as written by hand."""
    net, heads, groups, width, steps = Net(opset=23), 4, 2, 3, 5
    x = net.input(1, steps, 6)
    sizes = {"q": heads, "k": groups, "v": groups}
    names = {part: net.op("MatMul", x, net.param(6, n * width), name=part) for part, n in sizes.items()}
    mask = RNG.standard_normal((steps, steps)).astype(np.float32)
    out = net.op(
        "Attention",
        *names.values(),
        net.value(mask),
        name="attend",
        q_num_heads=heads,
        kv_num_heads=groups,
        is_causal=1,
    )
    net.output(net.op("MatMul", out, net.param(heads * width, 2), name="head"))
    data = RNG.standard_normal((1, steps, 6)).astype(np.float32)
    graph, result = asked(net, {x: data})
    assert not result.left_out
    found = tensors(net, {x: data}, out, *names.values())
    check_sums(graph, result, "attend", found[0].mean((0, 1)))
    q, k, _ = (a[0].reshape(steps, -1, width).swapaxes(0, 1) for a in found[1:])
    scores = np.einsum("htd,hsd->hts", q, np.repeat(k, heads // groups, axis=0)) / np.sqrt(width)
    check_sums(graph, result, "attend:scores", scores.mean((1, 2)))
    first = dict(graph.layers.select("name", "first_unit").iter_rows())
    rows = of_layer(graph, result, "attend").filter(pl.col("mean_abs") > 0)
    assert rows.height == heads * width
    for row in rows.iter_rows(named=True):
        head, feature = divmod(row["dst"], width)
        assert row["src"] == first["v"] + (head // 2) * width + feature
        assert row["mean_abs"] == pytest.approx(np.abs(found[0][0, :, row["dst"]]).mean(), rel=1e-4)


RECURRENT = {
    "LSTM": {},
    "LSTM both ways": {"directions": 2, "state": True},
    "LSTM backward": {"direction": "reverse", "peepholes": True, "state": True},
    "GRU": {},
    "GRU reset after": {"linear_before_reset": 1, "directions": 2, "state": True},
    "RNN": {"directions": 2},
}
HIDDEN, WIDTH, STEPS = 3, 4, 5


def recurrent(net, x, case, *, directions=1, peepholes=False, state=False, **attributes):
    """Add an operation; returns its output and W, R, B, lengths, initial states and peepholes."""
    op = case.split()[0]
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    shapes = [(gates * HIDDEN, WIDTH), (gates * HIDDEN, HIDDEN), (2 * gates * HIDDEN,), None]
    shapes += [(1, HIDDEN) if state else None, (1, HIDDEN) if state and op == "LSTM" else None]
    shapes.append((3 * HIDDEN,) if peepholes else None)
    names = ["" if shape is None else net.param(directions, *shape) for shape in shapes]
    values = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in net.initializers}
    given = [x, *names]
    while not given[-1]:
        given.pop()
    settings = {
        "hidden_size": HIDDEN,
        "direction": ["forward", "bidirectional"][directions - 1],
        **attributes,
    }
    return net.ops(op, 2, *given, name=case, **settings)[0], [values.get(name) for name in names]


def before(y, h0, *, backward):
    """The state that each step reads, of (steps, batch, hidden)."""
    first = (np.zeros_like(y[0]) if h0 is None else h0)[None]
    return np.concatenate([y[1:], first] if backward else [first, y[:-1]])


def candidates(sums, parts, r, *, after):
    """Pre-activations of a GRU's candidate, by its reset gate."""
    last = slice(2 * HIDDEN, None)
    from_x, from_h, bias_x, bias_h, own = parts
    reset = 1 / (1 + np.exp(-sums[..., HIDDEN : 2 * HIDDEN]))
    if after:
        return from_x[..., last] + reset * (from_h[..., last] + bias_h[last]) + bias_x[last]
    return from_x[..., last] + (reset * own) @ r[last].T + bias_x[last] + bias_h[last]


def test_recurrent_operations_written_out_sum_to_what_states_of_onnxruntime_give(asked):
    net = Net()
    x = net.input(STEPS, 1, WIDTH)
    made = {case: recurrent(net, x, case, **settings) for case, settings in RECURRENT.items()}
    for y, _ in made.values():
        net.output(y)
    data = RNG.standard_normal((STEPS, 1, WIDTH)).astype(np.float32)
    graph, result = asked(net, {x: data}, axes=(f"{x}=1",))
    assert not result.left_out
    assert result.worst < 1e-5
    found = tensors(net, {x: data}, *(y for y, _ in made.values()))
    for (case, (_, (w, r, b, _, h0, _, p))), states in zip(made.items(), found, strict=True):
        settings = RECURRENT[case]
        sums, new = [], []
        for d in range(len(w)):
            backward = settings.get("direction") == "reverse" or d == 1
            own = before(states[:, d], None if h0 is None else h0[d], backward=backward)
            bias_x, bias_h = np.split(b[d], 2)
            parts = data @ w[d].T, own @ r[d].T, bias_x, bias_h, own
            sums.append(sum(parts[:4]))
            if case.startswith("GRU"):
                after = "linear_before_reset" in settings
                new.append(candidates(sums[-1], parts, r[d], after=after).mean((0, 1)))
        if case.startswith("LSTM") and p is None:
            check_sums(graph, result, f"{case}:gates", np.concatenate([s.mean((0, 1)) for s in sums]))
        if case.startswith("GRU"):
            gates = [s[..., : 2 * HIDDEN].mean((0, 1)) for s in sums]
            check_sums(graph, result, f"{case}:gates", np.concatenate(gates))
            check_sums(graph, result, f"{case}:candidate", np.concatenate(new))
        if case == "RNN":
            check_sums(graph, result, case, np.concatenate([s.mean((0, 1)) for s in sums]))
        else:  # what the gates of the last step make of cells and states
            check_sums(graph, result, case, states.mean((0, 2)).ravel())


KNOWN = ("x_1", "x_3", "coded", "plain", "larger")


def test_quantized_weights_looked_up_rows_and_what_is_no_sum(asked):
    net = Net(opset=18)
    x = net.input(2, 6)
    codes, scale, zero = net.ops("DynamicQuantizeLinear", 3, x)
    weights = RNG.integers(-100, 100, (6, 3)).astype(np.int8)
    product = net.op("MatMulInteger", codes, net.value(weights), zero, net.value(np.int8(3)), name="coded")
    scaled = net.op("Mul", net.op("Cast", product, to=1), scale)
    other = net.op("MatMul", x, net.param(6, 3), name="plain")
    net.output(net.op("Max", scaled, other, name="larger"))
    table = net.random(5, 3)
    ids = net.input(2, 4, dtype=np.int64)
    looked = net.op("Gather", net.value(table), ids, name="rows")
    net.output(net.op("Add", looked, net.param(4, 3)))  # by position: no bias of the rows
    data = RNG.standard_normal((4, 6)).astype(np.float32)
    for given in net.inputs:
        given.type.tensor_type.shape.dim[0].dim_param = "n"
    chosen = RNG.integers(0, 5, (4, 4))
    graph, result = asked(net, {x: data, ids: chosen})
    (looked_up,) = (name for name in graph.layers["name"] if name not in KNOWN and ":" not in name)
    check_sums(graph, result, looked_up, table[chosen].mean((0, 1)))
    found = [tensors(net, {x: one[None], ids: chosen[:1]}, product)[0] for one in data]
    check_sums(graph, result, "coded", np.mean(found, axis=(0, 1)))
    assert result.left_out == {"larger": "Max of activations is neither a sum nor a product"}


def test_the_strongest_edges_of_some_units(asked):
    net, x, _ = attention_net()
    data = RNG.standard_normal((2, 4, 5)).astype(np.float32)
    graph, everything = asked(net, {x: data})
    _, few = asked(net, {x: data}, top=2, units="layer = 'mix' AND position < 3")
    whole = of_layer(graph, everything, "mix").filter(pl.col("dst") < 3)
    best = whole.filter(pl.col("mean_abs").rank(descending=True).over("dst") <= 2)
    assert of_layer(graph, few, "mix").equals(best)
    assert few.n_targets == 3
    with pytest.raises(UsageError, match="no unit is like that"):
        asked(net, {x: data}, units="position > 99")
