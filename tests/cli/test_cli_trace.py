"""`emergraph trace` and `emergence`: from inputs to path counts."""

import json

import duckdb
import numpy as np
import onnxruntime
import pytest
from clifiles import DEMO

DENSE = DEMO / "digits_dense.onnx"
CONV = DEMO / "digits_conv.onnx"


def rows_of(store, query):
    """The rows of a query, straight from DuckDB."""
    with duckdb.connect(store, read_only=True) as connection:
        return connection.sql(query).pl().to_dicts()


def test_traced_outputs_equal_those_of_the_running_model(run, traced_once):
    pixels = np.load(DEMO / "digits.npz")["pixels"]
    session = onnxruntime.InferenceSession(DENSE, providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"pixels": pixels})
    query = (
        "SELECT a.mean, a.max, a.share_positive "
        "FROM unit_activations AS a JOIN graphs AS g ON g.id = a.graph "
        "WHERE g.name = 'digits_dense' AND a.layer_name = 'head' ORDER BY a.position"
    )
    rows = rows_of(traced_once, query)
    assert np.allclose([row["mean"] for row in rows], scores.mean(axis=0), atol=1e-5)
    assert np.allclose([row["max"] for row in rows], scores.max(axis=0), atol=1e-5)
    assert np.allclose([row["share_positive"] for row in rows], (scores > 0).mean(axis=0))


def test_trace_says_what_it_recorded(run, store):
    result = run(
        "trace", store, "--random", "8", "--seed", "3", "--model", DENSE, "--name", "r", "--format", "json"
    )
    answer = json.loads(result.out)
    assert (answer["name"], answer["n_samples"], answer["n_units"]) == ("r", 8, 154)
    (row,) = rows_of(store, "SELECT kind, seed, n_samples FROM traces")
    assert row == {"kind": "random", "seed": 3, "n_samples": 8}


def test_a_random_trace_says_so_in_its_name(run, store):
    assert "random-n4-seed0" in run("trace", store, "--random", "4", "--model", DENSE).out


def test_recorded_activations_can_be_imported(run, store, tmp_path):
    rng = np.random.default_rng(0)
    head, hidden = rng.normal(size=(5, 10)), rng.normal(size=(5, 48))
    np.savez(tmp_path / "recorded.npz", head=head, hidden1=hidden)
    result = run("trace", store, "--import", tmp_path / "recorded.npz", "--format", "json")
    answer = json.loads(result.out)
    assert (answer["name"], answer["n_samples"], answer["n_units"]) == ("recorded", 5, 58)
    rows = rows_of(store, "SELECT mean FROM unit_activations WHERE layer_name = 'head' ORDER BY position")
    assert np.allclose([row["mean"] for row in rows], head.mean(axis=0), atol=1e-6)
    assert run("emergence", store, "--trace", "recorded", "--no-save").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(["--model", DENSE], 2, "--random", id="neither inputs nor random"),
        pytest.param([DEMO / "digits.npz"], 2, "--model", id="no model"),
        pytest.param(["--import", "x.npz", "--model", DENSE], 2, "leave out", id="import with a model"),
        pytest.param(["--import", "x.npz"], 3, "x.npz", id="missing recording"),
        pytest.param(["--import", DEMO / "labels.npz"], 3, "labels", id="recording that does not fit"),
        pytest.param([DEMO / "digits.npz", "--random", "3", "--model", DENSE], 2, "one of", id="both"),
        pytest.param([DEMO / "digits.npz", "--model", CONV], 3, "SHA-256", id="another model"),
        pytest.param([DEMO / "labels.npz", "--model", DENSE], 3, "pixels", id="other names"),
        pytest.param(["missing.npz", "--model", DENSE], 3, "missing.npz", id="missing inputs"),
        pytest.param([DENSE, "--model", DENSE], 3, "npz", id="inputs that are a model"),
        pytest.param([DEMO / "digits.npz", "--model", "missing.onnx"], 3, "missing.onnx", id="missing model"),
        pytest.param(["--random", "2", "--model", DENSE, "--graph", "x"], 2, "digits_dense", id="graph"),
        pytest.param([DEMO / "digits.npz", "--model", DENSE, "--sample-axis", "p=0"], 2, "pixels", id="axis"),
    ],
)
def test_wrong_inputs_are_one_line_and_no_trace(run, store, arguments, code, words):
    result = run("trace", store, *arguments)
    assert result.code == code, result.err
    assert len(result.err.splitlines()) == 1
    assert words in result.err
    assert rows_of(store, "FROM traces") == []


def naive_counts(store, threshold):
    """Path counts of the dense graph from its edges in SQL and one pass in plain Python."""
    units = rows_of(
        store,
        "SELECT a.unit, a.mean FROM unit_activations AS a JOIN graphs AS g ON g.id = a.graph "
        "WHERE g.name = 'digits_dense' ORDER BY a.unit",
    )
    edges = rows_of(
        store,
        "SELECT e.src, e.dst FROM edges AS e JOIN graphs AS g ON g.id = e.graph "
        "WHERE g.name = 'digits_dense'",
    )
    active = [row["mean"] > threshold for row in units]
    successors = {unit: [] for unit in range(len(units))}
    for edge in edges:
        successors[edge["src"]].append(edge["dst"])
    inside, anywhere = [0] * len(units), [0] * len(units)
    for unit in reversed(range(len(units))):
        anywhere[unit] = active[unit] + sum(anywhere[w] for w in successors[unit])
        inside[unit] = 1 + sum(inside[w] for w in successors[unit] if active[w]) if active[unit] else 0
    starts = [unit for unit in range(len(units)) if not active[unit]]
    return (
        sum(inside[w] for x in starts for w in successors[x]),
        sum(anywhere[x] for x in starts),
    )


@pytest.mark.parametrize("threshold", [0.05, 0.5])
def test_emergence_equals_a_count_in_plain_python(run, traced, threshold):
    result = run("emergence", traced, "--threshold", threshold, "--format", "json")
    counts = json.loads(result.out)["counts"]
    found = (counts["active"]["exact"], counts["any"]["exact"])
    assert found == naive_counts(traced, threshold)
    assert 0 < found[0] <= found[1]


def test_a_sweep_agrees_with_single_counts(run, traced):
    rows = json.loads(run("emergence", traced, "--thresholds", "0.5,0.05", "--format", "json").out)
    for row in rows["thresholds"]:
        expected = naive_counts(traced, row["threshold"])
        assert (row["emergence_active"], row["emergence_any"]) == expected


def test_results_are_kept_as_runs_unless_not_wanted(run, traced):
    assert run("emergence", traced, "--threshold", "0.5").code == 0
    assert run("emergence", traced, "--thresholds", "0.1,0.5").code == 0
    assert run("emergence", traced, "--rule", "per_sample", "--draws", "20", "--seed", "5").code == 0
    assert run("emergence", traced, "--no-save").code == 0
    runs = rows_of(traced, "SELECT command, seed, parameters FROM runs ORDER BY id")
    assert [row["command"] for row in runs] == ["emergence"] * 3
    assert runs[2]["seed"] == 5
    assert json.loads(runs[0]["parameters"])["trace"] == "digits"
    kept = rows_of(traced, "SELECT interior, exact, n_active FROM emergence ORDER BY interior")
    assert [row["interior"] for row in kept] == ["active", "any", "printed"]
    assert int(kept[0]["exact"]) == naive_counts(traced, 0.5)[0]
    shares = rows_of(traced, "SELECT sum(share) AS s FROM emergence_layers GROUP BY interior")
    assert [round(row["s"], 9) for row in shares] == [1, 1]
    assert len(rows_of(traced, "FROM emergence_thresholds")) == 6
    (interval,) = rows_of(traced, "FROM emergence_intervals WHERE interior = 'any'")
    assert interval["low"] <= interval["median"] <= interval["high"]
    assert interval["spread_low"] is None


def test_a_store_that_cannot_be_written_still_answers_without_saving(run, traced):
    traced.chmod(0o444)
    assert run("emergence", traced, "--no-save").code == 0


@pytest.mark.parametrize("output_format", ["table", "json", "csv", "markdown", "parquet"])
@pytest.mark.parametrize("more", [[], ["--thresholds", "5"], ["--draws", "10"]])
def test_every_format_of_every_form(run, traced_once, tmp_path, output_format, more):
    target = tmp_path / "result"
    arguments = ["--no-save", "--format", output_format, "--out", target]
    assert run("emergence", traced_once, *more, *arguments).code == 0
    assert target.stat().st_size > 50


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rule", "mode"], "majority"),
        (["--paths", "x"], "weights"),
        (["--endpoints", "x"], "neurons"),
        (["--layers", "x"], "hidden"),
        (["--unmeasured", "x"], "transparent"),
        (["--kinds", "weight,x"], "recurrent"),
        (["--kinds", "recurrent"], "unroll"),
        (["--unroll", "0"], "unroll"),
        (["--thresholds", "x"], "--thresholds"),
        (["--thresholds", "0.1", "--threshold", "0.1"], "--threshold"),
        (["--trace", "x"], "digits"),
        (["--trace", "99"], "digits"),
        (["--graph", "x"], "digits_conv"),
        (["--draws", "1"], "draws"),
    ],
)
def test_wrong_options_are_one_line_that_says_what_there_is(run, traced_once, arguments, words):
    result = run("emergence", traced_once, *arguments)
    assert result.code == 2, result.err
    assert len(result.err.splitlines()) == 1
    assert words in result.err


def test_help_names_every_rule_and_kind(run):
    from emergraph.analysis.activity.scores import ActivityRule
    from emergraph.graphstore.records import PATH_KINDS

    text = " ".join(run("emergence", "--help").out.split())
    for word in (*(set(ActivityRule) - {ActivityRule.WEIGHT_CHANGE}), *PATH_KINDS):
        assert word in text


def test_a_graph_without_a_trace_says_how_to_make_one(run, exported):
    result = run("emergence", exported, "--no-save")
    assert result.code == 2
    assert "emergraph trace" in result.err


def test_the_demo_needs_a_place_to_write(run, tmp_path):
    (tmp_path / "file").write_text("x")
    result = run("demo", "--dir", tmp_path / "file")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
