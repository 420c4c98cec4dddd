"""What config.json may say: texts without an address, names that are installed, no code."""

import json
import sys
import types
from importlib.machinery import ModuleSpec

import pytest
from hostilefolders import BERT, CASES, CLIP, REPOSITORY

from emergraph.errors import EmergraphError, InvalidInputError, MissingExtraError, UnsafeInputError
from emergraph.exporters.pytorch.folderconfig import closed_settings, read_config

DETR = {"model_type": "detr", "architectures": ["DetrForObjectDetection"]}


@pytest.fixture
def timm(monkeypatch):
    """A timm that knows one model."""
    module = types.ModuleType("timm")
    module.__spec__ = ModuleSpec("timm", None)
    module.is_model = lambda name: name == "resnet50"
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.mark.parametrize("name", CASES)
def test_hostile_settings_are_refused_in_one_line(name, monkeypatch):
    settings, code = CASES[name]
    monkeypatch.setitem(sys.modules, "timm", None)
    if code == 0:
        closed = json.dumps(
            {key: value for key, value in closed_settings(settings).items() if key != "id2label"}
        )
        assert REPOSITORY not in closed
        assert "attn" not in closed
        return
    with pytest.raises(EmergraphError, match=r"^config\.json") as caught:
        closed_settings(settings)
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["gelu_new", "float32", "1.0.0.dev0", "<s>", "some words, in a row", "", "ä", "a-b_c+d"]
)
def test_texts_without_an_address_are_kept(text):
    settings = {"a": text, "b": [text, {"c": text}]}
    assert closed_settings(settings) == settings


@pytest.mark.parametrize(
    "text", ["a/b", "a:b", "a\\b", "a@b", "~", "%48", "$HOME", "a\nb", "https://a", "file:a", "\u0000"]
)
@pytest.mark.parametrize(
    "place", [lambda t: {"k": t}, lambda t: {"k": [[t]]}, lambda t: {"k": {"l": [{"m": t}]}}]
)
def test_texts_that_could_be_an_address_are_refused(text, place):
    with pytest.raises(UnsafeInputError, match=r"config\.json: k\S* names .* would have to be fetched"):
        closed_settings(place(text))


def test_plain_settings_stay_as_they_are():
    assert closed_settings(BERT) == BERT
    assert closed_settings(CLIP) == CLIP


@pytest.mark.parametrize("value", [None, False, {}, "", 0])
def test_code_that_is_not_asked_for_is_left_out(value):
    assert closed_settings({"auto_map": value, "trust_remote_code": value, "a": 1}) == {"a": 1}


@pytest.mark.parametrize(("depth", "fits"), [(31, True), (32, False)])
def test_depth(depth, fits):
    settings = {"k": json.loads('{"a":' * depth + "1" + "}" * depth)}
    if fits:
        assert closed_settings(settings) == settings
        return
    with pytest.raises(InvalidInputError, match="nested more than 32 deep"):
        closed_settings(settings)


@pytest.mark.parametrize(("size", "fits"), [(1 << 20, True), ((1 << 20) + 1, False)])
def test_size(tmp_path, size, fits):
    text = json.dumps({"a": ""})
    (tmp_path / "config.json").write_text(text.replace('""', '"' + "x" * (size - len(text)) + '"'))
    assert (tmp_path / "config.json").stat().st_size == size
    if fits:
        assert len(read_config(tmp_path)["a"]) == size - len(text)
        return
    with pytest.raises(UnsafeInputError, match="expected at most 1048576"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["resnet50", "resnet50.a1_in1k"])
@pytest.mark.parametrize("key", ["backbone", "architecture"])
def test_a_model_of_timm_is_built_without_weights(timm, name, key):
    settings = {**DETR, key: name, "use_timm_backbone": True, "backbone_kwargs": {"out_indices": [1, 2]}}
    wants = {"use_pretrained_backbone": True, "pretrained_cfg": {"hf_hub_id": "abc"}, "pretrained": True}
    assert closed_settings({**settings, **wants}) == settings


def test_a_model_that_timm_does_not_know_would_be_looked_up(timm):
    with pytest.raises(UnsafeInputError, match="backbone names 'gpt2', which would have to be fetched"):
        closed_settings({**DETR, "backbone": "gpt2"})


def test_without_timm_the_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match="pip install timm, or use --wire none"):
        closed_settings({**DETR, "backbone": "resnet50"})


def test_a_field_that_begins_like_weights_is_a_size():
    settings = {"model_type": "swinv2", "pretrained_window_sizes": [0, 0, 0, 0]}
    assert closed_settings(settings) == settings


def test_a_config_that_is_a_link_out_of_its_folder_is_read_below_a_root_alone(tmp_path):
    blob, folder = tmp_path / "blobs" / "config", tmp_path / "snapshots" / "abc"
    blob.parent.mkdir()
    folder.mkdir(parents=True)
    blob.write_text('{"model_type": "bert"}')
    (folder / "config.json").symlink_to(blob)
    with pytest.raises(UnsafeInputError, match=r"^config\.json: a symbolic link to .* --root "):
        read_config(folder)
    assert read_config(folder, root=tmp_path)["model_type"] == "bert"


def test_a_config_that_is_a_link_inside_its_folder_is_read(tmp_path):
    (tmp_path / "one.json").write_text('{"model_type": "bert"}')
    (tmp_path / "config.json").symlink_to("one.json")
    assert read_config(tmp_path)["model_type"] == "bert"
