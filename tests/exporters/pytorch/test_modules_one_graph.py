"""The same network as module, exported program and ONNX file is one graph."""

import onnx
import onnxscript
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal, assert_series_equal
from torchnets import ARCHITECTURES, make_net

from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.exporters.sources import export_module
from emergraph.graphstore.restore import restore_tensor
from emergraph.graphstore.store import open_store

FORCE = ExportOptions(force=True)
LAYERS = ("id", "name", "op", "kind", "depth", "first_unit", "n_units")
_TRANSFORMER = (10, 24 + 2 + 8 + 8 + 8 + 1 + 16 + 8 + 8 + 1, 8 * 24 + 8 * 8 + 2 * 8 * 16)
COUNTS = ("n_params", "n_zeros")
SIZES = {
    # layers, units, edges with parameters; counted by hand from the definitions in torchnets
    "mlp": (3, 5 + 7 + 3, 5 * 7 + 7 * 3),
    "residual": (9, 2 + 4 + 2 * (4 + 4 + 4) + 3, 2 * 4 + 4 * 4 * 4 + 4 * 3),
    "depthwise": (4, 2 + 4 + 8 + 3, 2 * 4 + 8 + 8 * 3),
    "unet": (5, 1 + 4 + 6 + 4 + 2, 4 + 24 + 24 + 8 * 2),
    # two directions, each with two gates and a candidate
    "gru": (5, 3 + 2 * (2 * 4 + 4 + 4) + 2, 2 * 3 * 4 * (3 + 4) + 8 * 2),
    # two layers, each with four gates and a cell
    "lstm": (8, 3 + 2 * (4 * 4 + 4 + 4) + 2, 16 * (3 + 4) + 16 * (4 + 4) + 4 * 2),
    # per block: q k v, two scores, context, projection, junction, statistic, two dense, junction, statistic
    "encoder": (1 + 2 * _TRANSFORMER[0], 8 + 2 * _TRANSFORMER[1], 2 * _TRANSFORMER[2]),
    # a table, whose features have one edge each, a last statistic and the head besides
    "gpt": (4 + 2 * _TRANSFORMER[0], 1 + 8 + 2 * _TRANSFORMER[1] + 1 + 11, 8 + 2 * _TRANSFORMER[2] + 8 * 11),
    "gated": (5, 4 + 6 + 6 + 6 + 4, 3 * 24),
    # a statistic, the largest weight, three experts, any of which may be picked, and its features weighted
    "mixture": (10, 4 + 3 + 1 + 1 + 3 * 4 + 4 + 4 + 2, 4 * 3 + 3 * 4 * 4 + 4 * 2),
    "nested": (7, 3 + 2 + 4 + 4 + 4 + 4 + 4, 3 * 4 + 2 * 4),
}
FOLDED = {"residual"}
"""torch's optimisation moves the scale of a batch normalisation into the weights before it."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def exported(request, tmp_path_factory):
    """One network, three times in a store: module, program, file; and the optimised file."""
    net = make_net(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    file, optimised = folder / "file.onnx", folder / "optimised.onnx"
    with open_store(folder / "net.duckdb", mode="create") as store:
        summaries = [export_module(net.module, net.args, store, options=FORCE)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_args, **_options: None)
            program = torch.export.export(net.module.eval(), net.args)
            summaries.append(export_module(program, net.args, store, onnx_path=file, options=FORCE))
            # what torch.onnx.export does to a file unless it is told not to
            onnx.save(onnxscript.optimizer.optimize(onnx.load(file)), optimised)
        summaries.extend(export_onnx(path, store, options=FORCE) for path in (file, optimised))
        yield request.param, net.module, store, summaries


def test_three_ways_give_one_graph(exported):
    _, _, store, summaries = exported
    first = store.graph(summaries[0].graph)
    for summary in summaries[1:3]:
        other = store.graph(summary.graph)
        assert_frame_equal(first.layers().select(LAYERS), other.layers().select(LAYERS))
        assert_frame_equal(first.units(), other.units())
        assert_frame_equal(edges(first), edges(other))
        assert_frame_equal(first.tensors().drop("block", "role"), other.tensors().drop("block", "role"))
        # a file does not tell a module's buffers, such as running statistics, from its parameters
        buffers = first.tensors()["role"] == "buffer"
        ours, theirs = (reader.tensors()["role"].cast(str).filter(~buffers) for reader in (first, other))
        assert_series_equal(ours, theirs)
        for name in COUNTS:
            more = other.layers()[name] - first.layers()[name]
            assert more.min() >= 0
            assert buffers.any() or more.max() == 0


def edges(reader):
    frame = reader.edges().with_columns(pl.col("kind").cast(str), pl.col("tensor").cast(str))
    return frame.drop("block").sort("src", "dst", "kind", "weight")


def test_an_optimised_file_has_the_same_units_and_edges(exported):
    name, _, store, summaries = exported
    first, optimised = store.graph(summaries[0].graph), store.graph(summaries[3].graph)
    assert first.layers()["kind"].to_list() == optimised.layers()["kind"].to_list()
    keys = ("src", "dst", "kind")
    ours, theirs = (edges(reader).select(*keys, "weight").sort(*keys) for reader in (first, optimised))
    assert_frame_equal(ours.select(keys), theirs.select(keys))
    if name not in FOLDED:
        assert_frame_equal(ours, theirs)


def test_every_parameter_is_understood_and_restored(exported):
    name, module, store, summaries = exported
    summary, reader = summaries[0], store.graph(summaries[0].graph)
    assert summary.trace.coverage == 1
    assert not summary.trace.opaque
    stored = set(reader.tensors()["name"])
    parameters = dict(module.named_parameters(remove_duplicate=False))
    missing = set(parameters) - stored
    assert missing == ({"wte.weight"} if name == "gpt" else set())
    for key in set(parameters) - missing:
        assert restore_tensor(reader, key).tobytes() == parameters[key].detach().numpy().tobytes()


def test_sizes_are_those_of_the_definition(exported):
    name, _, _, summaries = exported
    trace = summaries[0].trace
    assert (trace.n_layers, trace.n_units, trace.n_weight_edges) == SIZES[name]


def test_tied_weights_are_one_tensor_used_twice(tmp_path):
    net = make_net("gpt")
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        blocks = store.graph(export_module(net.module, net.args, store).graph).blocks()
        tied = blocks.filter(pl.col("tensor") == "head.weight")
        first = int(blocks["id"][0])
        assert tied["shared_with"].to_list() == [None, first]
        assert tied["name"].to_list()[0].startswith("wte")
