"""Exporting modules: left as they were, inputs of any nesting, refusals that help."""

import subprocess
import sys

import pytest
import torch
from clifiles import DEMO
from torch import nn
from torchnets import Branching, Gpt, Projected, make_net

from emergraph.errors import InvalidInputError
from emergraph.exporters.sources import export_module
from emergraph.graphstore.store import open_store


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "net.duckdb", mode="create") as opened:
        yield opened


def test_the_module_is_left_as_it_was(store):
    net = make_net("residual")
    net.module.train()
    net.module[1].bn1.eval()
    flags = [part.training for part in net.module.modules()]
    state = {name: value.clone() for name, value in net.module.state_dict().items()}
    hooks = [len(part._forward_hooks) for part in net.module.modules()]
    export_module(net.module, net.args, store)
    assert [part.training for part in net.module.modules()] == flags
    assert [len(part._forward_hooks) for part in net.module.modules()] == hooks
    after = net.module.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert all(parameter.requires_grad for parameter in net.module.parameters())


def test_the_module_is_left_as_it_was_after_an_error(store):
    module = Branching().train()
    with pytest.raises(InvalidInputError):
        export_module(module, (torch.randn(2, 3),), store)
    assert module.training
    assert module.fc.training


def test_dicts_and_tuples_as_inputs(store):
    net = make_net("nested")
    named, pair = net.args
    summary = export_module(net.module, (named,), store, kwargs={"pair": pair})
    assert set(summary.input_shapes) == {"named_a", "pair_0", "pair_1"}
    assert summary.input_shapes["pair_0"] == (2, 2)
    # without kwargs it is the same graph
    other = export_module(net.module, net.args, store)
    assert (other.trace is None) or other.trace.n_edges == summary.trace.n_edges


def test_axes_that_may_vary_keep_the_graph(store):
    net = make_net("mlp")
    shapes = ({0: torch.export.Dim.AUTO},)
    fixed = export_module(net.module, net.args, store)
    free = export_module(net.module, net.args, store, dynamic_shapes=shapes)
    assert not free.reused
    assert free.trace.n_edges == fixed.trace.n_edges


def test_buffers_and_constants_of_a_module_take_part(store):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)
            self.register_buffer("gain", torch.tensor([2.0, 4.0]))

        def forward(self, x):
            return self.fc(x) * self.gain

    reader = store.graph(export_module(Scaled(), (torch.randn(2, 3),), store).graph)
    assert reader.units()["scale"].to_list()[-2:] == [2.0, 4.0]


def test_an_export_that_computes_something_else_is_refused(store):
    class Doubled(nn.Linear):
        """Computes twice as much when it is not being exported."""

        def forward(self, x):
            y = super().forward(x)
            return y if torch.compiler.is_exporting() else 2 * y

    with pytest.raises(InvalidInputError, match=r"computes something else: output 0 differs by up to"):
        export_module(Doubled(3, 2), (torch.ones(1, 3),), store)
    assert store.graphs().height == 0


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_an_lstm_with_projection_is_refused(store):
    with pytest.raises(InvalidInputError, match=r"Projected to an ONNX file that .* no graph was made"):
        export_module(Projected(), (torch.randn(1, 4, 3),), store)


def test_an_if_on_data_is_refused_with_what_to_do(store, capfd):
    with pytest.raises(InvalidInputError, match=r"data-dependent.*torch\.cond.*trace_module") as caught:
        export_module(Branching(), (torch.randn(2, 3),), store)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_inputs_that_do_not_fit_are_refused(store):
    with pytest.raises(InvalidInputError, match="does not run on the example inputs"):
        export_module(nn.Linear(3, 2), (torch.randn(2, 5),), store)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_element_types(store, dtype):
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).to(dtype)
    summary = export_module(net, (torch.randn(2, 4, dtype=dtype),), store)
    assert summary.trace.n_weight_edges == 36
    reader = store.graph()
    assert reader.layers()["dtype"].to_list()[1:] == [str(dtype).removeprefix("torch.")] * 2


def test_untied_and_tied_decoders_differ_by_one_matrix(store):
    args = (torch.tensor([[1, 2, 3]]),)
    tied = export_module(Gpt(), args, store).trace
    untied = export_module(Gpt(tied=False), args, store).trace
    assert untied.n_parameters - tied.n_parameters == 11 * 8
    assert untied.n_edges == tied.n_edges


def test_without_torch_an_onnx_file_works_and_pytorch_gets_the_pip_line(tmp_path):
    program = """
import sys
sys.modules["torch"] = None
from emergraph.cli.main import main
onnx, store = sys.argv[1:]
print(main(["export", onnx, store, "--quiet", "--out", "/dev/null"]))
print(main(["export", "torchnets:Gpt", store]))
"""
    onnx = DEMO / "digits_dense.onnx"
    result = subprocess.run(
        [sys.executable, "-c", program, str(onnx), str(tmp_path / "net.duckdb")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["0", "2"]
    assert 'pip install "emergraph[torch]"' in result.stderr
    assert len(result.stderr.splitlines()) == 1
