"""Models of transformers export whichever way they compute attention and experts, and keep their way."""

import contextlib

import pytest
import torch

from emergraph.exporters.pytorch.modules import capture, capture_folder
from emergraph.exporters.pytorch.written_out import written_out
from emergraph.exporters.sources import export_module
from emergraph.graphstore.store import open_store

transformers = pytest.importorskip("transformers")

TOKENS = torch.tensor([[3, 5, 7, 2]])
MOE = {"num_local_experts": 3, "num_experts_per_tok": 2, "num_key_value_heads": 1, "head_dim": 4}


def t5():
    config = transformers.T5Config(d_model=8, d_kv=4, d_ff=12, num_heads=2, num_layers=1, vocab_size=20)
    return transformers.T5Model(config), {"input_ids": TOKENS, "decoder_input_ids": TOKENS}


def mixtral():
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.MixtralConfig(vocab_size=20, **sizes, **MOE)
    return transformers.MixtralModel(config), {"input_ids": TOKENS}


def ways(module):
    configs = [part.config for part in module.modules() if hasattr(part, "config")]
    return [(c._attn_implementation, c._experts_implementation, c.use_cache) for c in configs]


@pytest.mark.parametrize("made", [t5, mixtral])
def test_a_module_exports_and_keeps_its_way(made, tmp_path, quiet):
    torch.manual_seed(0)
    with quiet():
        module, inputs = made()
    before = ways(module)
    assert ("eager", "batched_mm", False) not in before
    capture(module, (), tmp_path / "model.onnx", kwargs=inputs)
    assert ways(module) == before


def test_modules_of_timm_have_the_setting_themselves():
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fused_attn = self.use_cache = True

    module = torch.nn.Sequential(Attention(), torch.nn.Linear(2, 2))
    with written_out(module):
        assert (module[0].fused_attn, module[0].use_cache) == (False, True)
        assert not hasattr(module[1], "fused_attn")
    assert module[0].fused_attn is True


def test_the_way_comes_back_after_an_error(quiet):
    with quiet():
        module, _ = mixtral()
    before = ways(module)
    with contextlib.suppress(ZeroDivisionError), written_out(module):
        assert set(ways(module)) == {("eager", "batched_mm", False)}
        raise ZeroDivisionError
    assert ways(module) == before


def test_routed_experts_of_a_module_and_of_its_folder(tmp_path, quiet):
    torch.manual_seed(0)
    with quiet():
        module, inputs = mixtral()
        module.save_pretrained(tmp_path / "folder")
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        export_module(module, (), store, kwargs=inputs)
        layers = store.graph().layers()
    found = [row for row in layers.select("name", "n_units", "n_params").rows() if ".experts." in row[0]]
    assert sorted(found) == [
        ("layers.0.mlp.experts.down_proj", 8, 288),
        ("layers.0.mlp.experts.gate_up_proj", 24, 576),
    ]
    captured = capture_folder(tmp_path / "folder", tmp_path / "model.onnx").module
    assert (captured.label, captured.unused) == ("MixtralModel", ())
