"""What a user names is told by content, and options that do not go with it are refused."""

import numpy as np
import pytest
import torch
import torchnets
from clifiles import DEMO
from torchnets import GatedMlp

from emergraph.errors import UsageError
from emergraph.exporters.export import ExportOptions
from emergraph.exporters.pytorch.factory import load_factory, load_module
from emergraph.exporters.pytorch.weights import load_weights
from emergraph.exporters.sourcekinds import SourceKind, source_kind
from emergraph.exporters.sources import SourceOptions, Wiring, export_any
from emergraph.exporters.weightfiles.reader import read_weights
from emergraph.graphstore.restore import restore_tensor
from emergraph.graphstore.store import open_store


@pytest.fixture
def weights(tmp_path):
    """A weight file with a name that says something else."""
    path = tmp_path / "net.onnx"
    torch.manual_seed(0)
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).state_dict(), path)
    return path


def test_content_decides(weights, tmp_path):
    assert source_kind(weights) is SourceKind.WEIGHTS
    assert source_kind(DEMO / "digits_dense.onnx") is SourceKind.ONNX
    assert source_kind("torch.nn:Identity") is SourceKind.FACTORY
    assert source_kind(tmp_path / "missing.onnx") is SourceKind.ONNX
    assert source_kind(tmp_path) is SourceKind.WEIGHTS
    (tmp_path / "config.json").write_text("{}")
    assert source_kind(tmp_path) is SourceKind.FOLDER


def test_a_weight_file_is_wired_as_asked(weights, tmp_path):
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        apart = export_any(weights, store)
        chained = export_any(weights, store, source=SourceOptions(wire=Wiring.SEQUENTIAL))
        again = export_any(weights, store)
        assert (apart.trace.n_units, chained.trace.n_units) == (3 + 4 + 4 + 2, 3 + 4 + 2)
        assert again.reused
        assert again.graph == apart.graph
        assert store.graphs()["wiring"].to_list() == ["none", "inferred"]
    size = export_any(weights, None).estimated_bytes
    assert size is not None
    assert size > 0


@pytest.mark.parametrize(
    ("model", "choices", "message"),
    [
        (DEMO / "digits_dense.onnx", {"wire": Wiring.SEQUENTIAL}, "--wire sequential"),
        (DEMO / "digits_dense.onnx", {"weights": DEMO}, "--weights goes with a factory"),
        (DEMO / "digits_dense.onnx", {"onnx_path": DEMO}, "--keep-onnx"),
    ],
)
def test_options_that_do_not_go_with_a_model_are_refused(model, choices, message):
    with pytest.raises(UsageError, match=message):
        export_any(model, None, source=SourceOptions(**choices))


def test_a_factory_with_weights_is_counted_and_exported(tmp_path):
    torch.manual_seed(5)
    torch.save(GatedMlp().state_dict(), tmp_path / "gated.pt")
    options = ExportOptions(input_shapes={"x": (2, 4)})
    source = SourceOptions(weights=tmp_path / "gated.pt", onnx_path=tmp_path / "gated.onnx")
    counted = export_any("torchnets:GatedMlp", None, options=options, source=source)
    assert counted.graph is None
    assert counted.estimated_bytes > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gated.onnx", "gated.pt"]
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        written = export_any("torchnets:GatedMlp", store, options=options, source=source)
        reader = store.graph(written.graph)
        assert reader.summary["wiring"] == "declared"
        assert reader.summary["source"] == "torchnets:GatedMlp"
        for name, tensor in read_weights(tmp_path / "gated.pt").tensors.items():
            np.testing.assert_array_equal(restore_tensor(reader, name), tensor.array())
    assert written.trace == counted.trace
    assert (written.name, written.input_shapes) == (counted.name, counted.input_shapes)


def test_a_factory_without_inputs_says_which_it_needs():
    with pytest.raises(UsageError, match=r"--input-shape NAME=1,3,64,64 for x"):
        export_any("torchnets:GatedMlp", None)
    with pytest.raises(UsageError, match=r"unknown input of GatedMlp 'image'; available: x"):
        export_any("torchnets:GatedMlp", None, options=ExportOptions(input_shapes={"image": (2, 4)}))


@pytest.mark.parametrize("spec", ["torch.nn:Nothing", "no_such_module:f", "torch:", ":f"])
def test_factories_that_do_not_exist(spec):
    with pytest.raises(UsageError):
        load_factory(spec)


@pytest.mark.parametrize(
    ("given", "arguments"), [([], None), ([1], (1,)), ([(1, 2)], (1, 2)), ([[1, 2]], (1, 2))]
)
def test_a_factory_gives_a_module_and_maybe_its_arguments(monkeypatch, given, arguments):
    module = torch.nn.Linear(3, 4)
    made = (module, *given) if given else module
    monkeypatch.setattr(torchnets, "made", lambda: made, raising=False)
    assert load_module("torchnets:made") == (module, arguments)


def test_a_factory_of_something_else_is_refused(monkeypatch):
    program = torch.export.export(torch.nn.Linear(3, 4), (torch.zeros(1, 3),))
    monkeypatch.setattr(torchnets, "made", lambda: (program, ()), raising=False)
    assert load_module("torchnets:made", programs=True) == (program, ())
    with pytest.raises(UsageError, match="made a ExportedProgram; expected a module"):
        load_module("torchnets:made")


def test_weights_get_into_a_module_bit_for_bit(weights):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    file = read_weights(weights)
    load_weights(module, file)
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), file.tensors[name].array())
