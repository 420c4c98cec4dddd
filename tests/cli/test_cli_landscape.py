"""`emergraph landscape`."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from clifiles import DEMO
from onnx import TensorProto, helper, numpy_helper

from emergraph.analysis.landscape import modelsurvey
from emergraph.graphstore.store import open_store

DENSE = DEMO / "digits_dense.onnx"
ROOT = DEMO.parents[1]
SMALL = ("--planes", "1", "--budget", "0.02s", "--backend", "serial", "--samples", "4")


@pytest.fixture(autouse=True)
def short_trials(monkeypatch):
    """What a survey says does not depend on how long its speed was tried."""
    monkeypatch.setattr(modelsurvey, "TRIAL_SECONDS", 0.2)


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


def test_a_survey_is_a_table_with_intervals_and_nulls_and_makes_a_store(run, tmp_path):
    path = tmp_path / "only.duckdb"
    result = run("landscape", DENSE, *SMALL, "--store", path)
    assert result.code == 0
    assert "excess_ruggedness" in result.out
    assert "mse to the base model's outputs" in result.out
    assert "evaluations, about" in result.err
    assert "to stay near 0.02 s" in result.err  # less than any machine needs
    with open_store(path) as opened:
        assert opened.results("landscape").height > 10
        assert opened.runs("landscape")["graph"].to_list() == [None]


def test_the_same_seed_gives_the_same_json(run):
    whole = ("--directions", "2", "--walks", "2", "--planes", "0", "--budget", "0", "--backend", "serial")
    whole += ("--samples", "2", "--format", "json")
    first, second = (json.loads(run("landscape", DENSE, *whole).out) for _ in range(2))
    for key in ("seconds", "expected_seconds", "rates"):
        assert first.pop(key) != second.pop(key)
    assert first == second


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


def test_ruggedness_of_layers_joins_with_strength_and_emergence(run, traced):
    sizes = ("--planes", "0", "--directions", "2", "--walks", "2", "--backend", "serial", "--masks", "4")
    assert run("landscape", DENSE, "--store", traced, *sizes).code == 0
    assert run("emergence", traced, "--graph", "digits_dense").code == 0
    assert run("topology", traced, "--graph", "digits_dense").code == 0
    page = (ROOT / "docs" / "landscape.md").read_text(encoding="utf-8")
    query = page.split("```sql")[1].split("```")[0]
    rows = json.loads(run("sql", traced, query, "--format", "json").out)
    assert [row["name"] for row in rows] == ["hidden1", "hidden2", "head"]
    assert all(row["rise"] > 0 and row["strength_mean"] > 0 for row in rows)
    assert all(row["excess_ruggedness"] is not None and row["emergence_share"] is not None for row in rows)
    answer = run(
        "sql", traced, "SELECT count(*) AS n FROM landscape_optima WHERE form = 'full'", "--format", "json"
    )
    assert json.loads(answer.out)[0]["n"] >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--norm", "sphere"), "unknown norm 'sphere'; available: none, filter, layer, element"),
        (("--loss", "hinge"), "available: auto, kl, mse, cross_entropy"),
        (("--backend", "mpi"), "available: local, serial"),
        (("--target", "labels"), "unknown --target 'labels'; available: "),
        (("--radius", "0"), "radius"),
        (("--model-output", "nope"), "no output 'nope'"),
        (("--hessian", "3"), "expected package.module:factory"),
        (("--weights", "w.safetensors"), "goes with a factory"),
        (("--run", "a.onnx"), "at least 3"),
        (("--graph", "net"), "give that, too"),
        (("--cluster", "tcp://127.0.0.1:1"), "--backend dask"),
        (("--to", DEMO / "digits_conv.onnx"), "same architecture"),
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
    long = ("--budget", "0", "--masks", "14", "--backend", "serial", "--samples", "4096")
    result = run("landscape", DENSE, "--time-limit", "1s", *long)
    assert result.code == 6, result.err
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


def scaled(model, tmp_path, name, factor):
    """The same file with its weights multiplied."""
    proto = onnx.load(model)
    values = numpy_helper.to_array(proto.graph.initializer[0]) * np.float32(factor)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    onnx.save(proto, tmp_path / name)
    return tmp_path / name


def test_a_graph_that_is_named_must_be_there_and_hold_the_tensors(run, store, linear):
    missing = run("landscape", DENSE, "--store", store, "--graph", "nope")
    assert missing.code == 2
    assert "nope" in missing.err
    small = ("--directions", "2", "--walks", "2", "--planes", "0", "--backend", "serial", "--samples", "2")
    named = run("landscape", linear[0], *small, "--store", store, "--graph", "digits_dense")
    assert named.code == 2
    assert "none of the 1 tensors" in named.err


def test_a_line_and_a_run_between_files(run, linear, tmp_path):
    model, data, w, x = linear
    far, near, middle = (scaled(model, tmp_path, f"{f}.onnx", f) for f in (-1.0, 0.5, 0.0))
    result = run(
        *("landscape", model, "--inputs", data, "--target", "values", "--loss", "mse", "--planes", "0"),
        *("--directions", "2", "--walks", "2", "--to", far),
        *("--run", far, "--run", middle, "--run", near, "--format", "json", "--store", tmp_path / "s.duckdb"),
    )
    assert result.code == 0, result.err
    answer = json.loads(result.out)
    # mean (x (1 - 2 t) w - x w - 1)^2 is a parabola in t: no barrier, and its exact dip in the middle.
    xw = x.astype(float) @ w
    ends = [1.0, float(np.mean((2 * xw + 1) ** 2))]
    assert answer["line"]["ends"] == pytest.approx(ends, rel=1e-5)
    assert answer["line"]["barrier"] == 0.0
    middle_loss = float(np.mean((xw + 1) ** 2))
    assert answer["line"]["midpoint_excess"] == pytest.approx(middle_loss - np.mean(ends), rel=1e-4)
    assert answer["trajectory"]["explained"][0] == pytest.approx(1)
    assert answer["trajectory"]["path_losses"][0] == pytest.approx(ends[1], rel=1e-5)
    with open_store(tmp_path / "s.duckdb") as opened:
        points = opened.results("landscape_points")
    assert points.filter(kind="line").height == 25
    assert points.filter(kind="run").height == 3


def test_a_module_of_a_factory_adds_hessians_and_optima(run, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "landscape_net.py").write_text(
        "import torch\n\n\ndef make():\n    torch.manual_seed(0)\n    return torch.nn.Linear(4, 3)\n"
    )
    torch.manual_seed(1)
    net, x = torch.nn.Linear(4, 3), torch.randn(20, 4)
    safetensors.save_file(net.state_dict(), tmp_path / "w.safetensors")
    np.savez(tmp_path / "x.npz", x=x.numpy(), labels=np.zeros(20, dtype=np.int64))
    result = run(
        *("landscape", "landscape_net:make", "--weights", tmp_path / "w.safetensors"),
        *("--inputs", tmp_path / "x.npz", "--target", "labels", "--planes", "2", "--directions", "2"),
        *("--walks", "2", "--hessian", "2", "--optima", "1", "--backend", "serial", "--format", "json"),
    )
    assert result.code == 0, result.err
    answer = json.loads(result.out)
    logits = net(x).detach()
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(20, dtype=torch.long))
    assert answer["base_loss"] == pytest.approx(float(expected), rel=1e-5)
    # Softmax regression: (1/n) sum (diag p - p p') (x) x x', with a 1 appended for the bias.
    p = torch.softmax(logits, dim=1).double().numpy()
    inputs = np.column_stack([x.double().numpy(), np.ones(20)])
    exact = np.mean(
        [np.kron(np.diag(q) - np.outer(q, q), np.outer(v, v)) for q, v in zip(p, inputs, strict=True)], axis=0
    )
    found = answer["curvature"]["eigenvalues"]["largest"]
    assert found == pytest.approx(np.linalg.eigvalsh(exact)[::-1][:2], rel=1e-3)
    trace = answer["curvature"]["trace"]
    assert trace["low"] <= np.trace(exact) <= trace["high"]
    assert answer["optima"]["gradients"] is True
    assert answer["source"] == "landscape_net:make"
    assert answer["layers"][0]["tensor"] == "weight"
    assert run("landscape", "landscape_net:make").code == 2


WITHOUT_TORCH = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, Missing())
from emergraph.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_all_but_hessians_and_gradients_runs_without_torch(tmp_path):
    """The whole command in a process that cannot import torch: directions, masks, line, optima, store."""
    command = [
        sys.executable,
        "-c",
        WITHOUT_TORCH,
        "landscape",
        str(DENSE),
        "--to",
        str(DENSE),
        "--masks",
        "3",
    ]
    command += ["--optima", "1", "--planes", "1", "--budget", "0.2s", "--samples", "4", "--backend", "serial"]
    command += ["--store", str(tmp_path / "s.duckdb")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for statistic in ("excess_ruggedness", "line_barrier", "mask_rho_1", "lon_n_optima"):
        assert statistic in done.stdout
    asked = [sys.executable, "-c", WITHOUT_TORCH, "landscape", "json:loads", "--hessian", "2"]
    refused = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)
    assert 'pip install "emergraph[torch]"' in refused.stderr


def test_a_dask_cluster_behind_the_same_switch(run):
    distributed = pytest.importorskip("distributed")
    sizes = ("--directions", "2", "--walks", "2", "--planes", "0", "--budget", "0", "--samples", "2")
    sizes += ("--format", "json", "--jobs", "1")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        there = run("landscape", DENSE, *sizes, "--backend", "dask", "--cluster", cluster.scheduler_address)
    here = run("landscape", DENSE, *sizes, "--backend", "serial")
    assert there.code == here.code == 0
    assert json.loads(there.out)["statistics"] == json.loads(here.out)["statistics"]


@pytest.mark.parametrize("option", ["--to", "--run"])
@pytest.mark.parametrize("kind", ["missing", "no model", "another architecture"])
def test_other_checkpoints_are_refused_before_any_work(run, tmp_path, monkeypatch, option, kind):

    other = tmp_path / "other.onnx"
    if kind == "no model":
        other.write_bytes(b"\x89PNG and so on")
    elif kind == "another architecture":
        other.write_bytes((DEMO / "digits_conv.onnx").read_bytes())
    too_late = "_choice" if kind == "another architecture" else "prepare_onnx"
    monkeypatch.setattr(modelsurvey, too_late, lambda *_, **__: pytest.fail("work had begun"))
    others = [option, other] * (3 if option == "--run" else 1)
    result = run("landscape", DEMO / "digits_dense.onnx", *others, "--quiet")
    assert result.code in (2, 3)
    assert "other.onnx" in result.err
    assert len(result.err.splitlines()) == 1


def test_a_run_of_a_factory_belongs_to_the_graph_of_the_factory(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "import torch\n\n\ndef make():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)), "
        "(torch.zeros(1, 4),)\n"
    )
    assert run("export", "net.py:make", "net.duckdb").code == 0
    small = ("--planes", "0", "--directions", "2", "--slice-points", "5", "--walks", "2", "--samples", "8")
    known = run("landscape", "./net.py:make", "--store", "net.duckdb", *small)
    assert (known.code, "no graph" in known.err) == (0, False)
    rows = json.loads(run("sql", "net.duckdb", "SELECT graph, duration FROM runs", "--format", "json").out)
    assert rows[0]["graph"] == 0
    assert rows[0]["duration"] > 0
    alone = run("landscape", "net.py:make", "--store", "other.duckdb", *small)
    assert "other.duckdb has no graph of this model" in alone.err
