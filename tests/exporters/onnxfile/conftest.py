"""Small models for the tests beside to spoil, and the check that a spoiled one is refused."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.errors import EmergraphError
from emergraph.exporters.onnxfile.check import check_onnx
from emergraph.exporters.onnxfile.findings import KINDS
from emergraph.exporters.onnxfile.reader import read_onnx


def dense(weight=None, **changes):
    """A model with one MatMul; `changes` are set on its weight tensor."""
    proto = numpy_helper.from_array(np.ones((30, 40), np.float32) if weight is None else weight, "w")
    if changes:
        proto.ClearField("raw_data")
    for field, value in changes.items():
        if isinstance(value, list):
            proto.ClearField(field)
            getattr(proto, field).extend(value)
        else:
            setattr(proto, field, value)
    return with_nodes([helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")], [proto])


def with_nodes(nodes, initializers=(), functions=(), opset=21, domains=()):
    """A model with one input x and one output y."""
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 30])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(initializers),
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions))


def external(location, n_bytes=4800, dims=(30, 40), **keys):
    """A model whose weight is in another file; `location=None` leaves the key out."""
    model = dense(data_location=TensorProto.EXTERNAL)
    tensor = model.graph.initializer[0]
    tensor.dims[:] = dims
    entries = {} if location is None else {"location": location}
    if n_bytes is not None:
        entries["length"] = str(n_bytes)
    for key, value in (entries | keys).items():
        tensor.external_data.add(key=key, value=str(value))
    return model


@pytest.fixture
def make():
    return SimpleNamespace(dense=dense, with_nodes=with_nodes, external=external)


@pytest.fixture
def save(tmp_path):
    """Write a model, or bytes, into a folder of its own and return the path."""

    def write(model) -> Path:
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        path = folder / "m.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return write


@pytest.fixture
def refused(save):
    """Check that a model is refused with a finding: by its error, in time, in one line, and by `check`."""

    def check(model, finding_id, *, seconds=10.0, **options):
        path = model if isinstance(model, Path) else save(model)
        start = time.monotonic()
        with pytest.raises(EmergraphError) as caught:
            read_onnx(path, **options)
        found = check_onnx(path, **options)
        assert time.monotonic() - start < seconds
        assert type(caught.value) is KINDS[finding_id].error
        message = str(caught.value)
        assert message.startswith("m.onnx: ")
        assert message.endswith(f"[{finding_id}]")
        assert message.isprintable()
        assert len(message) < 400
        assert finding_id in {finding.id for finding in found}
        assert all(finding.line().isprintable() for finding in found)
        return message

    return check


@pytest.fixture
def accepted(save):
    """Check that a model is read, and that `check` has these findings beside no error; returns the file."""

    def check(model, *finding_ids, **options):
        path = model if isinstance(model, Path) else save(model)
        file = read_onnx(path, **options)
        found = check_onnx(path, **options)
        assert not [finding for finding in found if finding.severity == "error"]
        assert set(finding_ids) <= {finding.id for finding in found}, found
        assert all(finding.line().isprintable() for finding in found)
        return file

    return check


@pytest.fixture
def unwrapped():
    """A model as onnx itself reads it."""
    return onnx.load
