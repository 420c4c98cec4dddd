"""Traces, metrics and runs with their result tables."""

import doctest
import json

import polars as pl
import pytest
from storegraphs import random_chain, write_chain

from emergraph.errors import UsageError
from emergraph.graphstore import results
from emergraph.graphstore.records import TraceHeader
from emergraph.graphstore.results import Column, ResultTable, register
from emergraph.graphstore.store import open_store

STATISTICS = ("mean", "mean_abs", "rms", "std", "min", "max", "share_positive")

SCORES = ResultTable(
    "test_scores",
    "One row per unit, isn't it.",
    (Column("unit", "INTEGER", "units.id."), Column("score", "DOUBLE", "In [0, 1].")),
)


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "net.duckdb", mode="create") as opened:
        write_chain(opened, random_chain([2, 3]))
        yield opened


@pytest.fixture
def scores(monkeypatch):
    monkeypatch.setattr(results, "_registered", {})
    return register(SCORES)


def trace_frame(units, values=None):
    frame = pl.DataFrame(
        {
            "unit": units,
            **{name: [i + unit / 10 for unit in units] for i, name in enumerate(STATISTICS)},
            "n": [4] * len(units),
            "n_positions": [1] * len(units),
        }
    )
    return frame if values is None else frame.with_columns(pl.Series("values", values))


def trace_header(name="random", **changes):
    return TraceHeader(**{"name": name, "kind": "random", "n_samples": 4, "seed": 3, **changes})


def test_trace(store):
    values = [[1.0, 2.0], [], None]
    trace = store.write_trace(
        0, trace_header(n_values=2, settings={"batch": 2}), trace_frame([4, 0, 2], values)
    )
    reader = store.graph()
    assert trace == 0
    about = reader.traces().row(0, named=True)
    assert about["name"] == "random"
    assert (about["kind"], about["n_samples"], about["n_values"], about["seed"]) == ("random", 4, 2, 3)
    assert json.loads(about["settings"]) == {"batch": 2}
    frame = reader.activations()
    assert frame.columns == ["unit", *STATISTICS, "n", "values", "n_positions", "values_abs", "values_max"]
    assert frame["unit"].to_list() == [0, 2, 4]
    assert frame["values"].to_list() == [[], None, [1.0, 2.0]]
    assert frame["rms"].to_list() == [2.0, 2.2, 2.4]


def test_trace_without_values(store):
    store.write_trace(0, trace_header(), trace_frame([1, 2]))
    assert store.graph().activations()["values"].to_list() == [None, None]


def test_traces_by_name_id_or_the_newest(store):
    write_chain(store, random_chain([2, 3]), "other")
    ids = [store.write_trace(0, trace_header(), trace_frame([unit])) for unit in range(3)]
    store.write_trace(1, trace_header("digits"), trace_frame([4]))
    reader = store.graph(0)
    assert reader.traces()["name"].to_list() == ["random", "random-2", "random-3"]
    assert reader.activations()["unit"].to_list() == [2]
    assert reader.activations("random")["unit"].to_list() == [0]
    assert reader.activations(ids[1])["unit"].to_list() == [1]
    with pytest.raises(UsageError, match="unknown trace 'digits'; available: random, random-2, random-3"):
        reader.activations("digits")
    with pytest.raises(UsageError, match="unknown trace"):
        reader.activations(3)


def test_graph_without_a_trace(store):
    with pytest.raises(
        UsageError, match=r"has no activation trace; `emergraph trace \S+ INPUTS\.npz --model \S+` makes one"
    ):
        store.graph().activations()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (trace_frame([0, 0]), "distinct ids"),
        (trace_frame([0, 5]), "from 0 to 4"),
        (trace_frame([-1]), "from 0 to 4"),
        (trace_frame([0]).drop("rms"), "columns"),
        (trace_frame([0]).with_columns(extra=1), "columns"),
    ],
    ids=["repeated unit", "unknown unit", "negative unit", "missing column", "unknown column"],
)
def test_bad_traces_are_refused(store, frame, message):
    with pytest.raises(ValueError, match=message):
        store.write_trace(0, trace_header(), frame)
    assert store.graph().traces().height == 0


def test_view_of_activations(store):
    store.write_trace(0, trace_header(), trace_frame([1, 4]))
    rows = store.connection.execute(
        "SELECT graph, layer, layer_name, unit, position, neuron, trace_name, mean, n"
        " FROM unit_activations ORDER BY unit"
    ).fetchall()
    assert rows == [
        (0, 0, "layer0", 1, 1, True, "random", 0.1, 4),
        (0, 1, "layer1", 4, 2, True, "random", 0.4, 4),
    ]


def test_metrics(store):
    store.write_metrics(0, {"loss": 2.0, "accuracy": 0.5})
    store.write_metrics(0, {"loss": 1.0})
    assert store.graph().metrics().rows() == [("accuracy", 0.5), ("loss", 1.0)]
    with pytest.raises(UsageError, match="no graph with id 7"):
        store.write_metrics(7, {"loss": 1.0})


def test_runs_and_results(store, scores):
    frame = pl.DataFrame({"score": [0.5, None], "unit": [1, 2]})
    first = store.record_run(
        0, "score", {"threshold": 0.05}, seed=1, result_tables={"test_scores": frame}, duration=0.5
    )
    second = store.record_run(None, "score", {"t": float("nan")}, result_tables={"test_scores": frame[:1]})
    assert (first, second) == (0, 1)
    runs = store.runs("score")
    assert runs["graph"].to_list() == [0, None]
    assert json.loads(runs["parameters"][0]) == {"threshold": 0.05}
    assert json.loads(runs["parameters"][1]) == {"t": "nan"}
    assert runs["seed"].to_list() == [1, None]
    assert runs["duration"].to_list() == [0.5, None]
    assert runs["result_tables"].to_list() == [["test_scores"]] * 2
    assert store.runs("other").height == 0
    assert store.runs().height == 2
    assert store.results("test_scores").columns == ["run", "unit", "score"]
    assert store.results("test_scores", run=0).rows() == [(0, 1, 0.5), (0, 2, None)]
    assert store.results("test_scores").height == 3


def test_result_tables_carry_their_comments(store, scores):
    store.record_run(
        0, "score", {}, result_tables={"test_scores": pl.DataFrame({"unit": [1], "score": [1.0]})}
    )
    comments = store.connection.execute(
        "SELECT column_name, comment FROM duckdb_columns()"
        " WHERE table_name = 'test_scores' ORDER BY column_index"
    ).fetchall()
    assert comments == [("run", "runs.id."), ("unit", "units.id."), ("score", "In [0, 1].")]
    assert store.connection.execute(
        "SELECT comment FROM duckdb_tables() WHERE table_name = 'test_scores'"
    ).fetchall() == [("One row per unit, isn't it.",)]


def test_a_newer_version_adds_columns(store, scores, monkeypatch):
    store.record_run(
        0, "score", {}, result_tables={"test_scores": pl.DataFrame({"unit": [1], "score": [1.0]})}
    )
    monkeypatch.setattr(results, "_registered", {})
    register(ResultTable("test_scores", "", (*SCORES.columns, Column("rank", "INTEGER", "From 1."))))
    frame = pl.DataFrame({"unit": [2], "score": [2.0], "rank": [1]})
    store.record_run(0, "score", {}, result_tables={"test_scores": frame})
    assert store.results("test_scores").rows() == [(0, 1, 1.0, None), (1, 2, 2.0, 1)]


def test_failed_run_changes_nothing(store, scores):
    with pytest.raises(ValueError, match="columns"):
        store.record_run(0, "score", {}, result_tables={"test_scores": pl.DataFrame({"unit": [1]})})
    with pytest.raises(KeyError):
        store.record_run(0, "score", {}, result_tables={"nobody": pl.DataFrame({"unit": [1]})})
    with pytest.raises(UsageError, match="no graph with id 9"):
        store.record_run(9, "score", {}, result_tables={})
    assert store.runs().height == 0
    with pytest.raises(UsageError, match="unknown result table 'test_scores'; available: none"):
        store.results("test_scores")


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("Bad Name", (Column("a", "DOUBLE", ""),)),
        ('a"; DROP TABLE edges; --', (Column("a", "DOUBLE", ""),)),
        ("fine", (Column("a b", "DOUBLE", ""),)),
        ("fine", (Column("run", "INTEGER", ""),)),
        ("fine", (Column("a", "DOUBLE", ""), Column("a", "DOUBLE", ""))),
        ("fine", (Column("a", "DOUBLE); DROP TABLE edges; --", ""),)),
    ],
)
def test_bad_result_tables_are_refused(scores, name, columns):
    with pytest.raises(ValueError, match="result table"):
        register(ResultTable(name, "", columns))


@pytest.mark.parametrize("name", ["edges", "graphs", "unit_activations"])
def test_names_of_the_store_itself_are_taken(store, scores, name):
    register(ResultTable(name, "", (Column("a", "DOUBLE", ""),)))
    with pytest.raises(ValueError, match="the name is taken"):
        store.record_run(0, "score", {}, result_tables={name: pl.DataFrame({"a": [1.0]})})


def test_registering_twice(scores):
    assert register(SCORES) is scores
    with pytest.raises(ValueError, match="registered before with other columns"):
        register(ResultTable("test_scores", "", SCORES.columns[:1]))


def test_examples_in_docstrings(monkeypatch):
    from emergraph.graphstore import sql, text

    monkeypatch.setattr(results, "_registered", {})
    for module in (results, sql, text):
        tried = doctest.testmod(module)
        assert tried.failed == 0
        assert tried.attempted > 0
