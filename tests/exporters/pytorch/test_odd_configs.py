"""Values of odd types in a folder's config.json: the model is made, or a line names the key or the class."""

import json

import pytest
from safetensors.torch import save_file

from emergraph.errors import EmergraphError
from emergraph.exporters.pytorch.huggingface import load_folder
from emergraph.exporters.weightfiles.reader import read_weights

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1}
ODD = (None, True, -1, 0, 1.5, 1e308, float("nan"), "", "x", [], {}, [1], {"a": 1}, [["x"]], [None])
KEYS = (
    *("architectures", "model_type", "image_size", "num_channels", "patch_size", "hidden_size", "id2label"),
    *("num_attention_heads", "num_hidden_layers", "hidden_act", "dtype", "torch_dtype", "layer_norm_eps"),
    *("initializer_range", "qkv_bias", "hidden_dropout_prob", "num_labels", "label2id", "pooler_act"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the weights of a vision transformer, and its settings."""
    folder = tmp_path_factory.mktemp("odd") / "vit"
    folder.mkdir()
    named = {"architectures": ["ViTForImageClassification"]}
    config = transformers.ViTConfig(image_size=8, patch_size=4, **named, **SIZES)
    save_file(transformers.ViTForImageClassification(config).state_dict(), folder / "model.safetensors")
    return folder, json.loads(json.dumps(config.to_dict(), default=str))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", KEYS)
def test_odd_values_make_a_model_or_a_line(made, key):
    folder, settings = made
    lines = []
    for value in ODD:
        (folder / "config.json").write_text(json.dumps({**settings, key: value}))
        try:
            model, inputs, _ = load_folder(folder, read_weights(folder))
        except EmergraphError as error:
            lines.append(str(error))
        else:
            assert not model.training
            assert inputs["pixel_values"].ndim == 4
    assert not any("\n" in line or "unexpected" in line for line in lines)
    if key in ("architectures", "model_type", "image_size", "num_channels", "hidden_size"):
        assert len(lines) >= 10


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model_type", ["vit"], 'model_type is ["vit"]; expected a name'),
        ("model_type", {}, "model_type is {}; expected a name"),
        ("architectures", "ViTModel", 'architectures is "ViTModel"; expected a list of names'),
        ("architectures", {"a": 1}, 'architectures is {"a": 1}; expected a list of names'),
        ("architectures", [1], "architectures is [1]; expected a list of names"),
        ("architectures", True, "architectures is true; expected a list of names"),
    ],
)
def test_the_key_is_named_with_what_was_expected(made, key, value, said):
    folder, settings = made
    (folder / "config.json").write_text(json.dumps({**settings, key: value}))
    with pytest.raises(EmergraphError) as caught:
        load_folder(folder, read_weights(folder))
    assert said in str(caught.value)
