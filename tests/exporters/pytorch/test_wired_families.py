"""Folders traced without their weights: the same graph as that of the module itself, for ten families."""

import json

import pytest
import torch
import transformers as t
from graphcontents import graph_of
from safetensors.torch import load_file, save_file

import emergraph
from emergraph.errors import EmergraphError
from emergraph.exporters.pytorch import wiredfolders
from emergraph.exporters.pytorch.emptymodel import _SMALL, empty_model
from emergraph.exporters.pytorch.huggingface import example_inputs
from emergraph.exporters.wiring import wired_model

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_EDGE = {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
_HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
_DEPTH = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}

FAMILIES = {
    "llama": (t.LlamaForCausalLM, t.LlamaConfig, _GROUPED),
    "qwen": (t.Qwen3ForCausalLM, t.Qwen3Config, {**_GROUPED, "head_dim": 8, "tie_word_embeddings": True}),
    "gemma": (t.Gemma3ForCausalLM, t.Gemma3TextConfig, {**_GROUPED, "head_dim": 8}),
    "mixtral": (t.MixtralForCausalLM, t.MixtralConfig, {**_GROUPED, "num_local_experts": 4}),
    "gpt2": (
        t.GPT2LMHeadModel,
        t.GPT2Config,
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64, "n_positions": 32, **_EDGE},
    ),
    "bert": (t.BertForSequenceClassification, t.BertConfig, _SIZES),
    "vit": (t.ViTForImageClassification, t.ViTConfig, {**_SIZES, "image_size": 16, "patch_size": 8}),
    "whisper": (
        t.WhisperForConditionalGeneration,
        t.WhisperConfig,
        {
            "vocab_size": 64,
            "d_model": 32,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "max_target_positions": 16,
            **_HEADS,
            **_DEPTH,
            **_EDGE,
        },
    ),
    "t5": (
        t.T5ForConditionalGeneration,
        t.T5Config,
        {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4},
    ),
    "mobilenet": (
        t.MobileNetV2ForImageClassification,
        t.MobileNetV2Config,
        {"image_size": 32, "depth_multiplier": 0.1, "num_labels": 4},
    ),
}
IN_EVERY_RUN = ("llama", "mixtral")
"""The others take 3 s each."""


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """The child's work without the child."""
    monkeypatch.setattr(
        wiredfolders, "call_offline", lambda function, *arguments, limits=None: function(*arguments)
    )


@pytest.fixture
def never_filled(monkeypatch):
    """As for a model that is too large to be run."""
    defaults = wiredfolders.capture_wired.__kwdefaults__
    monkeypatch.setattr(wiredfolders.capture_wired, "__kwdefaults__", {**defaults, "compared": 0})


def saved(folder, family):
    """A folder as transformers writes it, and its model."""
    model_class, config_class, sizes = FAMILIES[family]
    torch.manual_seed(0)
    model = model_class(config_class(**sizes)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "family",
    [name if name in IN_EVERY_RUN else pytest.param(name, marks=pytest.mark.families) for name in FAMILIES],
)
def test_the_graph_is_that_of_the_module(tmp_path, family, never_filled):
    """Every layer, edge, weight, tensor and operation."""
    model = saved(tmp_path / family, family)
    emergraph.export(tmp_path / family, tmp_path / "a.duckdb")
    model.config.use_cache = False
    emergraph.export(model, tmp_path / "b.duckdb", kwargs=example_inputs(model, ""))
    assert graph_of(tmp_path / "a.duckdb") == graph_of(tmp_path / "b.duckdb")


def test_large_parameters_hold_nothing_and_buffers_are_computed():
    """What a meta device loses: rotary frequencies, and the scale of an embedding."""
    config = t.Gemma3TextConfig(**{**_GROUPED, "vocab_size": 4096, "head_dim": 8})
    empty, real = empty_model(lambda: t.Gemma3ForCausalLM(config)), t.Gemma3ForCausalLM(config)
    table = empty.model.embed_tokens
    assert table.weight.numel() > _SMALL
    assert not table.weight.any()
    assert empty.lm_head.weight is table.weight
    ours, theirs = dict(empty.named_buffers()), dict(real.named_buffers())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert float(table.embed_scale) == pytest.approx(32**0.5)


def test_a_parameter_made_in_another_way_holds_nothing_either():
    """And one that is registered twice stays one."""

    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.large = torch.nn.Parameter(torch.ones(_SMALL + 1))
            self.small = torch.nn.Parameter(torch.ones(_SMALL))
            self.again = self.large
            self.register_buffer("buffer", torch.ones(_SMALL + 1))

    odd = empty_model(Odd)
    assert not odd.large.any()
    assert odd.again is odd.large
    assert odd.small.all()
    assert odd.buffer.all()


def test_a_small_module_is_compared_with_its_export(tmp_path, monkeypatch):
    """What torch exports wrongly is refused, as for any module."""
    saved(tmp_path / "llama", "llama")
    true = wiredfolders.outputs_of
    monkeypatch.setattr(wiredfolders, "outputs_of", lambda *args: [array + 1 for array in true(*args)])
    with pytest.raises(EmergraphError, match="computes something else: output 0 differs by"):
        emergraph.export(tmp_path / "llama", tmp_path / "a.duckdb")


def test_the_model_says_what_it_is_made_of(tmp_path, never_filled):
    """Parameters are initializers with the values of the file; another configuration is another model."""
    model = saved(tmp_path / "mixtral", "mixtral")
    with wired_model(tmp_path / "mixtral") as wired:
        arrays = {proto.name: wired.model.array(proto) for proto in wired.model.model.graph.initializer}
        for name, value in model.named_parameters():
            assert (arrays[name] == value.detach().numpy()).all(), name
        first = wired.model.sha256
        assert wired.model.withheld == dict(model.named_parameters()).keys()
        assert not wired.model.withheld & {proto.name for proto in wired.model.file.model.graph.initializer}
    config = json.loads((tmp_path / "mixtral/config.json").read_text())
    (tmp_path / "mixtral/config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with wired_model(tmp_path / "mixtral") as wired:
        assert wired.model.sha256 != first


def test_tensors_that_are_not_of_the_module_are_named(tmp_path, never_filled):
    """And those that it lacks are an error."""
    saved(tmp_path / "llama", "llama")
    path = tmp_path / "llama/model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "extra": torch.ones(2)}, path)
    emergraph.export(tmp_path / "llama", tmp_path / "a.duckdb")
    (warnings,) = emergraph.open(tmp_path / "a.duckdb").sql("SELECT warnings FROM graphs").row(0)
    assert "LlamaForCausalLM does not use extra of model.safetensors" in warnings
    del tensors["model.norm.weight"]
    save_file(tensors, path)
    with pytest.raises(EmergraphError, match=r"lacks model\.norm\.weight"):
        emergraph.export(tmp_path / "llama", tmp_path / "b.duckdb")
