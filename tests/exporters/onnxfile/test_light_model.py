"""The light model is the model: putting the values back gives the file again."""

import random

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from emergraph.exporters.onnxfile.dtypes import DATA_FIELDS
from emergraph.exporters.onnxfile.limits import ReadLimits
from emergraph.exporters.onnxfile.traverse import bodies, body_tensors
from emergraph.exporters.onnxfile.weightless_model import KINDS, MAX_DEPTH, lighten


def heavy_model(rng):
    """Values in every place that may hold some."""

    def tensor(name):
        size = rng.choice([3, 40, 700])
        kind = rng.choice(["raw", "float", "int32", "int64", "double", "uint64", "string"])
        proto = TensorProto(name=name, dims=[size], doc_string="d" * rng.randrange(3))
        if kind == "raw":
            proto.data_type, proto.raw_data = TensorProto.FLOAT, rng.randbytes(4 * size)
        elif kind == "string":
            proto.data_type = TensorProto.STRING
            proto.string_data.extend(rng.randbytes(3) for _ in range(size))
        else:
            element = {"float": 1, "int32": 6, "int64": 7, "double": 11, "uint64": 13}[kind]
            proto.data_type = element
            low = 0 if kind == "uint64" else -(2**31)
            getattr(proto, f"{kind}_data").extend(rng.randrange(low, 2**31) for _ in range(size))
        return proto

    def graph(depth):
        nodes = []
        for index in range(rng.randrange(1, 4)):
            node = helper.make_node("Op", [], [f"o{depth}{index}"], name=f"n{depth}{index}", k=index)
            node.attribute.append(helper.make_attribute("t", tensor("")))
            node.attribute.append(helper.make_attribute("ts", [tensor("a"), tensor("b")]))
            node.attribute.append(
                helper.make_attribute(
                    "s", onnx.SparseTensorProto(values=tensor("v"), indices=tensor("i"), dims=[9])
                )
            )
            if depth:
                node.attribute.append(helper.make_attribute("g", graph(depth - 1)))
                node.attribute.append(helper.make_attribute("gs", [graph(depth - 1), graph(0)]))
            nodes.append(node)
        made = helper.make_graph(nodes, "g", [], [], [tensor(f"w{depth}{i}") for i in range(3)])
        made.sparse_initializer.add(values=tensor("sv"), indices=tensor("si"), dims=[4, 4])
        made.metadata_props.add(key="k", value="v")
        return made

    model = helper.make_model(graph(2), producer_name="p", doc_string="doc")
    function = model.functions.add(name="F", domain="d")
    function.node.extend(graph(1).node)
    function.attribute_proto.append(helper.make_attribute("default", tensor("f")))
    return model


def put_back(light, content):
    """Restore a light model with protobuf alone, value by value."""
    model = onnx.ModelProto.FromString(light.content)
    restored = 0
    for body in bodies(model):
        for proto in body_tensors(body):
            for tensor in (
                (proto.values, proto.indices) if isinstance(proto, onnx.SparseTensorProto) else (proto,)
            ):
                if tensor.data_location != TensorProto.EXTERNAL:
                    continue
                entries = {entry.key: entry.value for entry in tensor.external_data}
                values = light.mapped[int(entries["offset"])]
                assert values.end - values.start == int(entries["length"])
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
                piece = onnx.TensorProto.FromString(
                    _header(values.field, values.end - values.start) + content[values.start : values.end]
                )
                tensor.MergeFrom(piece)
                restored += 1
    assert restored == len(light.mapped)
    return model


def _header(field, size):
    out = bytearray([field << 3 | 2])
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(out) + bytes([size])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 50, 1024, 1 << 30]))
def test_nothing_is_lost(seed, inline_bytes):
    model = heavy_model(random.Random(seed))
    content = model.SerializeToString()
    light = lighten(memoryview(content), ReadLimits(inline_bytes=inline_bytes))
    assert put_back(light, content) == model
    if inline_bytes == 1 << 30:
        assert light.content == content
    elif inline_bytes <= 50:
        assert len(light.content) < len(content) / 2


def test_field_numbers_are_those_of_the_installed_schema():
    messages = {
        "model": onnx.ModelProto,
        "graph": onnx.GraphProto,
        "function": onnx.FunctionProto,
        "node": onnx.NodeProto,
        "attribute": onnx.AttributeProto,
        "sparse": onnx.SparseTensorProto,
        "tensor": onnx.TensorProto,
        "training": onnx.TrainingInfoProto,
    }
    kind_of = {message.DESCRIPTOR.full_name: kind for kind, message in messages.items()}
    for kind, table in KINDS.items():
        fields = messages[kind].DESCRIPTOR.fields
        leading = {
            f.number: kind_of[f.message_type.full_name]
            for f in fields
            if f.message_type and f.message_type.full_name in kind_of
        }
        assert table.children == leading
        assert table.singular == {f.number for f in fields if f.number in leading and not f.is_repeated}
        texts = {f.number for f in fields if f.type == f.TYPE_STRING}
        assert not texts & table.not_text
    for number, name in DATA_FIELDS.items():
        assert onnx.TensorProto.DESCRIPTOR.fields_by_name[name].number == number


def test_depth_is_that_of_protobuf():
    assert MAX_DEPTH == 100


def test_weights_of_local_functions_are_left_in_the_file(make, save, accepted):
    weight = np.arange(900, dtype=np.float32)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(weight, "c")),
        helper.make_node("Add", ["a", "c"], ["b"]),
    ]
    function = helper.make_function("f", "F", ["a"], ["b"], nodes, [helper.make_opsetid("", 21)])
    model = make.with_nodes(
        [helper.make_node("F", ["x"], ["y"], domain="f")], functions=[function], domains=["f"]
    )
    file = accepted(model)
    assert file.model.ByteSize() < 600
    proto = file.model.functions[0].node[0].attribute[0].t
    np.testing.assert_array_equal(file.tensor_of(proto).array(), weight)
