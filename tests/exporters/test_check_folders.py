"""`check` of a folder: every file in it is looked at, and what other programs would run is named."""

import json
import os

import numpy as np
import onnx
import pytest
import torch
from clifiles import chain_of_layers
from picklecases import CALLS, PROTOCOLS, tarred, zipped
from safetensors.numpy import save_file

from emergraph.errors import UnsafeInputError
from emergraph.exporters import checking
from emergraph.exporters.checking import check_any
from emergraph.exporters.sources import export_any
from emergraph.exporters.weightfiles.inside import CODE


@pytest.fixture
def folder(tmp_path):
    """A folder in Hugging Face's layout in which nothing is found."""
    path = tmp_path / "net"
    path.mkdir()
    save_file({"fc.weight": np.ones((3, 2), np.float32)}, path / "model.safetensors")
    (path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    (path / "README.md").write_text("# A model\n")
    (path / "vocab.txt").write_text("cat\ndog\nmouse\n")
    (path / "logo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (path / "empty").touch()
    return path


def found(folder, **options):
    return [(finding.id, finding.where) for finding in check_any(folder, **options)]


def test_nothing_is_found_in_a_plain_folder(folder):
    assert found(folder) == []


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.Net"}}),
        ("config.json", {"model_type": "x", "text_config": {"vision": [{"auto_map": {}}]}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tok.Tok", None]}}),
        ("processor_config.json", {"auto_map": {}}),
        ("generation_config.json", {"custom_generate": "org/repo"}),
        ("model_index.json", {"custom_pipeline": "org/repo"}),
        ("deep/adapter_config.json", {"auto_map": {"x": "y"}}),
        ("hydra_config.json", {"model": {"_target_": "os.system"}}),
        ("config.json", {"trust_remote_code": True}),
        ("anything.json", {"auto_map": {}}),
    ],
)
def test_configurations_that_ask_for_code(folder, name, settings):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(settings))
    assert found(folder) == [("FOLDER-CODE", name)]


def test_a_key_that_is_written_otherwise_or_twice(folder):
    config = folder / "config.json"
    for text in (r'{"\u0061uto_map": {}}', '{"auto_map": {}, "auto_map": null}'):
        config.write_text(text)
        assert found(folder) == [("FOLDER-CODE", "config.json")]
    config.write_bytes('{"auto_map": {}}'.encode("utf-16"))
    assert found(folder) == [("FOLDER-CODE", "config.json")]
    config.write_text('{"trust_remote_code": false, "a": "auto_map"}')
    assert found(folder) == []


def test_a_folder_that_export_refuses_is_no_all_clear(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "x", "auto_map": {"AutoModel": "m.Net"}}))
    (folder / "m.py").write_text("class Net:\n    pass\n")
    assert found(folder) == [("FOLDER-CODE", "config.json"), ("FOLDER-SCRIPT", "m.py")]
    with pytest.raises(UnsafeInputError, match="auto_map"):
        export_any(folder, None)


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("modeling.py", b"print(1)\n", "FOLDER-SCRIPT"),
        ("run", b"#!/bin/sh\nrm -rf /\n", "FOLDER-SCRIPT"),
        ("ops.so", b"\x7fELF\x02\x01\x01" + bytes(60), "FOLDER-LIBRARY"),
        ("ops.dat", b"\x7fELF\x02\x01\x01" + bytes(60), "FOLDER-LIBRARY"),
        ("ops.dll", b"MZ" + bytes(58) + b"\x40\x00\x00\x00PE\x00\x00", "FOLDER-LIBRARY"),
        ("more.7z", b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24), "FOLDER-CLOSED"),
        ("chat_template.jinja", b"{{ messages }}", "FOLDER-TEMPLATE"),
        ("tokenizer_config.json", b'{"chat_template": "{{ x }}"}', "FOLDER-TEMPLATE"),
        ("config.json", b"{not json", "FOLDER-CONFIG"),
        ("other.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "FILE-FORMAT"),
        ("other.bin", b"", "FILE-EMPTY"),
    ],
)
def test_what_comes_along(folder, name, content, finding):
    (folder / name).write_bytes(content)
    assert found(folder) == [(finding, name)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_model.bin", CALLS["INST"]),
        ("training_args.bin", PROTOCOLS["4, framed"](CALLS["STACK_GLOBAL"])),
        ("deep/er/optimizer.pt", CALLS["REDUCE"]),
        (".hidden", CALLS["OBJ"]),
        ("tokenizer.model", CALLS["REDUCE"]),
        (".metadata", CALLS["REDUCE"]),
        ("__0_0.distcp", zipped({"archive/data.pkl": CALLS["REDUCE"]})),
        ("data.tar", tarred({"a.pkl": CALLS["REDUCE"]})),
        ("vocab.txt", CALLS["REDUCE"]),
        ("logo.png", b"\x89PNG\r\n\x1a\n" + CALLS["REDUCE"]),
    ],
)
def test_pickles_beside_the_weights(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert [finding.where.startswith(name) for finding in check_any(folder) if finding.id in CODE] == [True]


def test_links(folder, tmp_path):
    (tmp_path / "blob").write_bytes(CALLS["REDUCE"])
    (folder / "more.bin").symlink_to("../blob")
    (folder / "inside.safetensors").symlink_to("model.safetensors")
    assert found(folder) == [("FOLDER-LINK", "more.bin")]
    assert found(folder, root=tmp_path) == [("PICKLE-CODE", "more.bin")]
    (folder / "more.bin").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.py").write_text("x = 1\n")
    (folder / "deep").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    assert found(folder) == [("FOLDER-LINK", "deep")]
    assert found(folder, root=tmp_path) == [("FOLDER-SCRIPT", "deep/a.py")]
    (folder / "deep").unlink()
    (folder / "nowhere").symlink_to("missing")
    assert found(folder) == [("FOLDER-FILE", "nowhere")]


def test_pipes(folder):
    os.mkfifo(folder / "weights.bin")
    assert found(folder) == [("FOLDER-FILE", "weights.bin")]


def test_every_part_is_looked_at_once(tmp_path):
    index = {"weight_map": {"a.weight": "a.safetensors", "b.weight": "b.safetensors"}}
    for name in ("a", "b"):
        save_file({f"{name}.weight": np.full((3, 2), np.nan, np.float32)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    expected = [("TENSOR-NONFINITE", f"model.safetensors.index.json/{name}.weight") for name in ("a", "b")]
    assert found(tmp_path) == expected
    (tmp_path / "b.safetensors").unlink()
    assert {finding for finding, _ in found(tmp_path)} == {"SHARD-MISSING", "TENSOR-NONFINITE"}


def test_onnx_models_in_a_folder(tmp_path):
    model = chain_of_layers("a", weight=np.zeros((2, 2), np.float32))
    (tmp_path / "onnx").mkdir()
    onnx.save(
        model,
        tmp_path / "onnx/model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    assert {where for _, where in found(tmp_path)} >= {"onnx/model.onnx"}
    assert not {finding for finding, _ in found(tmp_path)} & {"FILE-FORMAT"}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "an empty folder"),
        (["README.md"], "a folder without one"),
        (["__0_0.distcp", ".metadata"], "dcp_to_torch"),
        (["saved_model.pb"], "SavedModel"),
    ],
)
def test_folders_without_a_model(tmp_path, names, told):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    (finding,) = check_any(tmp_path)
    assert finding.id == "FILE-FORMAT"
    assert told in finding.message


def test_a_folder_of_too_many_files(folder, monkeypatch):
    count = len(list(folder.iterdir()))
    monkeypatch.setattr(checking, "_MAX_FILES", count)
    assert found(folder) == []
    monkeypatch.setattr(checking, "_MAX_FILES", count - 1)
    assert ("FOLDER-LIMIT", "") in found(folder)


def test_a_text_that_is_too_long(folder, monkeypatch):
    size = (folder / "config.json").stat().st_size
    monkeypatch.setattr(checking, "_MAX_JSON", size)
    assert found(folder) == []
    monkeypatch.setattr(checking, "_MAX_JSON", size - 1)
    assert found(folder) == [("FOLDER-LIMIT", "config.json")]


def test_a_training_folder(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "mp_rank_00_model_states.pt")
    (tmp_path / "zero_to_fp32.py").write_text("import torch\n")
    (tmp_path / "latest").write_text("global_step1")
    assert found(tmp_path) == [("FOLDER-SCRIPT", "zero_to_fp32.py")]
