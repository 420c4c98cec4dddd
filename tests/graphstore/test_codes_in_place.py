"""Graphs whose weights are packed or quantized in the model file, and stay there as codes."""

import shutil

import gguf
import numpy as np
import onnx
import pytest
from ggufmodels import tiny, write_gguf
from inplacemodels import export_twice, residual_onnx
from onnx import TensorProto, helper, numpy_helper

from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.analysis.paths.options import EmergenceOptions
from emergraph.analysis.paths.planning import plan_count
from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.cli.commands.export import _view
from emergraph.errors import InvalidInputError, StoreError
from emergraph.exporters.export import ExportOptions
from emergraph.exporters.modeltensors import BlankTensors, open_model
from emergraph.exporters.placements import EdgePlacement
from emergraph.exporters.pytorch import wiredfolders
from emergraph.exporters.sources import SourceOptions, Wiring, export_any
from emergraph.graphstore.maintain import compact, merge
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.query import run_query
from emergraph.graphstore.restore import restore_all
from emergraph.graphstore.store import open_store

QUANTIZED = gguf.GGMLQuantizationType
GGUF_MODELS = {
    "llama": ("llama", QUANTIZED.Q4_1),
    "float llama": ("llama", None),
    "gpt2": ("gpt2", QUANTIZED.Q8_0),
    "bloom": ("bloom", QUANTIZED.Q5_0),
    "qwen3moe": ("qwen3moe", QUANTIZED.Q4_0),
}
ONNX_LAYERS = (
    "per tensor",
    "per axis",
    "turned",
    "MatMulInteger",
    "QLinearMatMul",
    "written",
    "shifted",
    "pointwise",
)


def quantized_onnx(path, layers=ONNX_LAYERS):
    """Matrices of codes in a row, each used in another way; a few codes are their zero points."""
    width, rng = 40, np.random.default_rng(1)
    tensors = {"as": np.array(0.1, np.float32), "az": np.array(0, np.int8), "two": np.array([2])}
    nodes = []
    for k, kind in enumerate(layers):
        dtype, low = (np.uint8, 100) if kind == "per axis" else (np.int8, -20)
        size = width if kind in ("per axis", "turned", "QLinearMatMul") else ()
        tensors[f"w{k}"] = rng.integers(low - 2, low + 8, (width, width)).astype(dtype)
        tensors[f"z{k}"] = rng.integers(low, low + 3, size).astype(dtype)
        tensors[f"s{k}"] = rng.random(size).astype(np.float32)
        nodes += _layer(kind, k, tensors, "x" if k == 0 else f"y{k - 1}", f"y{k}")
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info(f"y{len(layers) - 1}", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in tensors.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def _layer(kind, k, tensors, data, out):
    """The operations of one layer, whose tensors end in its number."""

    def name(letter):
        return f"{letter}{k}"

    codes = [name("w"), name("s"), name("z")]
    node = helper.make_node
    if kind == "turned":
        return [
            node("Transpose", codes[:1], [name("t")], perm=[1, 0]),
            node("DequantizeLinear", [name("t"), *codes[1:]], [name("f")], axis=0),
            node("Transpose", [name("f")], [name("g")], perm=[1, 0]),
            node("MatMul", [data, name("g")], [out]),
        ]
    if kind in ("written", "shifted"):
        tensors[codes[1]] = np.random.default_rng(k).random((1, len(tensors[codes[0]]))).astype(np.float32)
        shifted = [
            node("Cast", [codes[2]], [name("d")], to=TensorProto.FLOAT),
            node("Sub", [name("c"), name("d")], [name("e")]),
        ]
        return [
            node("Cast", codes[:1], [name("c")], to=TensorProto.FLOAT),
            *(shifted if kind == "shifted" else []),
            node("Mul", [name("e" if kind == "shifted" else "c"), codes[1]], [name("f")]),
            node("MatMul", [data, name("f")], [out]),
        ]
    if kind == "MatMulInteger":
        return [
            node("DynamicQuantizeLinear", [data], [name("q"), name("qs"), name("qz")]),
            node("MatMulInteger", [name("q"), codes[0], name("qz"), codes[2]], [name("i")]),
            node("Cast", [name("i")], [name("c")], to=TensorProto.FLOAT),
            node("Mul", [name("c"), codes[1]], [out]),
        ]
    if kind == "QLinearMatMul":
        return [
            node("QuantizeLinear", [data, "as", "az"], [name("q")]),
            node("QLinearMatMul", [name("q"), "as", "az", *codes, "as", "az"], [name("r")]),
            node("DequantizeLinear", [name("r"), "as", "az"], [out]),
        ]
    if kind == "pointwise":
        tensors[codes[0]] = tensors[codes[0]][..., None]
        return [
            node("DequantizeLinear", codes, [name("f")]),
            node("Unsqueeze", [data, "two"], [name("u")]),
            node("Conv", [name("u"), name("f")], [out]),
        ]
    return [
        node("DequantizeLinear", codes, [name("f")], axis=1),
        node("Gemm", [data, name("f")], [out]),
    ]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in GGUF_MODELS if name != "llama"]


@pytest.fixture(scope="module", params=["onnx", "llama", *SLOW])
def both(request, tmp_path_factory):
    """A model, a store with its edges, and one whose edges stayed in it."""
    folder = tmp_path_factory.mktemp("codes")
    with pytest.MonkeyPatch.context() as patch:
        # the child's work without the child, and without a run beside it: a second for each
        patch.setattr(
            wiredfolders, "call_offline", lambda function, *arguments, limits=None: function(*arguments)
        )
        defaults = {**wiredfolders.capture_wired.__kwdefaults__, "compared": 0}
        patch.setattr(wiredfolders.capture_wired, "__kwdefaults__", defaults)
        if request.param == "onnx":
            model = quantized_onnx(folder / "m.onnx")
        else:
            family, packed = GGUF_MODELS[request.param]
            model = write_gguf(folder / "m.gguf", tiny(family), family, quantized=packed)
        return model, *export_twice(model, folder)


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    model = quantized_onnx(folder / "m.onnx", ("per axis", "turned"))
    return model, *export_twice(model, folder)


def test_a_plan_times_what_is_packed_without_the_model(both):
    _, _, in_place = both
    with open_store(in_place) as store, model_given(BlankTensors()):
        reader = store.graph()
        graph = read_unit_graph(reader)
        plan = plan_count(graph, reader, EmergenceOptions())
        left = [block for block in graph.blocks if block.in_place and block.n_edges]
        assert not any(graph.matrix(block).array().any() for block in left)
    # blocks without a zero are not read
    read = [block for block in left if not block.dense]
    assert plan.in_file == sum(len(block.src_units) * len(block.dst_units) for block in read)
    assert plan.seconds > 0 or not read


def test_the_graph_is_that_of_a_store_that_holds_its_edges(both):
    model, stored, in_place = both
    with model_given(open_model(model)), open_store(stored) as a, open_store(in_place) as b:
        ours, theirs = a.graph(), b.graph()
        left = [block for block in theirs.blocks_info() if block.place]
        weights = [block for block in theirs.blocks_info() if block.tensor]
        coded = b.connection.sql("SELECT count(*) FROM codings").fetchall()[0][0]
        assert left
        assert coded >= (len(ONNX_LAYERS) if model.suffix == ".onnx" else 1)
        assert sum(b.n_edges for b in left) > 0.5 * sum(b.n_edges for b in weights)
        assert ours.edges().sort("block", "src", "dst").equals(theirs.edges().sort("block", "src", "dst"))
        assert ours.units().equals(theirs.units())
        assert ours.layers().equals(theirs.layers())
        same = ["name", "kind", "n_edges", "n_src", "n_dst", "dense", "src_units", "dst_units", "tensor"]
        assert ours.blocks().select(same).equals(theirs.blocks().select(same))
        told = [
            "name",
            "role",
            "dtype",
            "shape",
            "n_params",
            "n_zeros",
            "n_nonfinite",
            "understood",
            "sha256",
        ]
        assert ours.tensors().select(told).equals(theirs.tensors().select(told))
        for (name, values), (_, others) in zip(restore_all(ours), restore_all(theirs), strict=True):
            assert values.tobytes() == others.tobytes(), name


def test_counts_are_the_same(both):
    """To the last digit as far as floats hold whole numbers; above, but for the order of sums."""
    model, stored, in_place = both
    found = []
    for path in (stored, in_place):
        with model_given(open_model(model)), open_store(path) as store:
            graph = read_unit_graph(store.graph())
            active = np.random.default_rng(2).random(graph.n_units) < 0.4
            counts = path_count_emergence(graph, active).counts
            found.append(counts)
    for ours, theirs in zip(*found, strict=True):
        assert ours.exact == theirs.exact
        assert ours.emergence.value == pytest.approx(theirs.emergence.value, rel=1e-14)


def test_a_question_reads_the_rows_that_it_asks_for(onnx_model):
    model, stored, in_place = onnx_model
    asked = "FROM edges WHERE src BETWEEN 50 AND 60 AND dst % 2 = 0 ORDER BY ALL"
    with model_given(open_model(model)):
        found = [run_query(path, asked).frame for path in (stored, in_place)]
    assert found[0].equals(found[1])
    assert found[0].height


def test_upkeep_keeps_what_is_coded(onnx_model, tmp_path):
    model, stored, in_place = onnx_model
    path = shutil.copy(stored, tmp_path / "both.duckdb")
    with open_store(path, mode="write") as store:
        merge(store, in_place)
    compact(path)
    with model_given(open_model(model)), open_store(path) as store:
        first, second = store.graph(0), store.graph(1)
        assert first.edges().drop("block").equals(second.edges().drop("block"))


def test_a_model_with_another_code_is_refused(onnx_model, tmp_path):
    model, _, in_place = onnx_model
    other = tmp_path / model.name
    raw = bytearray(model.read_bytes())
    with open_store(in_place) as store:
        left = store.graph().left.needed()
        places = store.connection.execute(
            "SELECT shard_offset FROM tensors WHERE shard IS NOT NULL"
        ).fetchall()
    raw[places[0][0] + 5] ^= 1
    other.write_bytes(raw)
    assert left
    refused = pytest.raises(InvalidInputError, match=r"found SHA-256 .*so other values")
    with model_given(open_model(other)), open_store(in_place) as store, refused:
        list(store.graph().iter_edges())


@pytest.mark.parametrize(
    ("coding", "said"),
    [
        ("no JSON", "codings.coding holds"),
        (
            '{"op":"ggml","args":["Q8_0"],"parts":[]}',
            "damaged, block 0 names coding 'ggml', which does not fit its tensors",
        ),
        ('{"op":"dequantize","args":[0,""],"parts":[{"tensor":"w9"}]}', "codings.coding holds a coding"),
    ],
)
def test_a_damaged_coding_is_refused(onnx_model, tmp_path, coding, said):
    model, _, in_place = onnx_model
    path = shutil.copy(in_place, tmp_path / "net.duckdb")
    with open_store(path, mode="write") as store:
        store.connection.execute("UPDATE codings SET coding = ?", [coding])
    with model_given(open_model(model)), open_store(path) as store, pytest.raises(StoreError, match=said):
        list(store.graph().iter_edges())


def test_the_summary_says_which_weights_became_rows(tmp_path):
    """A kernel of three taps is a sum in no file; the matrix before it stays."""
    model = residual_onnx(tmp_path / "m.onnx")
    summary = export_any(model, None, options=ExportOptions(edges=EdgePlacement.IN_PLACE))
    assert summary.trace.rows == {"k": 288}
    shown = _view(summary).facts
    assert shown["weights as rows"] == "288 edges of k"
    assert (
        "rows"
        not in export_any(model, None, options=ExportOptions(edges=EdgePlacement.STORED)).to_dict()["trace"]
    )


def test_weights_of_a_file_without_wiring_stay_as_codes(tmp_path):
    model = write_gguf(tmp_path / "m.gguf", tiny("llama"), "llama", quantized=QUANTIZED.Q8_0)
    found = []
    for placement in EdgePlacement:
        with open_store(tmp_path / f"{placement}.duckdb", mode="create") as store:
            export_any(
                model, store, options=ExportOptions(edges=placement), source=SourceOptions(wire=Wiring.NONE)
            )
            with model_given(open_model(model)):
                graph = store.graph()
                found.append((graph.edges(), graph.units(), graph.tensors().drop("shard", "shard_offset")))
            left = [block for block in graph.blocks_info() if block.place]
            assert bool(left) == (placement is EdgePlacement.IN_PLACE)
    for a, b in zip(found[0], found[2], strict=True):
        assert a.equals(b)
