"""Decoders beside their naive twins."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergraph.errors import InvalidInputError
from emergraph.exporters.onnxfile import decoding
from emergraph.exporters.onnxfile.decoding import count_varints, decode_varints, pack_bits, unpack_bits
from emergraph.exporters.onnxfile.dtypes import BY_NAME, ELEMENT_TYPES
from emergraph.exporters.onnxfile.weightless_model import encode_varint, read_varint


def naive_unpack(packed, bits, n_elements):
    stream = [(byte >> bit) & 1 for byte in packed for bit in range(8)]
    return [sum(stream[i * bits + k] << k for k in range(bits)) for i in range(n_elements)]


@given(st.sampled_from([2, 4, 6]), st.data())
def test_unpacking_reads_the_bit_stream(bits, data):
    n_elements = data.draw(st.integers(0, 40))
    packed = data.draw(st.binary(min_size=-(-n_elements * bits // 8), max_size=-(-n_elements * bits // 8)))
    values = unpack_bits(np.frombuffer(packed, np.uint8), bits, n_elements)
    assert values.tolist() == naive_unpack(packed, bits, n_elements)


@given(st.sampled_from([2, 4, 6]), st.lists(st.integers(0, 3), max_size=40))
def test_packing_is_undone_by_unpacking(bits, values):
    packed = pack_bits(np.array(values, np.uint8), bits)
    assert len(packed) == -(-len(values) * bits // 8)
    assert unpack_bits(packed, bits, len(values)).tolist() == values


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_integers_decode_in_any_chunking(values):
    stored = np.frombuffer(b"".join(map(encode_varint, values)), np.uint8)
    assert count_varints(stored) == len(values)
    assert decode_varints(stored, len(values)).tolist() == values


def test_integers_across_chunks(monkeypatch):
    monkeypatch.setattr(decoding, "_CHUNK", 16)
    values = [2**k + k for k in range(64)] * 5
    stored = np.frombuffer(b"".join(map(encode_varint, values)), np.uint8)
    assert count_varints(stored) == len(values)
    assert decode_varints(stored, len(values)).tolist() == values


@given(st.binary(min_size=1, max_size=12))
def test_one_integer_is_read_like_protobuf_reads_it(content):
    try:
        expected = onnx.OperatorSetIdProto.FromString(b"\x10" + content).version % 2**64
    except Exception:  # noqa: BLE001 - protobuf's own error, whichever it is
        return
    value, end = read_varint(memoryview(content), 0, len(content))
    if end == len(content):
        assert value == expected


@pytest.mark.parametrize("content", [b"\x80" * 20, b"\x80" * 10 + b"\x01"])
def test_endless_integers(content):
    stored = np.frombuffer(content, np.uint8)
    with pytest.raises(InvalidInputError):
        decode_varints(stored, 1)


def test_every_type_of_onnx_is_known():
    names = dict(onnx.TensorProto.DataType.items())
    assert set(ELEMENT_TYPES) == set(names.values()) - {0}
    for code, element in ELEMENT_TYPES.items():
        assert BY_NAME[element.name].code == code
        if element.name != "string":
            assert element.dtype == onnx.helper.tensor_dtype_to_np_dtype(code)
            field = onnx.helper.tensor_dtype_to_field(code)
            assert onnx.TensorProto.DESCRIPTOR.fields_by_name[field].number == element.typed_field
