"""Tensors that are empty in the concrete run: no unit is invented, and what sees nothing says so."""

import numpy as np
import onnx
from nets import Net

from emergraph.exporters.export import dry_run


def test_what_sees_nothing_says_so(tmp_path):
    net = Net(seed=0)
    h = net.op("Relu", net.op("MatMul", net.input(1, 6, name="x"), net.param(6, 4)))
    hits = net.op("NonZero", net.op("Greater", h, net.value(np.float32(1e9))))
    rows = net.op("Gather", hits, net.value(np.int64(0)), axis=0)
    net.output(net.op("MatMul", net.op("Gather", h, rows, axis=0), net.param(4, 3)))
    net.output(net.op("MatMul", h, net.param(4, 2)))
    onnx.save(net.model(), tmp_path / "net.onnx")
    trace = dry_run(tmp_path / "net.onnx").trace
    assert trace.n_weight_edges == 6 * 4 + 4 * 2
    said = "MatMul sees nothing in the concrete run: a tensor of it is empty; give other inputs"
    assert [op.reason for op in trace.opaque] == [said]
