"""Which units of traced graphs are renumbered, and which of them only together."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from plantednets import recurrent

from emergraph.analysis.comparison.model import read_model
from emergraph.exporters.export import ExportOptions, export_onnx
from emergraph.graphstore.store import open_store


def model_of(path, folder):
    with open_store(folder / "net.duckdb", mode="create") as store:
        export_onnx(path, store, options=ExportOptions())
        return read_model(store.graph(), "net")


def places(model, tensor):
    """Group and (orbits, units of each) of the first segment of rows and columns."""
    return [(axis[0].group, axis[0].places.shape) for axis in model.groups.axes[tensor]]


def test_gates_of_a_cell_go_together(tmp_path):
    found = model_of(recurrent().save(tmp_path / "net.onnx"), tmp_path)
    (group, shape), (before, _) = places(found, "wi")
    assert shape == (10, 4)
    assert before == ""
    assert places(found, "wr") == [(group, (10, 4)), (group, (10, 1))]
    assert places(found, "w1")[1] == (group, (10, 1))
    assert places(found, "w1")[0][0] not in ("", group)
    assert places(found, "w2")[0][0] == ""


def residual(path, groups):
    """Two convolutions around one with groups, whose channels are added to those of the last."""
    draw = np.random.default_rng(0).standard_normal
    weights = {"a": (8, 3, 3, 3), "d": (8, 8 // groups, 3, 3), "b": (8, 8, 1, 1), "head": (5, 8)}
    tensors = [numpy_helper.from_array(draw(s).astype(np.float32), n) for n, s in weights.items()]
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["ha"], **pads),
        helper.make_node("Conv", ["ha", "d"], ["hd"], group=groups, **pads),
        helper.make_node("Conv", ["hd", "b"], ["hb"]),
        helper.make_node("Add", ["hd", "hb"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["y"], transB=1),
    ]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])]
    outs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])]
    graph = helper.make_graph(nodes, "net", ends, outs, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_depthwise_convolution_and_a_sum_keep_channels_together(tmp_path):
    found = model_of(residual(tmp_path / "net.onnx", 8), tmp_path)
    (group, shape), _ = places(found, "a")
    assert shape == (8, 1)
    for tensor, sides in (("d", (0,)), ("b", (0, 1)), ("head", (1,))):
        assert [places(found, tensor)[side] for side in sides] == [(group, (8, 1))] * len(sides)
    assert places(found, "head")[0][0] == ""


def test_groups_of_a_convolution_go_whole(tmp_path):
    found = model_of(residual(tmp_path / "net.onnx", 2), tmp_path)
    (group, shape), _ = places(found, "a")
    assert shape == (2, 4)
    assert places(found, "d")[0] == (group, (2, 4))
    assert places(found, "b") == [(group, (2, 4)), (group, (2, 4))]
