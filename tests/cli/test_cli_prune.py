"""`emergraph prune`, and what it keeps in the store."""

import json
import re

import numpy as np
import pytest
from clifiles import DEMO

import emergraph


def test_table_and_run(run, traced):
    ran = run("prune", traced, "--graph", "digits_dense", "--level", "0,0.5,0.9", "--format", "json")
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)["levels"]
    assert [row["level"] for row in rows] == [0, 0.5, 0.9]
    assert rows[1]["removed_items"] == round(0.5 * rows[1]["items"])
    counted = emergraph.open(traced).graph("digits_dense").emergence(save=False)
    assert rows[0]["emergence_active"] == pytest.approx(counted.active.exact)
    kept = emergraph.open(traced).sql("SELECT * FROM pruning_levels ORDER BY level")
    assert kept["kept_parameters"].to_list() == [row["kept_parameters"] for row in rows]
    assert "prune" in emergraph.open(traced).runs["command"].to_list()


@pytest.mark.parametrize(
    "criterion", ["magnitude", "random", "l2", "activation", "wanda", "synflow", "synflow-iterative", "2:4"]
)
@pytest.mark.parametrize("graph", ["digits_conv", "digits_dense"])
def test_every_criterion(run, traced, criterion, graph):
    options = [] if criterion == "2:4" else ["--level", "0.5"]
    ran = run(
        "prune",
        traced,
        "--graph",
        graph,
        "--criterion",
        criterion,
        *options,
        "--rounds",
        5,
        "--format",
        "json",
    )
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)["levels"]
    if criterion not in ("2:4", "wanda"):
        assert row["removed_items"] == round(0.5 * row["items"])
    assert row["kept_parameters"] < emergraph.open(traced).graph(graph).info["n_parameters"]


def test_kernels_fall_apart_into_parameters(run, traced):
    counts = {}
    for unit in ("edge", "parameter"):
        ran = run(
            "prune", traced, "--graph", "digits_conv", "--unit", unit, "--level", "0.5", "--format", "json"
        )
        counts[unit] = json.loads(ran.out)["levels"][0]["items"]
    tensors = emergraph.open(traced).graph("digits_conv").tensors.filter(role="weight")
    assert counts["parameter"] == tensors["n_params"].sum() - tensors["n_zeros"].sum()
    assert counts["edge"] < counts["parameter"]


def test_seeds_give_a_row_each(run, traced):
    ran = run("prune", traced, "--criterion", "random", "--seeds", 3, "--level", "0.5", "--format", "json")
    assert [row["seed"] for row in json.loads(ran.out)["levels"]] == [0, 1, 2]


def test_where_takes_edges(run, traced):
    graph = emergraph.open(traced).graph("digits_dense")
    layer = graph.layers.filter(kind="dense")["name"][0]
    condition = f"layer = '{layer}' AND abs(weight) < 0.1"
    ran = run("prune", traced, "--graph", "digits_dense", "--where", condition, "--format", "json")
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)["levels"]
    layer_id = graph.layers.filter(name=layer)["id"][0]
    edges = graph.edges(layers=[layer_id]).filter(kind="weight")
    assert row["removed_items"] == (edges["weight"].abs() < 0.1).sum() > 0


def test_where_takes_units_by_their_activation(run, traced):
    ran = run(
        "prune",
        traced,
        "--graph",
        "digits_dense",
        "--unit",
        "unit",
        "--where",
        "mean_abs < 0.5",
        "--format",
        "json",
    )
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)["levels"]
    graph = emergraph.open(traced).graph("digits_dense")
    joined = graph.activations().join(graph.units, left_on="unit", right_on="id")
    hidden = joined.filter(role="hidden", neuron=True)
    assert row["removed_items"] == (hidden["mean_abs"] < 0.5).sum() > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--where", "nosuch < 2"], "nosuch"),
        (["--where", "weight <"], "--where"),
        (["--where", "1=1) UNION SELECT (1"], "one condition"),
        (["--where", "weight > 0; DROP TABLE edges"], "--where"),
        (["--where", "weight > 1e30"], "matches nothing"),
        (["--where", "weight > 0", "--unit", "parameter"], "not single parameters"),
        (["--where", "weight > 0", "--level", "0.5"], "leave out"),
        (["--level", "1"], "level 1"),
        (["--level", "x"], "--level"),
        (["--criterion", "nosuch"], "unknown criterion"),
        (["--criterion", "l2", "--unit", "edge"], "does not score"),
        (["--trace", "nosuch"], "nosuch"),
        (["--sensitivity", "--criterion", "2:4"], "ranks what is in a layer"),
        (["--sensitivity", "--where", "weight > 0"], "leave out --where"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options_end_in_one_line(run, traced, arguments, said):
    ran = run("prune", traced, *arguments)
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert said in ran.err


def test_sensitivity_is_a_heat_map(run, traced):
    ran = run("prune", traced, "--graph", "digits_dense", "--sensitivity", "--level", "0.25,0.5")
    assert ran.code == 0, ran.err
    assert "most fragile" in ran.out
    assert "25%" in ran.out


def test_a_criterion_without_its_trace(run, store):
    ran = run("prune", store, "--criterion", "wanda")
    assert ran.code == 2
    assert "trace" in ran.err
    assert ran.err.count("\n") == 1


def test_nothing_is_kept_without_save(run, store):
    assert run("prune", store, "--no-save", "--level", "0.5").code == 0
    assert not emergraph.open(store).runs.height


def test_runs_and_writes_the_pruned_model(run, traced, tmp_path):
    model = DEMO / "digits_dense.onnx"
    out = tmp_path / "pruned.onnx"
    arguments = [
        "--graph",
        "digits_dense",
        "--level",
        "0.3",
        "--model",
        model,
        "--inputs",
        DEMO / "digits.npz",
    ]
    ran = run(
        "prune",
        traced,
        *arguments,
        "--inputs",
        DEMO / "digits.npz",
        "--labels",
        DEMO / "labels.npz",
        "--write",
        out,
        "--format",
        "json",
    )
    assert ran.code == 0, ran.err
    (row,) = json.loads(ran.out)["levels"]
    assert row["base_accuracy"] > 0.5
    assert 0 < row["relative_mse"] < 1
    assert f"Wrote {out}" in ran.err
    size, before = out.stat().st_size, model.stat().st_size
    assert size > 0.99 * before
    (said,) = [line for line in ran.err.splitlines() if line.startswith("Masked: ")]
    assert re.match(r"Masked: [\d,]+ parameters are zero, which take as much room as others; ", said)
    assert f"; {size:,} of {before:,} bytes are left. To make the file smaller" in said
    assert said.endswith("cut out channels: --unit unit --smaller")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--inputs", DEMO / "digits.npz"], "needs --model"),
        (["--save-graph", "x"], "--save-graph needs --model"),
        (["--model", DEMO / "digits_dense.onnx", "--masked", "--level", "0.5"], "give --write"),
        (["--write", "x.onnx"], "needs --model"),
        (["--model", DEMO / "digits_dense.onnx", "--labels", DEMO / "labels.npz"], "needs --inputs"),
        (["--model", DEMO / "digits_dense.onnx", "--write", "x.onnx"], "one model"),
    ],
    ids=["inputs", "graph", "masked", "write", "labels", "levels"],
)
def test_options_without_what_they_need(run, traced, arguments, said):
    ran = run("prune", traced, "--graph", "digits_dense", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_cli_writes_a_smaller_model_and_stores_its_graph(run, traced, tmp_path):
    out = tmp_path / "slim.onnx"
    model = DEMO / "digits_dense.onnx"
    ran = run(
        "prune",
        traced,
        *("--graph", "digits_dense", "--criterion", "l2", "--level", "0.4", "--model", model),
        *("--inputs", DEMO / "digits.npz", "--write", out, "--save-graph", "slim", "--format", "json"),
    )
    assert ran.code == 0, ran.err
    written = json.loads(ran.out)["written"]
    assert written["report"]["cut_units"] == written["report"]["removed_units"] > 0
    assert written["difference"] < 1e-5
    assert out.stat().st_size == written["bytes_after"] < model.stat().st_size
    assert "Smaller:" in ran.err
    store = emergraph.open(traced)
    parent, child = store.graph("digits_dense"), store.graph("slim")
    assert child.info["parent"] == parent.id
    row = json.loads(ran.out)["levels"][0]
    assert 0 < row["flops_if_removed"] <= row["flops"]
    assert row["file_bytes_if_removed"] == pytest.approx(out.stat().st_size, abs=3000)
    # inputs that nothing reads any more stay inputs
    assert child.info["n_units"] == parent.info["n_units"] - written["report"]["removed_units"]


GRADIENT_NET = """
import torch

def make():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    return net, (torch.zeros(1, 5),)
"""


def test_gradients_of_a_factorys_module(run, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    (tmp_path / "gradient_net.py").write_text(GRADIENT_NET)
    monkeypatch.syspath_prepend(tmp_path)
    random = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=random.normal(size=(12, 5)).astype(np.float32))
    np.savez(tmp_path / "y.npz", y=np.arange(12) % 3)
    assert run("export", "gradient_net:make", tmp_path / "net.duckdb").code == 0
    store = ("prune", tmp_path / "net.duckdb", "--level", "0.5", "--format", "json")
    module = ("--module", "gradient_net:make")
    samples = ("--inputs", tmp_path / "x.npz", "--labels", tmp_path / "y.npz")
    for criterion, items in (("snip", 5 * 8 + 8 * 3), ("taylor", 5 * 8 + 8 * 3), ("gate", 8)):
        ran = run(*store, "--criterion", criterion, *module, *samples)
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["levels"][0]["removed_items"] == items // 2
    for arguments, said in (
        (module, "needs --inputs and --labels"),
        ((*module, *samples, "--write", "x.onnx"), "leave out --write"),
        (("--weights", "w.pt"), "--weights needs --module"),
        ((), "only a PyTorch module"),
    ):
        ran = run(*store, "--criterion", "snip", *arguments)
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert said in ran.err


def test_a_note_about_a_column_is_said_where_the_column_is_shown(run, traced):
    options = ["prune", traced, "--graph", "digits_dense", "--unit", "unit", "--level", "0.5"]
    for more, shown in (([], False), (["--full"], True)):
        told = run(*options, *more)
        assert ("coupled_units" in told.out) is ("coupled_units" in told.err) is shown
        assert ("FLOPs need" in told.err) is shown  # all columns, those that are empty too
    assert "FLOPs need" in run(*options, "--format", "csv").err
