"""Weights that are NaN or infinite: counted at export, and named by every measure."""

import numpy as np
import onnx
import pytest
from nets import Net

import emergraph
from emergraph.analysis.modelruns.files import ModelFiles
from emergraph.analysis.pruning.options import PruningOptions
from emergraph.errors import InvalidInputError
from emergraph.exporters.export import dry_run
from emergraph.exporters.sources import export_any
from emergraph.exporters.traces.samples import RandomInputs

SAID = (
    "1 of 250 parameters are NaN or infinite (A: 1); they remain edges, "
    "but measures of weight size leave them out"
)


def network(value):
    net = Net(seed=0)
    weights = net.rng.standard_normal((20, 10)).astype(np.float32)
    weights[0, 0] = value
    h = net.op("MatMul", net.input(1, 20, name="x"), net.value(weights, name="A"))
    net.output(net.op("MatMul", h, net.param(10, 5)))
    return net.model()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_every_measure_names_them(tmp_path, value):
    path = tmp_path / "net.onnx"
    onnx.save(network(value), path)
    summary = dry_run(path)
    assert summary.trace.n_nonfinite == 1
    assert summary.trace.warnings == (SAID,)
    graph = emergraph.export(path, tmp_path / "s.duckdb")
    alone = graph.prune(PruningOptions(levels=(0.5,)), save=False)
    run = graph.prune(PruningOptions(levels=(0.5,)), files=ModelFiles(model=path), save=False)
    note = (
        "1 of 250 items have weights that are NaN or infinite: path norms and flows leave those weights out"
    )
    for result in (alone, run):
        assert note in result.notes
        assert not [one for one in result.notes if one.startswith("left alone")]
        assert result.frame["kept_parameters"].to_list() == [125]
        assert np.isfinite(result.frame["log10_path_norm_l1"][0])
    assert note in graph.prune(PruningOptions(levels=(0.5,)), save=False, sensitivity=True).notes
    graph.trace(RandomInputs(n=4), model=path)
    notes = graph.emergence(save=False).notes()
    assert "1 parameters are NaN or infinite; their edges count as all do." in notes


def test_a_mask_is_infinite_on_purpose(tmp_path):
    net = Net(seed=1)
    h = net.op("MatMul", net.input(1, 6, name="x"), net.param(6, 4))
    h = net.op("Softmax", net.op("Add", h, net.value(np.float32([0, 0, 0, -np.inf]))))
    net.output(net.op("MatMul", h, net.param(4, 2)))
    onnx.save(net.model(), tmp_path / "net.onnx")
    assert dry_run(tmp_path / "net.onnx").trace.n_nonfinite == 0


def test_complex_weights_are_named_and_left_out(tmp_path):
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(5, 6)).astype(np.float32)
    path = tmp_path / "m.npz"
    np.savez(path, **{"0.weight": plain + np.complex64(1j), "1.weight": plain})
    graph = emergraph.export(path, tmp_path / "s.duckdb")
    assert graph.layers["name"].to_list().count("0") == 0
    assert export_any(path, None).trace.n_parameters_understood == 30
    np.savez(path, **{"0.weight": plain + np.complex64(1j)})
    with pytest.raises(InvalidInputError, match="0 is not understood: complex numbers"):
        export_any(path, None)
