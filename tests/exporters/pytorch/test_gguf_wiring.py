"""GGUF files wired as transformers has their networks: names, settings and values, bit for bit."""

import gguf
import numpy as np
import pytest
import torch
import transformers
from ggufmodels import FAMILIES, tiny, write_gguf
from graphcontents import graph_of
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

import emergraph
from emergraph.errors import InvalidInputError
from emergraph.exporters.pytorch import wiredfolders
from emergraph.exporters.pytorch.emptymodel import empty_model
from emergraph.exporters.pytorch.huggingface import named_model
from emergraph.exporters.pytorch.wiredfolders import fitting
from emergraph.exporters.weightfiles.gguf.architectures import ARCHITECTURES, described
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.recipes import values_of
from emergraph.exporters.weightfiles.wiring_parameters import parameters

Q8 = gguf.GGMLQuantizationType.Q8_0
NO_TWIN = frozenset({"mixtral"})
"""Families that transformers does not read from GGUF."""


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """The child's work without the child: a second for each."""
    monkeypatch.setattr(
        wiredfolders, "call_offline", lambda function, *arguments, limits=None: function(*arguments)
    )


def read(path):
    """The settings of a file, and the parameters of the module by name."""
    weights = read_weights(path)
    network, found = described(weights), parameters(weights)
    model = empty_model(named_model(dict(network.settings), "m.gguf").build)
    recipes = fitting(model, network.recipes(list(model.state_dict())), found)
    return network.settings, {name: values_of(made, found) for name, made in recipes.items()}, model


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_come_back_as_the_module_has_them(tmp_path, family):
    """What the converter did to values is taken back, to the last bit."""
    model = tiny(family)
    _, found, module = read(write_gguf(tmp_path / "m.gguf", model, family))
    expected = dict(model.named_parameters())
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert found.keys() >= expected.keys() - tied
    for name, value in expected.items():
        exact = not family.startswith(("gemma", "nemotron")) or not name.endswith("norm.weight")
        same = np.array_equal if exact else np.allclose  # one added and taken away again rounds
        assert same(found[name], value.detach().numpy()), name
    assert type(module) is type(model)
    theirs, ours = model.config.to_dict(), module.config.to_dict()
    if family == "mixtral":  # the default of another base, which the file says
        assert ours["rope_parameters"]["rope_theta"] == 1e6
    sizes = {key for key in (*FAMILIES[family][1], "rope_parameters", "tie_word_embeddings") if key in theirs}
    assert {key: ours[key] for key in sizes} == {key: theirs[key] for key in sizes}


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in NO_TWIN])
def test_the_twin_reads_the_same(tmp_path, family):
    """transformers' own reader of GGUF gives the same bits, of packed values too, and the same settings."""
    path = write_gguf(tmp_path / "m.gguf", tiny(family), family, quantized=Q8)
    settings, found, module = read(path)
    twin = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=module)
    theirs = {name: value.numpy() for name, value in twin["tensors"].items()}
    assert theirs.keys() == found.keys()
    for name, value in theirs.items():
        assert value.tobytes() == found[name].tobytes(), name
    same = settings.keys() & twin["config"].keys() - {"architectures"}
    assert {key: settings[key] for key in same} == {key: twin["config"][key] for key in same}
    assert len(same) >= 5


def as_read(path, model):
    """A module with the values of a file."""
    _, found, module = read(path)
    full = type(model)(module.config).eval()
    tied = {"lm_head.weight"} if full.config.tie_word_embeddings else set()
    missing, extra = full.load_state_dict(
        {name: torch.from_numpy(value.copy()) for name, value in found.items()}, strict=False
    )
    assert not extra
    assert not {name for name, _ in full.named_parameters()} & set(missing) - tied
    return full


@pytest.mark.parametrize(
    "family",
    [
        "llama",
        *(
            pytest.param(name, marks=pytest.mark.families)
            for name in ("mixtral", "gemma3", "gpt2", "qwen3", "bloom")
        ),
    ],
)
def test_the_graph_is_that_of_the_module(tmp_path, family, monkeypatch):
    """The graph of a file, whose weights are never loaded, and that of the module with equal weights."""
    monkeypatch.setattr(
        wiredfolders.capture_wired,
        "__kwdefaults__",
        {**wiredfolders.capture_wired.__kwdefaults__, "compared": 0},
    )
    path = write_gguf(tmp_path / "m.gguf", tiny(family), family, quantized=Q8)
    emergraph.export(path, tmp_path / "a.duckdb")
    ids = torch.arange(6).reshape(1, -1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    module = as_read(path, tiny(family))
    module.config.use_cache = False
    emergraph.export(module, tmp_path / "b.duckdb", kwargs=inputs)
    assert graph_of(tmp_path / "a.duckdb") == graph_of(tmp_path / "b.duckdb")
    row = (
        emergraph.open(tmp_path / "a.duckdb").sql("SELECT format, wiring, sha256, source FROM graphs").row(0)
    )
    assert row == ("gguf", "declared", read_weights(path).sha256, "m.gguf")


def test_a_packed_file_differs_from_its_origin_by_what_packing_took(tmp_path):
    """Of the weights: the lowest number, which masks hold, is none of them."""
    model = tiny("llama")
    ids = torch.arange(6).reshape(1, -1)
    model.config.use_cache = False
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    origin = emergraph.export(model, tmp_path / "a.duckdb", kwargs=inputs)
    path = write_gguf(tmp_path / "m.gguf", model, "llama", quantized=Q8)
    packed = emergraph.export(path, tmp_path / "b.duckdb")
    change = packed.diff(origin, match_units=False).relative_change
    assert 1e-3 < change < 1e-2


def test_a_file_of_rows_that_are_not_turned_back_is_another_network(tmp_path):
    """The oracle can say no: rotary rows as the file has them do not give the module's outputs."""
    model = tiny("llama")
    path = write_gguf(tmp_path / "m.gguf", model, "llama")
    ids = torch.arange(6).reshape(1, -1)
    right = as_read(path, model)
    wrong = as_read(path, model)
    stored = parameters(read_weights(path))
    with torch.no_grad():
        wrong.model.layers[0].self_attn.q_proj.weight.copy_(
            torch.from_numpy(stored["blk.0.attn_q.weight"].floats().copy())
        )
        expected = model(ids).logits
        assert torch.allclose(right(ids).logits, expected, atol=1e-5)
        assert not torch.allclose(wrong(ids).logits, expected, atol=1e-2)


def sizes_of(length):
    """Settings of a llama of this width."""

    def add(writer):
        writer.add_block_count(1)
        writer.add_embedding_length(length)
        writer.add_head_count(2)
        writer.add_feed_forward_length(length)

    return add


def toy(path, arch="llama", entries=lambda writer: None, tensors=None):
    writer = gguf.GGUFWriter(path, arch)
    entries(writer)
    for name, array in (tensors or {"token_embd.weight": np.ones((8, 4), np.float32)}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("entries", "arch", "message"),
    [
        (
            lambda writer: None,
            "rwkv7",
            r"unknown architecture of a GGUF file 'rwkv7'; .*; use --wire none",
        ),
        (lambda writer: None, "llama", r"llama.block_count is None; expected a whole number from 1 to 1"),
        (lambda writer: writer.add_block_count(2**31), "llama", r"llama.block_count is 2147483648; expected"),
        (
            lambda writer: (writer.add_block_count(1), writer.add_string("llama.embedding_length", "wide")),
            "llama",
            r"llama.embedding_length is wide; expected one number",
        ),
        (
            lambda writer: (
                writer.add_block_count(1),
                writer.add_array("llama.rope.freq_base", [1, 2]),
            ),
            "llama",
            r"llama.rope.freq_base is 2 values that differ; expected one number",
        ),
        (
            sizes_of(4),
            "llama",
            r"m.gguf does not fit LlamaForCausalLM: it lacks model.layers.0.* more; use --wire none",
        ),
        (
            sizes_of(2**31),
            "llama",
            r"m.gguf does not build a LlamaForCausalLM: ",
        ),
    ],
)
def test_what_cannot_be_wired_is_refused_by_name(tmp_path, entries, arch, message):
    path = toy(tmp_path / "m.gguf", arch, entries)
    with pytest.raises(InvalidInputError, match=message):
        emergraph.export(path, tmp_path / "a.duckdb")


def test_every_architecture_is_a_class_of_transformers():
    """And all of them are among the families that are tried here."""
    assert ARCHITECTURES.keys() == FAMILIES.keys() - {"mixtral"}
    for known in ARCHITECTURES.values():
        assert getattr(transformers, known.model).config_class is transformers.CONFIG_MAPPING[known.kind]
