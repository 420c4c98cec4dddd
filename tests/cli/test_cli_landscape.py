"""`emergraph landscape`."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from clifiles import DEMO
from onnx import TensorProto, helper, numpy_helper

from emergraph.graphstore.store import open_store

DENSE = DEMO / "digits_dense.onnx"
SMALL = ("--planes", "1", "--budget", "0.05s", "--backend", "serial", "--samples", "4")


@pytest.fixture
def linear(tmp_path):
    """y = x w, with inputs and targets for which the loss is known."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(3, 2)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(w, "w")],
    )
    model = tmp_path / "linear.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), model)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, values=x @ w + 1)
    return model, tmp_path / "data.npz", w, x


def test_a_survey_is_a_table_with_intervals_and_nulls(run):
    result = run("landscape", DENSE, *SMALL)
    assert result.code == 0
    assert "excess_ruggedness" in result.out
    assert "mse to the base model's outputs" in result.out
    assert "evaluations, about" in result.err
    assert "to stay near 0.05 s" in result.err


def test_the_same_seed_gives_the_same_json(run):
    whole = ("--planes", "0", "--budget", "0", "--backend", "serial", "--samples", "4", "--format", "json")
    first, second = (json.loads(run("landscape", DENSE, *whole).out) for _ in range(2))
    for key in ("seconds", "expected_seconds", "rates"):
        assert first.pop(key) != second.pop(key)
    assert first == second
    other = json.loads(run("landscape", DENSE, *whole, "--seed", "1").out)
    assert other["statistics"]["rise"]["mean"] != first["statistics"]["rise"]["mean"]


def test_given_inputs_and_targets_give_the_known_loss(run, linear):
    model, data, w, x = linear
    result = run(
        *("landscape", model, "--inputs", data, "--target", "values", "--loss", "mse", "--budget", "0"),
        *("--planes", "0", "--masks", "1", "--format", "json"),
    )
    answer = json.loads(result.out)
    assert answer["base_loss"] == pytest.approx(1.0, rel=1e-5)
    assert answer["samples"] == 40
    assert answer["probes_seed"] is None
    # E over filter-normalised directions of tr(d' X'X d)/(2 n) in both outputs.
    norms = np.linalg.norm(w, axis=0) ** 2 / 3
    expected = float(np.sum(norms) * np.sum(x.astype(float) ** 2) / (40 * 2))
    rise = answer["statistics"]["rise"]
    assert rise["low"] <= expected <= rise["high"]
    assert answer["masks"]["spectrum"] == [1.0]


def test_a_stored_survey_joins_with_the_graph(run, store):
    assert run("landscape", DENSE, "--store", store, "--planes", "1", "--backend", "serial").code == 0
    answer = run(
        "sql",
        store,
        "SELECT l.name, s.rise FROM landscape_layers s JOIN runs r ON r.id = s.run "
        "JOIN blocks b ON b.graph = r.graph AND b.tensor = s.tensor "
        "JOIN layers l ON l.graph = b.graph AND l.id = b.layer ORDER BY l.id",
        "--format",
        "json",
    )
    rows = json.loads(answer.out)
    assert len(rows) == 3
    assert all(row["rise"] > 0 for row in rows)


def test_a_new_store_keeps_a_survey_without_a_graph(run, tmp_path):
    path = tmp_path / "only.duckdb"
    assert run("landscape", DENSE, *SMALL, "--store", path).code == 0
    with open_store(path) as opened:
        assert opened.results("landscape").height > 10
        assert opened.runs("landscape")["graph"].to_list() == [None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--norm", "sphere"), "expected one of none, filter, layer, element"),
        (("--loss", "hinge"), "expected one of auto, kl, mse, cross_entropy"),
        (("--backend", "mpi"), "expected one of serial"),
        (("--target", "labels"), "no such array"),
        (("--radius", "0"), "radius"),
        (("--model-output", "nope"), "no output 'nope'"),
    ],
)
def test_wrong_words_are_one_line_and_code_2(run, arguments, message):
    result = run("landscape", DENSE, *arguments)
    assert result.code == 2
    assert message in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_what_is_no_model_or_has_no_weights_is_code_3(run, tmp_path):
    assert run("landscape", tmp_path / "missing.onnx").code == 3
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])],
    )
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    result = run("landscape", path)
    assert result.code == 3
    assert "no weights to perturb" in result.err


def test_a_time_limit_is_code_6(run):
    result = run("landscape", DENSE, "--time-limit", "1s", "--budget", "0", "--masks", "14")
    assert result.code == 6
    assert "--time-limit" in result.err


def test_an_interrupted_survey_goes_on(tmp_path):
    path = tmp_path / "part.npz"
    command = [sys.executable, "-m", "emergraph", "landscape", str(DENSE), "--resume", str(path)]
    command += ["--budget", "0", "--masks", "14", "--backend", "serial", "--samples", "4096", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert path.exists()
    with np.load(path) as file:
        assert len(file.files) > 1
