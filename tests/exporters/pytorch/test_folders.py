"""Folders in Hugging Face's layout: names of an older version of a class, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from emergraph.errors import InvalidInputError
from emergraph.exporters.pytorch.huggingface import load_folder
from emergraph.exporters.weightfiles import read_weights

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


def test_what_is_missing_is_named(saved):
    _, folder = saved
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InvalidInputError, match=r"does not fit ViTFor.* lacks classifier\.weight$"):
        load_folder(folder, read_weights(folder))
