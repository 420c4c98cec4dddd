"""Folders in Hugging Face's layout: names of an older version of a class, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from emergraph.errors import InvalidInputError, UnsafeInputError
from emergraph.exporters.pytorch.huggingface import load_folder
from emergraph.exporters.pytorch.modules import capture_folder
from emergraph.exporters.weightfiles.reader import read_weights

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1}


@pytest.fixture
def saved(tmp_path, quiet):
    """A vision transformer, and its folder: transformers 5 saves it by names that its class no longer has."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=8, patch_size=4, **SIZES)
    model = transformers.ViTForImageClassification(config)
    with quiet():
        model.save_pretrained(tmp_path)
    return model, tmp_path


def test_older_names_are_found_and_nothing_is_fetched(saved, monkeypatch, capfd):
    model, folder = saved
    capfd.readouterr()
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked the network"))
    loaded, inputs, unused = load_folder(folder, read_weights(folder))
    assert unused == ()
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not loaded.training
    assert inputs["pixel_values"].shape == (1, 3, 8, 8)
    assert capfd.readouterr() == ("", "")


def quantized(folder, *, scaled):
    """Put int8 codes in the place of weights of dense layers, as bitsandbytes does; returns the weights."""
    path, found = folder / "model.safetensors", {}
    tensors = load_file(path)
    for name in [n for n in tensors if n.endswith((".dense.weight", ".query.weight", ".value.weight"))]:
        largest = tensors[name].abs().amax(1)
        codes = (tensors[name] / largest[:, None] * 127).round().to(torch.int8)
        found[name] = codes * largest[:, None] / 127
        tensors[name] = codes
        if scaled:
            tensors[name.replace(".weight", ".SCB")] = largest
    save_file(tensors, path)
    config = json.loads((folder / "config.json").read_text())
    method = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": method}))
    return found


def test_weights_that_a_library_quantized_are_wired_unpacked(saved):
    _, folder = saved
    expected = quantized(folder, scaled=True)
    assert len(expected) >= 4
    loaded, _, unused = load_folder(folder, read_weights(folder))
    assert unused == ()
    values = sorted(loaded.state_dict().values(), key=lambda tensor: tensor.shape)
    for weight in expected.values():
        assert any(v.shape == weight.shape and torch.allclose(v, weight, atol=1e-6) for v in values)


def test_integers_without_a_scale_are_no_weights(saved):
    _, folder = saved
    quantized(folder, scaled=False)
    with pytest.raises(InvalidInputError, match="not understood"):
        load_folder(folder, read_weights(folder))


def test_what_is_missing_is_named(saved):
    _, folder = saved
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InvalidInputError, match=r"does not fit ViTFor.* lacks classifier\.weight$"):
        load_folder(folder, read_weights(folder))


@pytest.mark.cold
def test_a_torchvision_that_does_not_import_is_left_aside(saved, tmp_path, monkeypatch):
    _, folder = saved
    broken = tmp_path / "site" / "torchvision"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("from torchvision import ops\n")
    (broken / "ops.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    captured = capture_folder(folder, tmp_path / "model.onnx")
    assert (captured.module.label, captured.weights) == ("ViTForImageClassification", "model.safetensors")
    assert captured.module.feeds["pixel_values"].shape == (1, 3, 8, 8)
    assert (tmp_path / "model.onnx").stat().st_size > 0


@pytest.mark.cold
def test_the_model_is_built_where_there_is_no_network(saved, tmp_path, monkeypatch):
    """Where the library's own class would go to the network, the child does not, and says so."""
    _, folder = saved
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys, importlib.abc\n"
        "class Late(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'transformers.models.vit.modeling_vit':\n"
        "            import socket\n"
        "            try:\n"
        "                socket.getaddrinfo('phoning.invalid', 80)\n"
        "            except OSError:\n"
        "                pass\n"
        "sys.meta_path.insert(0, Late())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    with pytest.raises(UnsafeInputError, match=r"would contact phoning\.invalid,.* without a network"):
        capture_folder(folder, tmp_path / "model.onnx")
