"""Low-rank adapters, in the names that peft gives them."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")


def pair(rank=2, inputs=5, outputs=4, *, kernel=()):
    torch.manual_seed(0)
    ones = (1,) * len(kernel)
    return torch.randn(rank, inputs, *kernel), torch.randn(outputs, rank, *ones)


@pytest.fixture
def settings(tmp_path):
    def write(**given):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 8, **given}))

    return write


NAMES = {
    "q.base_layer.weight": ("q.lora_A.default.weight", "q.lora_B.default.weight"),
    "q.weight": ("q.lora_A.weight", "q.lora_B.weight"),
}


@pytest.mark.parametrize("base", NAMES)
@pytest.mark.parametrize(
    ("given", "factor"),
    [
        ({}, 4.0),
        ({"use_rslora": True}, 8 / 2**0.5),
        ({"alpha_pattern": {"q": 6}}, 3.0),
        ({"alpha_pattern": {"other": 6}}, 4.0),
    ],
)
def test_merged(base, given, factor, wired, settings):
    settings(**given)
    down, up = pair()
    weight = torch.randn(4, 5)
    bias = {base.replace("weight", "bias"): torch.ones(4)}
    sink, summary = wired({base: weight, **bias, NAMES[base][0]: down, NAMES[base][1]: up})
    expected = (weight + factor * up @ down).numpy().T
    np.testing.assert_allclose(sink.dense("q", "q:in"), expected, rtol=1e-5, atol=1e-6)
    assert [layer.name for layer in sink.layers] == ["q:in", "q"]
    assert summary.n_parameters == sink.layer("q").n_params == 20 + 4 + 10 + 8
    assert summary.coverage == 1.0


def test_merged_into_an_embedding_and_a_weight_that_is_turned(wired, settings):
    settings(fan_in_fan_out=True)
    down, up = pair()
    table_down, table_up = pair(inputs=7, outputs=3)
    state = {
        "embed_tokens.weight": torch.randn(7, 3),
        "embed_tokens.lora_embedding_A": table_down,
        "embed_tokens.lora_embedding_B": table_up,
        "c.weight": torch.randn(5, 4),
        "c.bias": torch.ones(4),
        "c.lora_A.weight": down,
        "c.lora_B.weight": up,
    }
    sink, _ = wired(state)
    expected = (state["c.weight"] + 4 * (up @ down).T).numpy()
    np.testing.assert_allclose(sink.dense("c", "c:in"), expected, rtol=1e-5, atol=1e-6)
    table = (state["embed_tokens.weight"] + 4 * (table_up @ table_down).T).numpy()
    found = sink.dense("embed_tokens", "embed_tokens:table")
    np.testing.assert_allclose(found, table.sum(0)[None], rtol=1e-4, atol=1e-5)


def test_merged_into_a_convolution(wired, settings):
    settings()
    down, up = pair(kernel=(3, 3))
    weight = torch.randn(4, 5, 3, 3)
    sink, _ = wired({"c.weight": weight, "c.lora_A.weight": down, "c.lora_B.weight": up})
    change = torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    expected = (weight + 4 * change).sum((2, 3)).numpy().T
    np.testing.assert_allclose(sink.dense("c", "c:in"), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [None, {"lora_alpha": "x"}, {"alpha_pattern": {"(q|k)+": 3}}])
def test_without_alpha_they_are_layers_of_their_own(config, wired, settings):
    """The first matrix feeds the second; the weight beside them is as it is stored."""
    if config is not None:
        settings(**config)
    down, up = pair()
    weight = torch.randn(4, 5)
    sink, summary = wired({"q.weight": weight, "q.lora_B.weight": up, "q.lora_A.weight": down})
    np.testing.assert_array_equal(sink.dense("q", "q:in"), weight.numpy().T)
    np.testing.assert_array_equal(sink.dense("q.lora_A", "q.lora_A:in"), down.numpy().T)
    np.testing.assert_array_equal(sink.dense("q.lora_B", "q.lora_A"), up.numpy().T)
    assert summary.coverage == 1.0


def test_an_adapter_without_its_base(wired, settings):
    settings()
    down, up = pair()
    table_down, table_up = pair(inputs=7, outputs=3)
    state = {
        "base_model.model.q.lora_A.weight": down,
        "base_model.model.q.lora_B.weight": up,
        "base_model.model.embed_tokens.lora_embedding_A": table_down,
        "base_model.model.embed_tokens.lora_embedding_B": table_up,
    }
    sink, summary = wired(state)
    assert summary.coverage == 1.0
    start = "base_model.model."
    np.testing.assert_array_equal(sink.dense(f"{start}q.lora_B", f"{start}q.lora_A"), up.numpy().T)
    first, second = f"{start}embed_tokens.lora_embedding_A", f"{start}embed_tokens.lora_embedding_B"
    np.testing.assert_allclose(sink.dense(first, f"{first}:table"), table_down.sum(1)[None], rtol=1e-5)
    np.testing.assert_array_equal(sink.dense(second, first), table_up.numpy().T)


def test_two_adapters_are_not_merged(wired, settings):
    settings()
    down, up = pair()
    state = {"q.base_layer.weight": torch.randn(4, 5)}
    for name in ("one", "two"):
        state |= {f"q.lora_A.{name}.weight": down, f"q.lora_B.{name}.weight": up}
    sink, _ = wired(state)
    np.testing.assert_array_equal(sink.dense("q", "q:in"), state["q.base_layer.weight"].numpy().T)
    np.testing.assert_array_equal(sink.dense("q.lora_B.two", "q.lora_A.two"), up.numpy().T)


def test_dora_is_named(wired, settings):
    settings(use_dora=True)
    down, up = pair()
    state = {
        "q.base_layer.weight": torch.randn(4, 5),
        "q.lora_A.default.weight": down,
        "q.lora_B.default.weight": up,
        "q.lora_magnitude_vector.default.weight": torch.ones(4),
        "b.weight": torch.ones(2, 3),
    }
    sink, summary = wired(state)
    ((name, reason),) = [(op.name, op.reason) for op in summary.opaque]
    assert (name, "DoRA" in reason) == ("q", True)
    assert [layer.name for layer in sink.layers] == ["b:in", "b"]
    assert summary.n_parameters_understood == 6


def test_an_adapter_of_packed_weights(wiring, tmp_path, settings):
    """Four-bit weights with an adapter: the sum of what both stand for."""
    safetensors = pytest.importorskip("safetensors.torch")
    from pathlib import Path

    from emergraph.exporters.weightfiles.reader import read_weights
    from emergraph.exporters.weightfiles.wiring import export_weights

    settings()
    case = Path(__file__).parent / "vectors" / "bitsandbytes_nf4"
    stored = safetensors.load_file(case / "model.safetensors")
    down, up = pair(inputs=64, outputs=16)
    stored |= {"layer.lora_A.weight": down, "layer.lora_B.weight": up}
    safetensors.save_file(stored, tmp_path / "m.safetensors")
    sink = wiring.Recorder()
    summary = export_weights(read_weights(tmp_path / "m.safetensors"), sink)
    expected = np.load(case / "expected.npz")["weight"] + 4 * (up @ down).numpy()
    np.testing.assert_allclose(sink.dense("layer", "layer:in"), expected.T, rtol=1e-4, atol=1e-5)
    assert summary.coverage == 1.0
