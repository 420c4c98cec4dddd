"""Packed, masked and normed weights go into a module as what they stand for."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn.utils import parametrizations, prune  # noqa: E402

from emergraph.errors import InvalidInputError  # noqa: E402
from emergraph.exporters.pytorch.weights import load_weights  # noqa: E402
from emergraph.exporters.weightfiles.reader import read_weights  # noqa: E402

VECTORS = Path(__file__).parents[1] / "weightfiles" / "encodings" / "vectors"


def plain(inputs=64, outputs=16):
    return torch.nn.ModuleDict({"layer": torch.nn.Linear(inputs, outputs, bias=False)})


@pytest.mark.parametrize("name", ["bitsandbytes_nf4", "compressed_int8_tensor", "compressed_pack_4_zero"])
def test_packed_weights(name):
    """int8 with a scale has the module's own name and shape: its integers are not the weights."""
    module = plain()
    load_weights(module, read_weights(VECTORS / name / "model.safetensors"))
    expected = np.load(VECTORS / name / "expected.npz")["weight"]
    np.testing.assert_allclose(module["layer"].weight.detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("change", ["pruned", "normed"])
def test_a_module_of_either_kind(change, tmp_path):
    """The plain module gets the weights; one that computes them itself gets what it computes them from."""

    def changed():
        layer = torch.nn.Linear(4, 3, bias=False)
        if change == "pruned":
            return prune.l1_unstructured(layer, "weight", amount=5)
        return parametrizations.weight_norm(layer)

    saved = torch.nn.ModuleDict({"layer": changed()})
    torch.save(saved.state_dict(), tmp_path / "m.pt")
    saved["layer"](torch.ones(1, 4))
    for module in (plain(4, 3), torch.nn.ModuleDict({"layer": changed()})):
        load_weights(module, read_weights(tmp_path / "m.pt"))
        module["layer"](torch.ones(1, 4))
        torch.testing.assert_close(module["layer"].weight, saved["layer"].weight)


def test_weights_that_are_not_understood_are_named(tmp_path):
    state = {"layer.weight": torch.ones(512, 1, dtype=torch.uint8), "layer.weight.absmax": torch.ones(16)}
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(InvalidInputError, match=r"layer\.weight is not understood: .*quant_state"):
        load_weights(plain(), read_weights(tmp_path / "m.pt"))
