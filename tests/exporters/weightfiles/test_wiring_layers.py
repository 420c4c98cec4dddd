"""Separate layers of weight files: every packing against torch's own results; scales of quantized ones."""

import numpy as np
import pytest

from emergraph.errors import InvalidInputError
from emergraph.exporters.counting import CountingSink
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.wiring import Wire, export_weights, weights_header
from emergraph.graphstore.records import EdgeKind, LayerKind, Role, TracedAs
from emergraph.graphstore.store import open_store

torch = pytest.importorskip("torch")
nn = torch.nn


def test_a_dense_layer(wiring, wired):
    layer = nn.Linear(3, 2)
    sink, summary = wired(nn.Sequential(layer))
    assert [(entry.name, entry.kind, entry.n_units) for entry in sink.layers] == [
        ("0:in", LayerKind.INPUT, 3),
        ("0", LayerKind.DENSE, 2),
    ]
    assert [columns.role for columns in sink.units] == [Role.INPUT, Role.OUTPUT]
    np.testing.assert_array_equal(sink.dense("0", "0:in"), wiring.array(layer.weight).T)
    np.testing.assert_array_equal(sink.columns("0").bias, wiring.array(layer.bias))
    assert sink.tensors["0.weight"].block is not None
    assert (summary.n_parameters, summary.n_parameters_understood, summary.coverage) == (8, 8, 1.0)
    assert summary.joins == ()
    assert "stands alone" in summary.warnings[0]


def test_layers_stand_alone(wired):
    sink, summary = wired(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    assert [layer.n_units for layer in sink.layers] == [3, 4, 4, 2]
    assert [layer.depth for layer in sink.layers] == [0, 1, 0, 1]
    assert summary.n_edges == 20


def test_zeros_are_no_edges_but_come_back(wired):
    layer = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.weight[1, 1] = -0.0
    _, summary = wired(nn.Sequential(layer))
    assert summary.n_edges == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_element_types(wired, dtype):
    values = torch.tensor([[0.5, -1.0, 2.0], [0.0, 1.5, -0.25]], dtype=torch.float32).to(dtype)
    sink, summary = wired({"a.weight": values})
    assert summary.n_edges == 5
    np.testing.assert_array_equal(sink.dense("a", "a:in"), values.to(torch.float32).numpy().T)
    held = sink.tensors["a.weight"].block is not None
    assert held == (dtype is not torch.float64)
    assert sink.layer("a").dtype == str(dtype).removeprefix("torch.")


def test_values_that_are_not_finite_are_kept_raw_where_bits_could_change(wired):
    values = torch.tensor([[float("nan"), 1.0]])
    sink, _ = wired({"a.weight": values, "b.weight": values.to(torch.float16)})
    assert sink.tensors["a.weight"].block is not None
    assert sink.tensors["b.weight"].data is not None
    assert sink.tensors["b.weight"].n_nonfinite == 1


def test_a_convolution(wiring, wired):
    layer = nn.Conv2d(3, 4, (2, 3))
    sink, _ = wired(nn.Sequential(layer))
    weight = wiring.array(layer.weight)
    np.testing.assert_allclose(sink.dense("0", "0:in"), weight.sum((2, 3)).T)
    _, _, _, kernels = sink.matrices[0]
    np.testing.assert_allclose(kernels.l1, np.abs(weight).sum((2, 3)).T)
    np.testing.assert_allclose(kernels.l2, np.sqrt((weight**2).sum((2, 3))).T)
    np.testing.assert_allclose(kernels.max_abs, np.abs(weight).max((2, 3)).T)
    assert np.all(kernels.n_params == 6)
    assert sink.layer("0").op == "Conv"


def test_a_transposed_convolution(wiring, wired):
    layer = nn.ConvTranspose2d(3, 5, 2)
    sink, _ = wired(nn.Sequential(layer))
    assert sink.layer("0").op == "ConvTranspose"
    np.testing.assert_allclose(sink.dense("0", "0:in"), wiring.array(layer.weight).sum((2, 3)))


def test_a_depthwise_convolution_by_name(wiring, wired):
    layer = nn.Conv1d(4, 4, 3, groups=4)
    sink, summary = wired({"block.dw.weight": layer.weight, "block.dw.bias": layer.bias})
    np.testing.assert_allclose(
        sink.dense("block.dw", "block.dw:in"), np.diag(wiring.array(layer.weight).sum(2)[:, 0])
    )
    assert summary.n_edges == 4


def test_an_embedding_is_one_source(wiring, wired):
    table = nn.Embedding(7, 3)
    with torch.no_grad():
        table.weight[2, 1] = 0
    sink, summary = wired({"embed.weight": table.weight})
    assert [(layer.kind, layer.n_units) for layer in sink.layers] == [
        (LayerKind.EMBEDDING, 1),
        (LayerKind.DENSE, 3),
    ]
    assert summary.n_edges == 3
    _, _, weights, kernels = sink.matrices[0]
    values = wiring.array(table.weight)
    np.testing.assert_allclose(weights, values.sum(0)[None])
    np.testing.assert_allclose(kernels.l2, np.sqrt((values**2).sum(0))[None])
    assert kernels.n_params.tolist() == [[7, 6, 7]]
    assert sink.operations[0].traced_as is TracedAs.EMBEDDED


def test_tied_head(wired):
    table = nn.Embedding(7, 3)
    sink, summary = wired({"wte.weight": table.weight, "lm_head.weight": table.weight})
    assert summary.n_parameters == 21
    assert summary.n_edges == 3 + 21
    head = sink.blocks[1]
    assert (head.tensor, head.shared_with) == ("wte.weight", 0)
    assert "tied with wte.weight" in head.note
    assert sink.tensors["wte.weight"].block == 1


def test_packed_attention_reads_one_input(wiring, wired):
    layer = nn.MultiheadAttention(6, 2)
    sink, _ = wired(layer)
    names = [entry.name for entry in sink.layers]
    assert names == ["in_proj:in", "in_proj:q", "in_proj:k", "in_proj:v", "out_proj:in", "out_proj"]
    for index, part in enumerate("qkv"):
        rows = slice(6 * index, 6 * index + 6)
        np.testing.assert_array_equal(
            sink.dense(f"in_proj:{part}", "in_proj:in"), wiring.array(layer.in_proj_weight[rows]).T
        )
        np.testing.assert_array_equal(
            sink.columns(f"in_proj:{part}").bias, wiring.array(layer.in_proj_bias[rows])
        )


def test_weights_with_inputs_first(wiring, wired):
    """Hugging Face's Conv1D; a square one is told by its namesake in another layer."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"attn.c_attn": (4, 12), "attn.c_proj": (4, 4), "mlp.c_fc": (4, 16), "mlp.c_proj": (16, 4)}
    state = {}
    for name, shape in shapes.items():
        state[f"h.0.{name}.weight"] = torch.randn(shape, generator=generator)
        state[f"h.0.{name}.bias"] = torch.randn(shape[1], generator=generator)
    sink, _ = wired(state)
    for name in ("attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
        weight = wiring.array(state[f"h.0.{name}.weight"])
        np.testing.assert_array_equal(sink.dense(f"h.0.{name}", f"h.0.{name}:in"), weight)
        assert not sink.tensors[f"h.0.{name}.weight"].block_transposed
    packed = wiring.array(state["h.0.attn.c_attn.weight"])
    np.testing.assert_array_equal(sink.dense("h.0.attn.c_attn:k", "h.0.attn.c_attn:in"), packed[:, 4:8])


def test_a_square_layer_alone_is_outputs_first(wiring, wired):
    layer = nn.Linear(4, 4)
    sink, _ = wired({"proj.weight": layer.weight, "proj.bias": layer.bias})
    np.testing.assert_array_equal(sink.dense("proj", "proj:in"), wiring.array(layer.weight).T)


def test_flax_kernels(wiring, wired):
    state = {"d.kernel": torch.randn(3, 5), "d.bias": torch.randn(5), "c.kernel": torch.randn(2, 2, 3, 5)}
    sink, _ = wired(state)
    np.testing.assert_array_equal(sink.dense("d", "d:in"), wiring.array(state["d.kernel"]))
    np.testing.assert_allclose(
        sink.dense("c", "c:in"), wiring.array(state["c.kernel"]).sum((0, 1)), rtol=1e-6
    )


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


@pytest.mark.parametrize("cell", [False, True], ids=["layer", "cell"])
def test_lstm_gates_equal_torch(wiring, wired, cell):
    """One step worked out from the graph alone is torch's step: the gates are i, f, g, o."""
    torch.manual_seed(1)
    module = nn.LSTMCell(3, 4) if cell else nn.LSTM(3, 4)
    sink, _ = wired(module)
    name = "weights" if cell else "l0"
    x, h, c = torch.randn(1, 3), torch.randn(1, 4), torch.randn(1, 4)
    expected = module(x, (h, c)) if cell else module(x[None], (h[None], c[None]))[1]
    into = sink.dense(f"{name}:gates", f"{name}:in")
    again = sink.dense(f"{name}:gates", name, EdgeKind.RECURRENT)
    pre = wiring.array(x)[0] @ into + wiring.array(h)[0] @ again + sink.columns(f"{name}:gates").bias
    i, f, g, o = pre.reshape(4, 4)
    memory = sigmoid(f) * wiring.array(c)[0] + sigmoid(i) * np.tanh(g)
    np.testing.assert_allclose(memory, wiring.array(expected[1]).ravel(), rtol=1e-5)
    np.testing.assert_allclose(sigmoid(o) * np.tanh(memory), wiring.array(expected[0]).ravel(), rtol=1e-5)
    gates = sink.layer(f"{name}:gates").first_unit
    src, dst, _ = sink.into(f"{name}:cell", EdgeKind.GATE)
    assert {((s - gates) // 4, int(d)) for s, d in zip(src, dst, strict=True)} == {
        (k, d) for k in (0, 1, 2) for d in range(4)
    }
    assert sink.into(f"{name}:cell", EdgeKind.RECURRENT)[1].tolist() == [0, 1, 2, 3]
    assert {block.tensor for block in sink.blocks.values() if block.tensor} == {
        f"{prefix}{suffix}" for prefix in ("weight_ih", "weight_hh") for suffix in ("" if cell else "_l0",)
    }


def test_gru_gates_equal_torch(wiring, wired):
    torch.manual_seed(2)
    module = nn.GRU(3, 4)
    sink, _ = wired(module)
    x, h = torch.randn(1, 3), torch.randn(1, 4)
    expected = wiring.array(module(x[None], h[None])[1]).ravel()
    xs, hs = wiring.array(x)[0], wiring.array(h)[0]
    both = xs @ sink.dense("l0:gates", "l0:in") + hs @ sink.dense("l0:gates", "l0", EdgeKind.RECURRENT)
    r, z = sigmoid(both + sink.columns("l0:gates").bias).reshape(2, 4)
    again = hs @ sink.dense("l0:candidate", "l0", EdgeKind.RECURRENT)
    b_hn = wiring.array(module.bias_hh_l0)[8:]
    total = sink.columns("l0:candidate").bias
    n = np.tanh(xs @ sink.dense("l0:candidate", "l0:in") + (total - b_hn) + r * (again + b_hn))
    np.testing.assert_allclose((1 - z) * n + z * hs, expected, rtol=1e-5)
    reset = sink.into("l0:candidate", EdgeKind.GATE)
    np.testing.assert_array_equal(reset[0] - sink.layer("l0:gates").first_unit, np.arange(4))
    update = sink.into("l0", EdgeKind.GATE)[0]
    assert set(update - sink.layer("l0:gates").first_unit) >= set(range(4, 8))


def test_rnn_equals_torch(wiring, wired):
    module = nn.RNN(3, 4)
    sink, _ = wired(module)
    x, h = torch.randn(1, 3), torch.randn(1, 4)
    again = wiring.array(h)[0] @ sink.dense("l0", "l0", EdgeKind.RECURRENT)
    pre = wiring.array(x)[0] @ sink.dense("l0", "l0:in") + again + sink.columns("l0").bias
    np.testing.assert_allclose(np.tanh(pre), wiring.array(module(x[None], h[None])[1]).ravel(), rtol=1e-5)


def test_layers_and_directions_of_a_recurrent_module(wired):
    sink, summary = wired(nn.LSTM(3, 4, num_layers=2, bidirectional=True))
    names = {layer.name for layer in sink.layers if layer.kind is LayerKind.RNN_HIDDEN}
    assert names == {"l0", "l0_reverse", "l1", "l1_reverse"}
    assert sink.layer("l1:in").n_units == 8
    assert summary.coverage == 1.0


def test_recurrent_modules_with_projections_are_not_guessed(wired):
    sink, summary = wired({**nn.LSTM(3, 4, proj_size=2).state_dict(), "out.weight": torch.ones(2, 2)})
    assert [layer.name for layer in sink.layers] == ["out:in", "out"]
    assert summary.n_parameters_understood == 4
    assert any("projections" in op.reason for op in summary.opaque)


def test_normalisations_are_no_units(wired):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LayerNorm(4), nn.Linear(4, 2))
    sink, summary = wired(model)
    assert [layer.name for layer in sink.layers] == ["0:in", "0", "3:in", "3"]
    assert summary.coverage == 1.0
    assert {sink.tensors[f"1.{name}"].role for name in ("weight", "running_var")} == {"scale"}
    assert {sink.tensors[name].role for name in ("1.bias", "1.running_mean", "2.bias")} == {"shift"}
    assert sink.tensors["1.num_batches_tracked"].n_params == 0


def test_parameters_that_nothing_explains_are_kept(wired):
    state = {"cls_token": torch.ones(1, 1, 4), "scale": torch.tensor(2.0), "a.weight": torch.ones(2, 4)}
    sink, summary = wired(state)
    assert summary.n_parameters == 13
    assert summary.n_parameters_understood == 8
    assert not sink.tensors["cls_token"].understood
    assert [op.name for op in summary.opaque] == ["cls_token", "scale"]
    assert [op.traced_as for op in sink.operations if op.name == "cls_token"] == [TracedAs.OPAQUE]


def test_values_that_are_no_weights_are_no_gap(wired):
    state = {"position_ids": torch.arange(4), "_state": torch.zeros(0), "a.weight": torch.ones(2, 4)}
    sink, summary = wired(state)
    assert (summary.opaque, summary.coverage) == ((), 1.0)
    assert summary.n_operations_understood == summary.n_operations == 3
    traced = {op.name: op.traced_as for op in sink.operations}
    assert traced["position_ids"] is traced["_state"] is TracedAs.CONSTANT


def test_nothing_recognised(tmp_path):
    torch.save({"a": torch.ones(3, 3)}, tmp_path / "m.pt")
    with pytest.raises(InvalidInputError, match="no tensor is recognised"):
        export_weights(read_weights(tmp_path / "m.pt"), CountingSink())


@pytest.mark.parametrize(
    ("weight", "scale"),
    [("a.weight.qweight", "a.weight.scale"), ("a.weight", "a.weight_scale"), ("a.weight", "a.scale")],
)
def test_integers_with_scales(wired, weight, scale):
    q = torch.tensor([[1, 0, -2], [3, 4, 0]], dtype=torch.int8)
    s = torch.tensor([[0.5], [2.0]])
    sink, summary = wired({weight: q, scale: s})
    np.testing.assert_array_equal(sink.dense("a", "a:in"), (q.to(torch.float64) * s).numpy().T)
    assert summary.n_edges == 4
    assert sink.tensors[weight].role == "weight"
    assert sink.tensors[weight].n_zeros == 2
    assert sink.tensors[scale].role == "quantization"
    assert summary.coverage == 1.0


def test_eight_bit_floats_with_scales(wired):
    q = torch.tensor([[1.5, -2.0]]).to(torch.float8_e4m3fn)
    sink, _ = wired({"a.weight": q, "a.weight_scale": torch.tensor(0.5)})
    np.testing.assert_array_equal(sink.dense("a", "a:in"), [[0.75], [-1.0]])


def test_integers_whose_scale_does_not_fit_are_not_understood(wired):
    q = torch.ones(2, 3, dtype=torch.int8)
    sink, summary = wired({"a.weight": q, "a.weight_scale": torch.ones(5), "b.weight": torch.ones(2, 3)})
    ((name, reason),) = [(op.name, op.reason) for op in summary.opaque]
    assert (name, "scales of shape (5,)" in reason) == ("a", True)
    assert (summary.n_parameters, summary.n_parameters_understood) == (12, 6)
    assert not sink.tensors["a.weight"].understood


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization.*", "ignore::UserWarning")
def test_quantized_tensors_of_torch(wired):
    values = torch.tensor([[0.5, -1.0, 0.0], [2.0, 4.0, 1.0]])
    scales, zeros = torch.tensor([0.5, 1.0]), torch.tensor([0, 2])
    quantized = torch.quantize_per_channel(values, scales, zeros, 0, torch.qint8)
    sink, _ = wired({"a.weight": quantized})
    np.testing.assert_array_equal(sink.dense("a", "a:in"), quantized.dequantize().numpy().T)


def test_the_store_restores_every_tensor(wiring, tmp_path):
    """From DuckDB alone: raw parts, or the edges of a block, signs of zeros included."""
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.Flatten(), nn.Linear(6, 4), nn.Linear(4, 2)
    )
    with torch.no_grad():
        model[3].weight[0, 0] = 0.0
        model[4].weight[1, 2] = -0.0
    torch.save(model.state_dict(), tmp_path / "m.pt")
    weights = read_weights(tmp_path / "m.pt")
    header = weights_header(weights, wire=Wire.SEQUENTIAL)
    assert (header.name, header.source, header.wiring, header.format) == (
        "m",
        "m.pt",
        "inferred",
        "state_dict",
    )
    with open_store(tmp_path / "s.duckdb", mode="create") as store, store.write_graph(header) as writer:
        summary = export_weights(weights, writer, wire=Wire.SEQUENTIAL)
        graph = writer.finish(summary.footer())
    with open_store(tmp_path / "s.duckdb", mode="read") as store:
        reader = store.graph(graph)
        assert reader.summary["wiring"] == "inferred"
        assert reader.edges().height == summary.n_edges
        wiring.assert_restored(reader, weights)


def test_header_names_what_is_tied(tmp_path):
    weight = torch.randn(4, 4)
    torch.save({"a.weight": weight, "b.weight": weight}, tmp_path / "m.pt")
    header = weights_header(read_weights(tmp_path / "m.pt"), name="tied")
    assert header.settings == {"wire": "none", "tied": {"b.weight": "a.weight"}}
    assert (header.name, header.wiring) == ("tied", "none")
