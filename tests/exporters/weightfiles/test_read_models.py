"""Every weight file of the manifest is read with its parameters, or refused for the stated reason."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from emergraph.exporters.weightfiles.dtypes import FLOATING
from emergraph.exporters.weightfiles.reader import check_weights, read_weights

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = pytest.mark.models

MODELS = Path(os.environ.get("EMERGRAPH_MODELS", Path.home() / ".cache/emergraph/models"))
MANIFEST = json.loads((Path(__file__).parents[2] / "third_party_models.json").read_text())
ENTRIES = [entry for entry in MANIFEST if entry["format"] != "onnx"]
FOREIGN = "pesto/weights/mir-1k_g7.ckpt"


def open_entry(entry):
    path = MODELS / entry["package"] / entry["path"]
    return path, read_weights(path)


def flat(value, prefix=""):
    """Tensors of nested dicts by dotted names."""
    found = {}
    for key, child in value.items():
        if isinstance(child, torch.Tensor):
            found[prefix + key] = child
        elif isinstance(child, dict):
            found.update(flat(child, f"{prefix}{key}."))
    return found


def reference(path, kind):
    """The same tensors by the library that made the file."""
    if kind == "safetensors":
        return safetensors_torch.load_file(path)
    if kind == "npz":
        return {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    if kind == "torchscript":
        return torch.jit.load(str(path), map_location="cpu").state_dict()
    return flat(torch.load(path, weights_only=True, map_location="cpu"))


def test_the_manifest_has_weight_files():
    assert len(ENTRIES) == 12


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["path"])
def test_parameters_are_the_manifest_s(entry):
    """Floating-point and quantized tensors, tied ones counted under each name, without running statistics."""
    _, weights = open_entry(entry)
    counted = [
        tensor.n_elements
        for name, tensor in weights.tensors.items()
        if tensor.dtype in FLOATING | {"int8"} and not name.endswith(("running_mean", "running_var"))
    ]
    assert sum(counted) == entry["params"]
    assert weights.sha256 == entry["sha256"]
    assert weights.size == entry["size"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if e["path"] != FOREIGN], ids=lambda entry: entry["path"]
)
def test_values_equal_the_library_s_bit_for_bit(entry):
    path, weights = open_entry(entry)
    expected = reference(path, weights.format)
    names = {name.removeprefix("state_dict."): value for name, value in expected.items()}
    missing = set(weights.tensors) - set(names)
    if weights.format == "torchscript":
        assert all(
            name.startswith("constants.") or name.rsplit(".", 1)[-1].startswith("_") for name in missing
        )
    else:
        assert not missing
    assert set(names) <= set(weights.tensors)
    for name, value in names.items():
        tensor = weights.tensors[name]
        assert tensor.shape == tuple(value.shape)
        assert bytes(tensor.raw()) == bytes(value.contiguous().reshape(-1).view(torch.uint8).numpy())


def test_foreign_classes_are_read_around_and_named():
    (entry,) = [entry for entry in ENTRIES if entry["path"] == FOREIGN]
    path, weights = open_entry(entry)
    assert any("omegaconf.listconfig.ListConfig" in entry.reason for entry in weights.skipped)
    found = [finding for finding in check_weights(path) if finding.id == "PICKLE-SKIPPED"]
    assert any("omegaconf" in finding.message for finding in found)
    assert {finding.severity for finding in found} == {"warning"}


def test_the_reader_of_torch_refuses_the_foreign_file_too():
    """Read with the classes that it needs stubbed out: the weights are the same."""
    (entry,) = [entry for entry in ENTRIES if entry["path"] == FOREIGN]
    path, weights = open_entry(entry)
    with pytest.raises(Exception, match="weights_only"):
        torch.load(path, weights_only=True, map_location="cpu")
    assert weights.tensors["encoder.fc.weight"].array().shape[:2] == (1, 1)


def test_tied_embedding_is_one_tensor():
    (entry,) = [entry for entry in ENTRIES if entry["package"] == "microformer-mgm"]
    _, weights = open_entry(entry)
    assert weights.tensors["lm_head.weight"].alias_of == "transformer.wte.weight"
    assert weights.n_parameters == entry["params"] - 9669 * 256
