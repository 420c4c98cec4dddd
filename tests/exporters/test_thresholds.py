"""Both sides of the sizes at which reading, running and tracing take another path.

Further ones have their tests where they belong: pieces of large models (`test_concrete_run`), constants and
outputs that a run does not give back (`test_folding`, `test_checking`), the store (`tests/graphstore`).
"""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import polars as pl
import pytest
from nets import Net
from onnx import TensorProto, helper, numpy_helper
from tracedmodel import trace_model

from emergraph.errors import InvalidInputError, LimitError
from emergraph.exporters.onnxfile import check, decoding, reader
from emergraph.exporters.onnxfile.check import check_onnx
from emergraph.exporters.onnxfile.decoding import count_varints, decode_varints
from emergraph.exporters.onnxfile.reader import read_onnx
from emergraph.exporters.runtime import concrete, constant_nodes, feeds, flatten, frames, sizes, worker
from emergraph.exporters.runtime.assembly import INLINE_BYTES, INLINE_INTEGER_BYTES, assemble
from emergraph.exporters.runtime.constant_nodes import dense_of_sparse
from emergraph.exporters.runtime.feeds import InputHints, make_feeds
from emergraph.exporters.runtime.flat_model import FlatInput
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.exporters.runtime.process import EVERYTHING, SMALL_ELEMENTS, ModelProcess
from emergraph.exporters.runtime.sources import InMemorySource
from emergraph.exporters.runtime.worker import MAX_INTEGERS
from emergraph.exporters.traces import recorded
from emergraph.exporters.tracing import builder, weights
from emergraph.graphstore import layout


@pytest.fixture(scope="module")
def process():
    with ModelProcess(RunLimits(threads=1)) as started:
        yield started


def sum_with(constant):
    """x + constant, of the constant's type."""
    kind = helper.np_dtype_to_tensor_dtype(constant.dtype)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, ["n"])],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(constant, "c")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(("dtype", "limit"), [(np.float32, INLINE_BYTES), (np.int64, INLINE_INTEGER_BYTES)])
@pytest.mark.parametrize("beyond", [0, 1])
def test_constants_travel_inside_the_model_or_beside_it(process, dtype, limit, beyond):
    n = limit // np.dtype(dtype).itemsize + beyond
    constant = np.arange(n).astype(dtype)
    source = InMemorySource(sum_with(constant))
    assembly = assemble(flatten.flatten(source.model), ["y"], source)
    assert len(assembly.weights) == beyond
    process.load(assembly)
    found = process.run({"x": np.ones(n, dtype)}, ["y"], small=EVERYTHING)["y"].values
    assert np.array_equal(found, constant + 1)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(np.float32, SMALL_ELEMENTS), (np.float16, SMALL_ELEMENTS), (np.int8, MAX_INTEGERS)]
)
@pytest.mark.parametrize("beyond", [0, 1])
def test_what_a_run_gives_back(process, dtype, limit, beyond):
    n = limit + beyond
    source = InMemorySource(sum_with(np.ones(1, dtype)))
    process.load(assemble(flatten.flatten(source.model), ["y"], source))
    feed = {"x": np.full(n, 2, dtype)}
    for small, given in ((SMALL_ELEMENTS, not beyond), (EVERYTHING, True), (0, False)):
        found = process.run(feed, ["y"], small=small)["y"]
        assert found.shape == (n,)
        assert (found.values is not None) == given
        assert found.values is None or (found.values == 3).all()


@pytest.mark.parametrize("n", [4, 5])
def test_inputs_that_are_made_up(monkeypatch, n):
    monkeypatch.setattr(feeds, "MAX_MADE", 4)
    inputs = [FlatInput("x", TensorProto.FLOAT, (n,))]

    def make():
        hints = InputHints({}, {})
        return make_feeds(inputs, {"x": (n,)}, hints, scalars={}, style="counting", seed=0)

    if n == 4:
        assert make()["x"].shape == (4,)
    else:
        with pytest.raises(LimitError, match="at most 4 elements"):
            make()


@pytest.mark.parametrize("n", [8, 9])
def test_sparse_tensors_that_are_made_dense(monkeypatch, n):
    monkeypatch.setattr(constant_nodes, "MAX_DENSE_ELEMENTS", 8)
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [2.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [3])
    sparse = helper.make_sparse_tensor(values, indices, [n])
    if n == 8:
        dense = numpy_helper.to_array(dense_of_sparse(sparse, numpy_helper.to_array))
        assert dense.tolist() == [0, 0, 0, 2, 0, 0, 0, 0]
    else:
        with pytest.raises(LimitError, match="at most 8 elements"):
            dense_of_sparse(sparse, numpy_helper.to_array)


@pytest.mark.parametrize("depth", [3, 4])
def test_subgraphs_within_subgraphs(monkeypatch, depth):
    monkeypatch.setattr(flatten, "MAX_NESTING", 3)
    body = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y0"])], "b", [], [helper.make_empty_tensor_value_info("y0")]
    )
    for level in range(1, depth + 1):
        other = onnx.GraphProto()
        other.CopyFrom(body)
        node = helper.make_node("If", ["c"], [f"y{level}"], then_branch=body, else_branch=other)
        body = helper.make_graph([node], "b", [], [helper.make_empty_tensor_value_info(f"y{level}")])
    body.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))
    body.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)])
    if depth == 3:
        assert len(flatten.flatten(model).nodes) == 1
    else:
        with pytest.raises(InvalidInputError, match="at most 3 levels"):
            flatten.flatten(model)


def test_headers_of_messages(monkeypatch):
    pieces = frames.pack({"a": 1}, [])
    size = len(pieces[1])
    monkeypatch.setattr(frames, "MAX_HEADER", size)
    stream = b"".join(bytes(piece) for piece in frames.pack({"a": 1}, []))

    def receive():
        rest = iter([stream[: frames.PREFIX.size], stream[frames.PREFIX.size :], b""])
        return frames.receive(lambda _: next(rest), 0)

    assert receive()[0] == {"a": 1}
    monkeypatch.setattr(frames, "MAX_HEADER", size - 1)
    with pytest.raises(frames.FrameError, match="at most"):
        frames.pack({"a": 1}, [])
    with pytest.raises(frames.FrameError, match="not a message"):
        receive()


def dense_net():
    net = Net(seed=1)
    shared = net.op("Expand", net.op("MatMul", net.input(1, 3, name="x"), net.param(3, 4)), net.ints(5, 4))
    net.output(net.op("MatMul", net.op("Reshape", shared, net.ints(1, 20)), net.param(20, 6)))
    return net.model()


def test_the_units_of_a_graph(monkeypatch):
    count = trace_model(dense_net()).summary.n_units
    monkeypatch.setattr(builder, "MAX_UNITS", count)
    assert trace_model(dense_net()).summary.n_units == count
    monkeypatch.setattr(builder, "MAX_UNITS", count - 1)
    with pytest.raises(LimitError, match=f"more than {count - 1} units"):
        trace_model(dense_net())


@pytest.mark.parametrize("chunk", [1, 20, 39, 40, 120])
def test_weights_that_are_summed_a_slice_of_columns_at_a_time(monkeypatch, chunk):
    def edges():
        blocks = trace_model(dense_net()).sink.blocks
        return [(b.src.tolist(), b.dst.tolist(), b.weight.tolist(), b.l1.tolist()) for b in blocks]

    expected = edges()
    monkeypatch.setattr(weights, "_CHUNK_ELEMENTS", chunk)
    assert edges() == expected


@pytest.mark.parametrize("shape", [(0, 3, 4), (1, 9, 40), (9, 1, 40), (5, 7, 3, 3)])
def test_kernels_that_are_summed_a_few_pairs_at_a_time(monkeypatch, shape):
    """To the last bit, also of a table, whose rows are the taps of its columns and far apart in memory."""
    values = np.random.default_rng(0).standard_normal(shape[::-1]).astype(np.float32).T
    kinds = ("l1", "l2", "max_abs", "n_params")

    def summed(chunk):
        monkeypatch.setattr(weights, "_CHUNK_ELEMENTS", chunk)
        found = weights.kernel_matrix(values, taps=values.ndim - 2)
        return [found.weights.tolist(), *(getattr(found.kernels, kind).tolist() for kind in kinds)]

    expected = summed(values.size + 1)
    assert all(summed(chunk) == expected for chunk in (1, 40, 80, values.size or 1))


@pytest.mark.parametrize("chunk", [10, 11, 12, 1 << 22])
def test_integers_that_are_decoded_a_piece_at_a_time(monkeypatch, chunk):
    numbers = [0, 127, 128, 300, (1 << 64) - 1, 5]
    tensor = TensorProto(uint64_data=numbers).SerializeToString()
    # one field of a two-byte head holds them all
    stored = np.frombuffer(tensor[-(1 + 1 + 2 + 2 + 10 + 1) :], np.uint8)
    monkeypatch.setattr(decoding, "_CHUNK", chunk)
    assert count_varints(stored) == len(numbers)
    assert decode_varints(stored, len(numbers)).tolist() == numbers


@pytest.mark.parametrize("n", [(1 << 12) - 1, 1 << 12])
def test_distinct_units_of_few_and_of_many_edges(n):
    units = np.random.default_rng(0).integers(0, 900, n).astype(np.int32)
    assert layout.distinct(units).tolist() == sorted(set(units.tolist()))


@pytest.mark.parametrize("room", [80, 79])
def test_bytes_of_one_reply(monkeypatch, room):
    """Ten integers of eight bytes, behind ten bytes that the reply has already."""
    monkeypatch.setattr(worker, "MAX_REPLY_BYTES", 10 + room)
    value = ort.OrtValue.ortvalue_from_numpy(np.arange(10))
    out = [bytes(10)]
    reply = worker.Runner()._reply(value, 1, None, out)
    assert (reply["shape"], reply["buffer"]) == ([10], 1 if room == 80 else None)
    assert out[1:] == ([np.arange(10).tobytes()] if room == 80 else [])


@pytest.mark.parametrize("rounds", [4, 3])
def test_branches_within_branches(monkeypatch, rounds):
    """Each level is seen once the one around it is decided; a last look finds nothing left."""
    monkeypatch.setattr(concrete, "MAX_ROUNDS", rounds)
    body = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y0"])], "b", [], [helper.make_empty_tensor_value_info("y0")]
    )
    for level in range(1, 4):
        other = onnx.GraphProto()
        other.CopyFrom(body)
        nodes = [
            helper.make_node("Cast", ["x"], [f"c{level}"], to=TensorProto.BOOL),
            helper.make_node("If", [f"c{level}"], [f"y{level}"], then_branch=body, else_branch=other),
        ]
        body = helper.make_graph(nodes, "b", [], [helper.make_empty_tensor_value_info(f"y{level}")])
    body.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    source = InMemorySource(model)
    if rounds == 4:
        kinds = [node.op_type for node in concrete.concrete_run(source).flat.nodes]
        assert sorted(kinds) == ["Cast"] * 3 + ["Neg"]
    else:
        with pytest.raises(LimitError, match="more than 3 levels deep"):
            concrete.concrete_run(source)


@pytest.mark.parametrize(("limit", "found"), [(3, ["ab", "a", "b"]), (2, ["ab", "a"])])
def test_combinations_of_axes(monkeypatch, limit, found):
    monkeypatch.setattr(sizes, "MAX_SUBSETS", limit)
    assert sizes._subsets("ab") == [frozenset(subset) for subset in found]


@pytest.mark.parametrize("limit", [4, 3, 2, 1])
def test_values_of_scalars_that_decide(monkeypatch, limit):
    monkeypatch.setattr(feeds, "MAX_SCALAR_CHOICES", limit)
    inputs = [FlatInput(name, TensorProto.INT64, ()) for name in "ab"]
    hints = InputHints({"a": (1, 2), "b": (5, 6, 7)}, {})
    found = [(c["a"], c["b"]) for c in feeds.scalar_choices(inputs, hints, {})]
    pairs = [(a, b) for a in (1, 2)[:limit] for b in (5, 6, 7)[:limit]]
    assert found == pairs[:limit]


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("chunk", [1, 8, 9, 10])
def test_values_that_are_counted_a_piece_at_a_time(monkeypatch, tmp_path, dtype, chunk):
    values = np.array([0, np.nan, 1, 1e-40, -np.inf, 0, np.inf, 2, np.nan], dtype)
    graph = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["y"])],
        "g",
        [],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(values, "c")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    (tensor,) = read_onnx(path).tensors.values()
    monkeypatch.setattr(check, "_CHUNK", chunk)
    assert check.count_values(tensor) == check.ValueCounts(9, 2, 2, 1, 2)


@pytest.mark.parametrize("limit", [12, 11])
def test_values_of_parquet_files(monkeypatch, tmp_path, limit):
    monkeypatch.setattr(recorded, "MAX_VALUES", limit)
    path = tmp_path / "a.parquet"
    pl.DataFrame({"x": np.ones(4), "y": np.ones((4, 2))}).write_parquet(path)
    if limit == 12:
        assert recorded.read_parquet_columns(path)[0]["y"].shape == (4, 2)
    else:
        with pytest.raises(LimitError, match="12 values; expected at most 11"):
            recorded.read_parquet_columns(path)


def test_bytes_of_a_model_file(monkeypatch, tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(dense_net(), path)
    size = path.stat().st_size
    monkeypatch.setattr(reader, "MAX_PROTOBUF_BYTES", size)
    assert read_onnx(path).model.graph.node
    monkeypatch.setattr(reader, "MAX_PROTOBUF_BYTES", size - 1)
    with pytest.raises(InvalidInputError, match="at most 2 GiB"):
        read_onnx(path)


@pytest.mark.parametrize("power", [31, 32])
def test_huge_shapes_without_elements(tmp_path, power):
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[0, 1 << power])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["y"])],
        "g",
        [],
        [helper.make_empty_tensor_value_info("y")],
        [tensor],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    found = [finding.id for finding in check_onnx(path)]
    assert ("ONNX-TENSOR-EMPTY-HUGE" in found) == (power == 32)
