"""Published GGUF files: read as transformers reads them, and language models that predict text."""

import json
import os
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from emergraph.exporters.pytorch.emptymodel import empty_model
from emergraph.exporters.pytorch.huggingface import named_model
from emergraph.exporters.pytorch.wiredfolders import fitting
from emergraph.exporters.weightfiles.gguf.architectures import described
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.recipes import Recipe, stored_names, values_of
from emergraph.exporters.weightfiles.wiring_parameters import parameters

pytestmark = [pytest.mark.models, pytest.mark.slow]

MODELS = Path(os.environ.get("EMERGRAPH_MODELS", Path.home() / ".cache/emergraph/models"))
MANIFEST = json.loads((Path(__file__).parents[2] / "language_models.json").read_text())
FILES = [entry for entry in MANIFEST if entry["format"] == "gguf"]
TEXT = (
    "In the beginning of the nineteenth century, most people in England lived in small villages and worked "
    "on farms. The invention of the steam engine changed this. Factories were built in the north, and many "
    "people moved to the cities to find work. They lived in small houses, and their children often worked "
    "in the factories, too. By the end of the century, more than half of the people lived in cities, and "
    "the railway connected all of them."
)


def opened(entry):
    """The path of a file, its weights, and the module with the recipes of its parameters."""
    path = MODELS / entry["package"] / entry["path"]
    if not path.exists():
        pytest.skip(f"{path.name} is not there: make models")
    weights = read_weights(path)
    network, found = described(weights), parameters(weights)
    module = empty_model(named_model(dict(network.settings), path.name).build)
    return path, found, module, fitting(module, network.recipes(list(module.state_dict())), found)


@pytest.mark.parametrize("entry", FILES, ids=lambda entry: entry["package"])
def test_the_twin_reads_the_same_bits(entry):
    """Every tensor of the file is a parameter of the module, with the values that transformers gives it."""
    path, found, module, recipes = opened(entry)
    assert {name for made in recipes.values() for name in stored_names(made)} == found.keys()
    assert sum(parameter.numel() for parameter in module.parameters()) == entry["params"]
    twin = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=module)["tensors"]
    assert twin.keys() == recipes.keys()
    for name in list(twin):
        theirs = twin.pop(name).numpy()
        assert np.array_equal(theirs.view(np.uint32), values_of(recipes[name], found).view(np.uint32)), name


def tokens(path, text):
    """Ids by the longest token that fits; good enough to tell a language model from noise."""
    field = gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"]
    ids = {bytes(field.parts[at]).decode(): number for number, at in enumerate(field.data)}
    rest, found = text.replace(" ", "\u0120"), []
    while rest:
        size = next(size for size in range(min(len(rest), 20), 0, -1) if rest[:size] in ids)
        found.append(ids[rest[:size]])
        rest = rest[size:]
    return torch.tensor([found])


def loss(module, ids):
    """Mean negative logarithm of the probability of the next token."""
    with torch.no_grad():
        logits = module(ids).logits[0]
    return float(torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:]))


def test_smollm2_predicts_text_and_with_its_rows_as_stored_it_does_not():
    """2.4 nats a token, and 3.7 where pairs of rotary rows stay neighbours."""
    path, found, module, recipes = opened(FILES[0])
    ids = tokens(path, TEXT)
    assert 80 < ids.numel() < 120
    losses = []
    for as_stored in (False, True):
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                made = recipes[name]
                if as_stored and isinstance(made, Recipe) and made.op == "rotary":
                    made = made.parts[0]
                parameter.copy_(torch.from_numpy(values_of(made, found).copy()))
        losses.append(loss(module, ids))
    assert losses[0] < 3.0
    assert losses[1] > losses[0] + 0.7
