"""A dry run's estimate of what a store will take, against stores."""

import numpy as np
import onnx
import pytest
from nets import Net

from emergraph.exporters.export import dry_run, export_onnx
from emergraph.graphstore.store import open_store


def dense(net: Net) -> str:
    h = net.op("MatMul", net.input(2, 300, name="x"), net.value(net.rng.normal(size=(300, 500))))
    return net.op("MatMul", net.op("Relu", h), net.value(net.rng.normal(size=(500, 400))))


def convolutions(net: Net) -> str:
    h = net.input(1, 3, 8, 8, name="x")
    for before, after in ((3, 64), (64, 128)):
        h = net.op("Conv", h, net.value(net.rng.normal(size=(after, before, 3, 3))), pads=[1, 1, 1, 1])
    return h


def small(net: Net) -> str:
    return net.op("MatMul", net.input(2, 3, name="x"), net.value(np.ones((3, 4))))


@pytest.mark.parametrize("build", [dense, convolutions, small])
def test_the_estimate_is_near_the_size_of_the_store(build, tmp_path):
    net = Net()
    net.output(build(net))
    onnx.save(net.model(), tmp_path / "net.onnx")
    estimate = dry_run(tmp_path / "net.onnx").estimated_bytes
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        export_onnx(tmp_path / "net.onnx", store)
    assert estimate is not None
    assert estimate == pytest.approx((tmp_path / "net.duckdb").stat().st_size, rel=0.25)
