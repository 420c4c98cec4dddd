"""Packed weights against what the libraries that pack them unpack: `vectors/`, made by `make_vectors.py`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from emergraph.errors import InvalidInputError
from emergraph.exporters.counting import CountingSink
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.wiring import export_weights

VECTORS = Path(__file__).parent / "vectors"
CASES = sorted(path.name for path in VECTORS.iterdir() if path.is_dir())
COARSE = {"bitsandbytes_int8": 1e-3, "compressed_nvfp4": 8e-3}
"""Where the library unpacks to 16-bit floats: a rounding, relative to the largest weight."""


def export(path, wiring):
    sink = wiring.Recorder()
    summary = export_weights(read_weights(path), sink)
    wiring.check_contract(sink)
    return sink, summary


def without(name, folder, *missing, config=True):
    """A copy of a case with some tensors left out of the file, and perhaps its configuration."""
    safetensors = pytest.importorskip("safetensors.numpy")
    shutil.copytree(VECTORS / name, folder, dirs_exist_ok=True)
    if not config:
        (folder / "config.json").unlink()
    path = folder / "model.safetensors"
    stored = safetensors.load_file(path)
    safetensors.save_file({k: v for k, v in stored.items() if k.partition(".")[2] not in missing}, path)
    return path


@pytest.mark.parametrize("name", CASES)
def test_the_graph_has_the_weights_that_the_library_unpacks(name, wiring):
    expected = np.load(VECTORS / name / "expected.npz")["weight"].astype(np.float64)
    sink, summary = export(VECTORS / name / "model.safetensors", wiring)
    found = sink.dense("layer", "layer:in")
    assert found.shape == expected.T.shape
    tolerance = COARSE.get(name, 1e-6) * np.abs(expected).max()
    np.testing.assert_allclose(found, expected.T, rtol=0, atol=tolerance)
    zeros = int(np.count_nonzero(expected == 0))
    assert (sink.layer("layer").n_params, sink.layer("layer").n_zeros) == (expected.size, zeros)
    assert (summary.n_parameters, summary.coverage) == (expected.size, 1.0)
    roles = sorted(tensor.role for tensor in sink.tensors.values())
    assert roles == ["quantization"] * (len(roles) - 1) + ["weight"]
    assert any("weights computed from what is stored" in line for line in summary.warnings)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("bitsandbytes_nf4", "weight.quant_state.bitsandbytes__nf4"),
        ("bitsandbytes_nf4", "weight.absmax"),
        ("bitsandbytes_nf4", "weight.quant_map"),
        ("bitsandbytes_nf4_nested", "weight.nested_absmax"),
        ("bitsandbytes_nf4_nested", "weight.nested_quant_map"),
        ("gptq_4_v1", "scales"),
        ("gptq_4_v1", "qzeros"),
        ("awq", "qzeros"),
        ("awq", "scales"),
        ("hqq_4_axis1", "shape"),
        ("hqq_4_axis1", "packing"),
        ("hqq_4_axis1", "zero"),
        ("compressed_pack_4_group", "weight_shape"),
        ("compressed_pack_4_group", "weight_scale"),
    ],
)
def test_a_file_that_lacks_a_part_is_named_and_not_read(name, missing, tmp_path):
    path = without(name, tmp_path, missing)
    with pytest.raises(InvalidInputError, match=r"layer\S* is not understood: .+") as caught:
        export_weights(read_weights(path), CountingSink())
    assert "\n" not in str(caught.value)


def test_a_packed_layer_beside_another_one_is_counted_as_not_understood(tmp_path, wiring):
    """Its bytes are parameters that are not understood, in no layer of the graph."""
    safetensors = pytest.importorskip("safetensors.numpy")
    path = without("bitsandbytes_nf4", tmp_path, "weight.quant_state.bitsandbytes__nf4")
    stored = safetensors.load_file(path)
    safetensors.save_file({**stored, "head.weight": np.ones((2, 3), np.float32)}, path)
    sink, summary = export(path, wiring)
    assert [layer.name for layer in sink.layers] == ["head:in", "head"]
    assert (summary.n_parameters, summary.n_parameters_understood) == (6 + 512, 6)
    ((name, reason),) = [(op.name, op.reason) for op in summary.opaque]
    assert (name, "quant_state" in reason) == ("layer", True)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_without_a_configuration_is_read_where_it_is_symmetric(bits, tmp_path):
    """The middle code as zero point shows the version; other zero points do not."""
    read_weights(VECTORS / f"gptq_{bits}_order" / "model.safetensors")
    path = without(f"gptq_{bits}_v1", tmp_path, config=False)
    with pytest.raises(InvalidInputError, match="does not say whether its zero points are stored less one"):
        export_weights(read_weights(path), CountingSink())
    settings = {"bits": bits, "group_size": 16}
    (tmp_path / "quantize_config.json").write_text(json.dumps(settings))
    assert export_weights(read_weights(path), CountingSink()).coverage == 1.0


@pytest.mark.parametrize(
    ("settings", "reads"),
    [
        ("{}", False),
        ("[1]", False),
        ("no JSON", False),
        ('{"quantization_config": {"bits": 4}, "quantization_config": {"bits": 8}}', False),
        ('{"text_config": {"quantization_config": {"quant_method": "gptq", "bits": 4}}}', True),
        ('{"quantization_config": {"quant_method": "gptq", "checkpoint_format": "new"}}', False),
    ],
)
def test_what_stands_in_the_configuration(settings, reads, tmp_path):
    path = without("gptq_4_v1", tmp_path)
    (tmp_path / "config.json").write_text(settings)
    if reads:
        assert export_weights(read_weights(path), CountingSink()).coverage == 1.0
    else:
        with pytest.raises(InvalidInputError, match="is not understood: 4-bit GPTQ"):
            export_weights(read_weights(path), CountingSink())


def test_a_link_beside_the_file_is_followed_below_the_root_alone(tmp_path):
    folder = tmp_path / "snapshot"
    path = without("gptq_4_v1", folder)
    (folder / "config.json").rename(tmp_path / "blob")
    (folder / "config.json").symlink_to("../blob")
    with pytest.raises(InvalidInputError, match="4-bit GPTQ"):
        export_weights(read_weights(path), CountingSink())
    assert export_weights(read_weights(path, root=tmp_path), CountingSink()).coverage == 1.0


def test_another_configuration_is_another_graph(tmp_path):
    from emergraph.exporters.weightfiles.wiring import weights_header

    first = weights_header(read_weights(without("gptq_4_v1", tmp_path)))
    (tmp_path / "config.json").write_text('{"quantization_config": {"checkpoint_format": "gptq_v2"}}')
    second = weights_header(read_weights(tmp_path / "model.safetensors"))
    assert first.sha256 == second.sha256
    assert first.settings != second.settings


@pytest.mark.parametrize(
    ("tensors", "config", "why"),
    [
        ({"a.weight": ("uint8", (32, 1))}, None, "no scale and no description"),
        ({"a.qweight": ("int32", (8, 4)), "a.g_idx": ("int32", (64,))}, None, "no scales"),
        ({"a.mlp_blocks": ("uint8", (2, 4, 16)), "a.mlp_scales": ("uint8", (2, 4))}, None, "does not define"),
        ({"a.weight": ("int8", (8, 4))}, "eetq", "int8 of eetq"),
        ({"a.codes": ("int16", (8, 4))}, "aqlm", "does not define"),
        ({"a.weight": ("uint8", (4, 8)), "a.weight_scale": ("uint8", (4, 1))}, None, "scales of shape"),
    ],
)
def test_bytes_that_nothing_defines_are_never_weights(tensors, config, why, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    stored = {name: np.ones(shape, dtype) for name, (dtype, shape) in tensors.items()}
    safetensors.save_file({**stored, "b.weight": np.ones((2, 3), np.float32)}, tmp_path / "m.safetensors")
    if config:
        settings = {"quantization_config": {"quant_method": config}}
        (tmp_path / "config.json").write_text(json.dumps(settings))
    summary = export_weights(read_weights(tmp_path / "m.safetensors"), CountingSink())
    assert [why in (op.reason or "") for op in summary.opaque] == [True]
    assert (summary.n_layers, summary.n_edges, summary.n_parameters_understood) == (2, 6, 6)


@pytest.mark.parametrize(("rows", "columns", "fits"), [(128, 256, True), (130, 256, False), (130, 200, True)])
def test_scales_of_blocks(rows, columns, fits, tmp_path, wired):
    """128 x 128 blocks, as in files of DeepSeek; sizes that are no multiples need the configuration."""
    torch = pytest.importorskip("torch")
    values = torch.randn(rows, columns).to(torch.float8_e4m3fn)
    scale = torch.rand(-(-rows // 128), -(-columns // 128)) + 0.5
    if (rows, columns) == (130, 200):
        settings = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
        (tmp_path / "config.json").write_text(json.dumps(settings))
    state = {"a.weight": values, "a.weight_scale_inv": scale, "b.weight": torch.ones(2, 3)}
    sink, summary = wired(state)
    assert bool(summary.opaque) != fits
    if fits:
        spread = scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
        expected = (values.double() * spread.double()).float().numpy()
        np.testing.assert_array_equal(sink.dense("a", "a:in"), expected.T)
