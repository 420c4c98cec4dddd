"""npz files of matrices whose names follow no framework."""

import numpy as np
import pytest

from emergraph.errors import InvalidInputError
from emergraph.exporters.counting import CountingSink
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.exporters.weightfiles.wiring import export_weights


def exported(tmp_path, wiring, **arrays):
    np.savez(tmp_path / "m.npz", **arrays)
    sink = wiring.Recorder()
    summary = export_weights(read_weights(tmp_path / "m.npz"), sink)
    wiring.check_contract(sink)
    return sink, summary


@pytest.mark.parametrize("name", ["fc_w", "W1", "enc_w_hh", "a", "embed_x", "U", "layer/kernel2", "x.y"])
def test_rows_are_outputs_whatever_the_name(name, tmp_path, wiring):
    values = np.random.default_rng(0).standard_normal((5, 8))
    sink, summary = exported(tmp_path, wiring, **{name: values})
    np.testing.assert_array_equal(sink.dense(name, f"{name}:in"), values.T)
    assert [layer.kind for layer in sink.layers] == ["input", "dense"]
    assert any("(outputs, inputs)" in line for line in summary.warnings)


@pytest.mark.parametrize(
    ("weight", "bias"), [("fc_w", "fc_b"), ("W1", "b1"), ("h_weights", "h_biases"), ("w_2", "b_2")]
)
@pytest.mark.parametrize(("size", "inputs"), [(5, 8), (8, 5)])
def test_a_bias_tells_which_axis_is_which(weight, bias, size, inputs, tmp_path, wiring):
    values, shift = np.random.default_rng(0).standard_normal((5, 8)), np.arange(1.0, size + 1)
    sink, summary = exported(tmp_path, wiring, **{weight: values, bias: shift})
    layer = sink.layers[-1]
    assert (sink.layers[0].n_units, layer.n_units) == (inputs, size)
    assert (layer.n_params, summary.coverage) == (40 + size, 1.0)
    np.testing.assert_array_equal(sink.columns(layer.name).bias, shift)


def test_what_is_no_matrix_of_floats_is_no_layer(tmp_path, wiring):
    """Labels, vectors that fit nothing, images; layers with a framework's names stay as they were."""
    arrays = {
        "labels": np.ones((4, 4), np.int64),
        "mean": np.ones(7),
        "images": np.ones((2, 3, 4, 4), np.float32),
        "fc.weight": np.ones((2, 3), np.float32),
        "fc.bias": np.ones(2, np.float32),
    }
    sink, _ = exported(tmp_path, wiring, **arrays)
    assert [layer.name for layer in sink.layers] == ["fc:in", "fc"]


def test_an_npz_without_matrices_is_refused(tmp_path):
    np.savez(tmp_path / "m.npz", labels=np.ones((4, 4), np.int64), mean=np.ones(7))
    with pytest.raises(InvalidInputError, match="no tensor is recognised"):
        export_weights(read_weights(tmp_path / "m.npz"), CountingSink())
