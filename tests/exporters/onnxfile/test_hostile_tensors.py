"""Cases 8 to 14 and 26 to 29: tensors that claim more, less or something else than they hold."""

import tracemalloc

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile.check import check_onnx
from emergraph.exporters.onnxfile.dtypes import BY_NAME, ELEMENT_TYPES
from emergraph.exporters.onnxfile.limits import ReadLimits
from emergraph.exporters.onnxfile.reader import read_onnx

RNG = np.random.default_rng(7)


def test_case_08_dimensions_whose_product_overflows(make, refused):
    refused(make.dense(dims=[2**62, 4], raw_data=bytes(64)), "ONNX-TENSOR-HUGE")
    refused(make.dense(dims=[2**62] * 64, raw_data=b"x"), "ONNX-TENSOR-HUGE")


def test_case_09_negative_dimensions(make, refused):
    refused(make.dense(dims=[-1, 40], raw_data=bytes(160)), "ONNX-TENSOR-SHAPE")
    refused(make.dense(dims=[-2, -600], raw_data=bytes(4800)), "ONNX-TENSOR-SHAPE")
    refused(make.dense(dims=[1] * 65, raw_data=bytes(4)), "ONNX-TENSOR-SHAPE")


@pytest.mark.parametrize("size", [16, 15, 0, 160001, 8000])
def test_case_10_bytes_that_do_not_fit_the_dimensions(make, refused, size):
    message = refused(make.dense(dims=[200, 200], raw_data=bytes(size)), "ONNX-TENSOR-DATA")
    assert "160000" in message


def test_case_11_no_elements_but_a_huge_dimension(make, accepted):
    tracemalloc.start()
    file = accepted(make.dense(dims=[0, 2**40], raw_data=b""), "ONNX-TENSOR-EMPTY-HUGE")
    assert file.tensors["w"].array().shape == (0, 2**40)
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()
    tensor = accepted(make.dense(dims=[0, 2**62, 2**62]), "ONNX-TENSOR-EMPTY-HUGE").tensors["w"]
    assert (tensor.n_elements, tensor.n_bytes) == (0, 0)
    with pytest.raises(InvalidInputError, match="beyond what arrays can have"):
        tensor.array()


def test_case_12_dimensions_without_values(make, refused):
    refused(make.dense(dims=[30, 40]), "ONNX-TENSOR-DATA")
    refused(make.dense(dims=[]), "ONNX-TENSOR-DATA")


@pytest.mark.parametrize("size", [4, 4800])
def test_case_13_values_in_two_places(make, refused, size):
    model = make.dense(dims=[size // 4], raw_data=bytes(size), float_data=[1.0] * (size // 4))
    refused(model, "ONNX-TENSOR-TWICE")
    refused(make.dense(dims=[size // 4], raw_data=b"", float_data=[1.0] * (size // 4)), "ONNX-TENSOR-TWICE")
    refused(make.dense(dims=[2], int64_data=[1, 2], float_data=[1.0, 2.0]), "ONNX-TENSOR-TWICE")


def test_case_13_values_here_and_outside(make, save, refused, accepted):
    model = make.dense(dims=[30, 40], raw_data=bytes(4800), data_location=TensorProto.EXTERNAL)
    model.graph.initializer[0].external_data.add(key="location", value="w.bin")
    refused(model, "ONNX-TENSOR-TWICE")
    model.graph.initializer[0].data_location = TensorProto.DEFAULT
    file = accepted(model, "ONNX-EXT-UNUSED")
    assert not file.external_files
    assert file.tensors["w"].array().shape == (30, 40)


@pytest.mark.parametrize("data_type", [0, 99, -1, 29, 2**31 - 1])
def test_case_14_unknown_element_type(make, refused, data_type):
    refused(make.dense(dims=[4], raw_data=bytes(16), data_type=data_type), "ONNX-TENSOR-TYPE")


def test_values_in_the_wrong_field(make, refused):
    refused(make.dense(dims=[2], int64_data=[1, 2]), "ONNX-TENSOR-DATA")
    refused(make.dense(dims=[2], data_type=8, raw_data=b"ab"), "ONNX-TENSOR-DATA")
    refused(make.dense(dims=[3], data_type=8, string_data=[b"a", b"b"]), "ONNX-TENSOR-DATA")
    refused(make.dense(dims=[2000], data_type=7, int64_data=[1] * 1999), "ONNX-TENSOR-DATA")
    refused(make.dense(dims=[2000], float_data=[1.0] * 1999), "ONNX-TENSOR-DATA")


def test_segments(make, refused):
    model = make.dense(dims=[4], raw_data=bytes(16))
    model.graph.initializer[0].segment.begin = 0
    refused(model, "ONNX-TENSOR-SEGMENT")


def sparse_model(make, values, indices, dims, index_type=TensorProto.INT64):
    model = make.with_nodes([helper.make_node("MatMul", ["x", "s"], ["y"])])
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), "s"))
    indices = np.asarray(indices)
    sparse.indices.CopyFrom(helper.make_tensor("i", index_type, indices.shape, indices.ravel()))
    sparse.dims[:] = dims
    return model


def test_case_26_sparse_tensors_stay_sparse(make, accepted):
    tracemalloc.start()
    file = accepted(sparse_model(make, [1, 2, 3], [0, 2**20 + 5, 2**40 - 1], [2**20, 2**20]))
    tensor = file.sparse_tensors["s"]
    assert tensor.n_elements == 2**40
    assert tensor.coordinates().tolist() == [[0, 0], [1, 5], [2**20 - 1, 2**20 - 1]]
    assert tensor.array().tolist() == [1, 2, 3]
    by_pairs = accepted(sparse_model(make, [1, 2], [[0, 3], [7, 1]], [8, 4])).sparse_tensors["s"]
    assert by_pairs.linear_indices().tolist() == [3, 29]
    assert tracemalloc.get_traced_memory()[1] < 8e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("values", "indices", "dims"),
    [
        ([1, 2], [0, 12], [3, 4]),
        ([1, 2], [-1, 0], [3, 4]),
        ([1, 2], [5, 5], [3, 4]),
        ([1, 2], [[0, 0], [3, 0]], [3, 4]),
        ([1, 2], [[0, 0], [0, 4]], [3, 4]),
        ([1, 2], [[1, 1], [1, 1]], [3, 4]),
        ([1, 2], [0, 1, 2], [3, 4]),
        ([1, 2], [[0], [1]], [3, 4]),
        ([1, 2], [0, 1], [-3, 4]),
        ([1, 2], [0, 1], []),
        ([[1, 2]], [0, 1], [3, 4]),
    ],
)
def test_case_26_sparse_indices_out_of_bounds_or_twice(make, refused, values, indices, dims):
    refused(sparse_model(make, values, indices, dims), "ONNX-SPARSE-INVALID")


def test_case_26_sparse_dimensions_and_index_types(make, refused):
    refused(sparse_model(make, [1], [0], [2**40, 2**40]), "ONNX-TENSOR-HUGE")
    refused(sparse_model(make, [1], [0], [4], TensorProto.INT32), "ONNX-SPARSE-INVALID")


def test_case_27_special_values_are_found(make, accepted):
    weight = RNG.normal(size=(30, 40)).astype(np.float32)
    weight[0, :3] = np.nan, np.inf, 1e-40
    accepted(make.dense(weight), "ONNX-VALUE-NONFINITE", "ONNX-VALUE-SUBNORMAL")
    accepted(make.dense(np.zeros((30, 40), np.float32)), "ONNX-VALUE-ZERO")
    half = weight.astype(ml_dtypes.float8_e5m2)
    accepted(make.dense(half), "ONNX-VALUE-NONFINITE")


def test_case_27_counts(make, save):
    weight = np.ones((2000, 1000), np.float32)  # more than one chunk
    weight.ravel()[[0, 5, 1_999_999]] = np.nan, -np.inf, np.inf
    finding = next(f for f in check_onnx(save(make.dense(weight))) if f.id == "ONNX-VALUE-NONFINITE")
    assert finding.line() == "tensor 'w': 1 NaN and 2 infinite of 2000000 values"


def test_case_27_ordinary_weights_give_no_finding(make, save):
    assert check_onnx(save(make.dense(RNG.normal(size=(30, 40)).astype(np.float32)))) == []


NUMERIC = [element for element in ELEMENT_TYPES.values() if element.name != "string"]


def example(element, n_elements):
    """All bit patterns of small types, random bits of large ones."""
    if element.bits <= 8:
        codes = np.arange(n_elements) % (2 if element.name == "bool" else 1 << element.bits)
        if element.name.startswith("int") and element.bits < 8:
            return (codes - (codes >> (element.bits - 1) << element.bits)).astype(element.dtype)
        if element.name.startswith(("int", "uint", "bool")):
            return codes.astype(np.uint8).astype(element.dtype)
        return codes.astype(np.uint8).view(element.dtype)
    return np.frombuffer(RNG.bytes(n_elements * element.bits // 8), element.dtype)


@pytest.mark.parametrize("n_elements", [0, 1, 257, 4099])
@pytest.mark.parametrize("element", NUMERIC, ids=lambda element: element.name)
def test_case_28_raw_values_of_every_type_decode_exactly(make, save, element, n_elements):
    values = example(element, n_elements)
    proto = numpy_helper.from_array(values, "w")
    assert proto.data_type == element.code
    model = make.dense()
    model.graph.initializer[0].CopyFrom(proto)
    tensor = read_onnx(save(model)).tensors["w"]
    assert tensor.dtype == element.name
    assert tensor.array().dtype == values.dtype
    assert tensor.array().tobytes() == values.tobytes()
    assert bytes(tensor.raw()) == proto.raw_data
    assert tensor.n_bytes == len(proto.raw_data)


@pytest.mark.parametrize("inline_bytes", [1, 1 << 20])
@pytest.mark.parametrize("n_elements", [1, 257, 4099])
@pytest.mark.parametrize("element", NUMERIC, ids=lambda element: element.name)
def test_case_28_typed_values_of_every_type_decode_exactly(make, save, element, n_elements, inline_bytes):
    values = example(element, n_elements)
    if "float32" in element.name or "complex" in element.name:  # protobuf's Python floats lose NaN payloads
        values = RNG.normal(size=n_elements).astype(element.dtype)
    raw = numpy_helper.from_array(values, "w")
    if element.bits < 8 and element.per_entry > 1:
        typed = TensorProto(name="w", data_type=element.code, dims=[n_elements], int32_data=raw.raw_data)
    elif element.bits < 8:
        codes = values.view(np.uint8)
        typed = TensorProto(name="w", data_type=element.code, dims=[n_elements], int32_data=codes)
    elif "float" in element.name and element.bits <= 16:
        bits = values.view(f"u{element.bits // 8}")
        typed = TensorProto(name="w", data_type=element.code, dims=[n_elements], int32_data=bits)
    else:
        typed = helper.make_tensor("w", element.code, [n_elements], values)
    assert not typed.HasField("raw_data")
    model = make.dense()
    model.graph.initializer[0].CopyFrom(typed)
    tensor = read_onnx(save(model), limits=ReadLimits(inline_bytes=inline_bytes)).tensors["w"]
    assert tensor.array().tobytes() == values.tobytes()
    assert bytes(tensor.raw()) == raw.raw_data


def test_case_28_text_is_skipped_with_a_finding(make, accepted):
    file = accepted(make.dense(dims=[2], data_type=8, string_data=[b"a", b"\xff"]), "ONNX-TENSOR-SKIPPED")
    tensor = file.tensors["w"]
    assert (tensor.dtype, tensor.n_elements) == ("string", 2)
    with pytest.raises(InvalidInputError, match="holds text"):
        tensor.array()
    with pytest.raises(InvalidInputError, match="holds text"):
        tensor.raw()


def test_case_28_complex_is_reported(make, accepted):
    accepted(make.dense(np.ones((2, 2), np.complex64)), "ONNX-TENSOR-SKIPPED")


@pytest.mark.parametrize(
    ("data_type", "value"), [("int8", 300), ("uint8", -1), ("float16", 1 << 16), ("bool", 2), ("int4", 256)]
)
@pytest.mark.parametrize("n_entries", [3, 3000])
def test_case_29_typed_values_out_of_range(make, save, data_type, value, n_entries):
    element = BY_NAME[data_type]
    dims = [n_entries * element.per_entry]
    path = save(make.dense(dims=dims, data_type=element.code, int32_data=[value] * n_entries))
    assert "ONNX-TENSOR-DATA" in {finding.id for finding in check_onnx(path)}
    with pytest.raises(InvalidInputError, match="outside"):
        read_onnx(path).tensors["w"].array()


def quantized(scale, zero=None, axis=1, weight=None, **attributes):
    weight = np.arange(1200).astype(np.int8).reshape(30, 40) if weight is None else weight
    tensors = [
        numpy_helper.from_array(weight, "q"),
        numpy_helper.from_array(np.asarray(scale, np.float32), "s"),
    ]
    inputs = ["q", "s"]
    if zero is not None:
        tensors.append(numpy_helper.from_array(zero, "z"))
        inputs.append("z")
    nodes = [
        helper.make_node("DequantizeLinear", inputs, ["w"], axis=axis, **attributes),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    return nodes, tensors


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, [1.0] * 39 + [0.0]])
def test_case_29_unusable_scales(make, accepted, scale):
    accepted(make.with_nodes(*quantized(scale)), "ONNX-QUANT-SCALE")


@pytest.mark.parametrize(
    "options",
    [
        {"scale": [1.0] * 39},
        {"scale": [1.0] * 40, "axis": 5},
        {"scale": 1.0, "zero": np.zeros((), np.uint8)},
        {"scale": np.ones((3, 40)), "axis": 0, "block_size": 16},
    ],
)
def test_case_29_scales_that_do_not_fit(make, accepted, options):
    accepted(make.with_nodes(*quantized(**options)), "ONNX-QUANT-SHAPE")


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 0.1},
        {"scale": [0.1] * 40, "zero": np.zeros(40, np.int8)},
        {"scale": [0.1] * 30, "axis": -2},
        {"scale": np.ones((2, 40)), "axis": 0, "block_size": 16},
    ],
)
def test_case_29_good_scales_give_no_finding(make, save, options):
    assert check_onnx(save(make.with_nodes(*quantized(**options)))) == []


def test_light_constants_are_found_by_attribute(make, save):
    weight = RNG.normal(size=(30, 40)).astype(np.float32)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight, "inner")),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    file = read_onnx(save(make.with_nodes(nodes)))
    proto = file.model.graph.node[0].attribute[0].t
    assert file.model.ByteSize() < 600
    np.testing.assert_array_equal(file.tensor_of(proto).array(), weight)
    copy = onnx.TensorProto.FromString(proto.SerializeToString())
    np.testing.assert_array_equal(file.tensor_of(copy).array(), weight)


def test_arrays_are_aligned_and_read_only(make, save):
    for shift in range(4):
        model = make.dense(np.ones((30, 40), np.float32))
        model.graph.initializer[0].doc_string = "x" * shift
        array = read_onnx(save(model)).tensors["w"].array()
        assert array.flags.aligned
        assert not array.flags.writeable
