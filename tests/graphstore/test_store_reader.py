"""Frames, arrays and the view `edges`, against plain Python over what was written."""

import json

import duckdb
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from storegraphs import block, finish, header, make_store, random_chain, write_chain

from emergraph.analysis.storedgraph import read_unit_graph
from emergraph.errors import StoreError, UsageError
from emergraph.graphstore import blockinfo
from emergraph.graphstore.records import EdgeKind, Kernels
from emergraph.graphstore.store import open_store

COLUMNS = ("src", "dst", "weight", "l1", "l2", "max_abs", "n_params")


def write_mixed(store, seed, n_blocks=9):
    """Write blocks of all sorts; return their edges as the rows that the view should have, per block."""
    random = np.random.default_rng(seed)
    n_in, n_out = 6, 5
    truth = []
    with store.write_graph(header(f"mixed{seed}")) as writer:
        for number in range(n_blocks):
            pairs = [(i, n_in + j) for i in range(n_in) for j in range(n_out) if random.random() < 0.4]
            src, dst = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in range(2))
            weight = random.standard_normal(len(pairs)).astype(np.float32)
            kind = random.choice(list(EdgeKind))
            sort = random.integers(3)
            this = block(number, kind=EdgeKind(kind), tensor=f"w{number}" if sort else None)
            kernels = None
            if sort == 0:
                writer.write_edges(this, src, dst)
                rows = [(*pair, None, None, None, None, 1) for pair in pairs]
            elif sort == 1:
                writer.write_edges(this, src, dst, weight)
                rows = [
                    (*pair, float(w), *[abs(float(w))] * 3, 1) for pair, w in zip(pairs, weight, strict=True)
                ]
            else:
                kernels = Kernels(
                    l1=random.random(len(pairs)),
                    l2=random.random(len(pairs)),
                    max_abs=random.random(len(pairs)),
                    n_params=random.integers(1, 9, len(pairs)).astype(np.int32),
                )
                writer.write_edges(this, src, dst, weight, kernels)
                rows = [
                    (*pair, float(weight[i]), *(float(getattr(kernels, c)[i]) for c in COLUMNS[3:6]), int(n))
                    for i, (pair, n) in enumerate(zip(pairs, kernels.n_params, strict=True))
                ]
            truth.append((this, rows))
        finish(writer, [n_in, n_out])
    return truth


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "net.duckdb", mode="create") as opened:
        yield opened


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    with open_store(tmp_path_factory.mktemp("mixed") / "net.duckdb", mode="create") as opened:
        yield opened, [write_mixed(opened, seed) for seed in range(3)]


def test_view_of_edges(mixed):
    store, truth = mixed
    expected = [
        (graph, 1, 0, b.kind.value, graph * 9 + b.id, *row, b.tensor)
        for graph, blocks in enumerate(truth)
        for b, rows in blocks
        for row in rows
    ]
    stored = store.connection.execute("SELECT * FROM edges").fetchall()
    assert sorted(stored, key=lambda r: r[4:7]) == sorted(expected, key=lambda r: r[4:7])


def test_frame_of_edges(mixed):
    store, truth = mixed
    frame = store.graph(1).edges()
    assert frame.columns == [
        *("layer", "src_layer", "kind", "block", "src", "dst"),
        *("weight", "l1", "l2", "max_abs", "n_params", "tensor"),
    ]
    rows = [row for _, rows in truth[1] for row in rows]
    assert frame.select(COLUMNS).rows() == rows
    kinds = {b.kind for b, _ in truth[1]}
    for kind in kinds:
        chosen = store.graph(1).edges(kinds=[kind])
        assert chosen.equals(frame.filter(pl.col("kind") == kind.value))
    assert store.graph(1).edges(kinds=[]).height == 0
    assert store.graph(1).edges(layers=[0]).height == 0
    assert store.graph(1).edges(layers=[1]).equals(frame)
    with pytest.raises(UsageError, match="unknown edge kind 'weights'; available: weight, recurrent"):
        store.graph(1).edges(kinds=["weights"])


@settings(max_examples=40, deadline=None)
@given(
    graph=st.integers(0, 2),
    chosen=st.lists(st.integers(0, 8), unique=True),
    columns=st.lists(st.sampled_from(COLUMNS), unique=True),
    batch=st.sampled_from([1, 20, 1 << 20]),
    gap=st.sampled_from([0, 15, 1 << 20]),
)
def test_arrays_of_any_blocks_in_any_order(mixed, graph, chosen, columns, batch, gap):
    store, truth = mixed
    reader = store.graph(graph)
    wanted = [reader.blocks_info()[number] for number in chosen]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockinfo, "_BATCH_EDGES", batch)
        patch.setattr(blockinfo, "_GAP_EDGES", gap)
        found = list(reader.iter_edges(wanted, columns=columns))
    assert [info.number for info, _ in found] == chosen
    for number, (info, edges) in zip(chosen, found, strict=True):
        this, rows = truth[graph][number]
        assert (info.kind, info.tensor, info.n_edges) == (this.kind, this.tensor, len(rows))
        assert list(edges) == columns
        for name in columns:
            expected = [row[COLUMNS.index(name)] for row in rows]
            np.testing.assert_array_equal(
                edges[name], np.array([np.nan if v is None else v for v in expected], dtype=edges[name].dtype)
            )


def test_types_of_arrays_do_not_depend_on_the_block(mixed):
    store, _ = mixed
    types = {"src": "int32", "dst": "int32", "weight": "float32", "n_params": "int32"}
    for _, edges in store.graph().iter_edges(columns=COLUMNS):
        assert {name: column.dtype.name for name, column in edges.items()} == {
            name: types.get(name, "float64") for name in COLUMNS
        }


def test_block_edges_by_info_or_id(mixed):
    store, truth = mixed
    reader = store.graph(2)
    info = reader.blocks_info()[4]
    by_id = reader.block_edges(info.id)
    assert by_id["src"].tolist() == [row[0] for row in truth[2][4][1]]
    assert by_id["dst"].tolist() == reader.block_edges(info)["dst"].tolist()
    with pytest.raises(UsageError, match="no block 999"):
        reader.block_edges(999)
    with pytest.raises(UsageError, match="unknown edge column 'kind'; available: src, dst"):
        reader.block_edges(info, columns=("kind",))


def test_many_tiny_blocks_take_few_queries(store, monkeypatch):
    with store.write_graph(header()) as writer:
        for i in range(500):
            writer.write_edges(block(i, kind=EdgeKind.IDENTITY), np.arange(3), np.full(3, 3))
        finish(writer, [3, 1])
    queries = []
    fetch = blockinfo.fetch_arrays
    monkeypatch.setattr(
        blockinfo, "fetch_arrays", lambda *arguments: queries.append(arguments[1]) or fetch(*arguments)
    )
    assert sum(edges["src"].size for _, edges in store.graph().iter_edges()) == 1500
    assert len(queries) == 1


def test_missing_edges_are_noticed(tmp_path):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute("DELETE FROM connections WHERE src = 0 AND dst = 3")
    with (
        open_store(path) as store,
        pytest.raises(StoreError, match="damaged, 19 edges in blocks 0 to 1, expected 20"),
    ):
        list(store.graph().iter_edges())


@pytest.mark.parametrize("units", ["[-1]", "[1000]"])
@pytest.mark.parametrize("column", ["src_units", "dst_units"])
def test_units_of_blocks_beyond_those_of_the_graph_are_damage(tmp_path, column, units):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute(f"UPDATE blocks SET {column} = {units} WHERE {column} IS NOT NULL")
    with (
        open_store(path) as store,
        pytest.raises(StoreError, match=f"damaged, blocks.{column} holds units that are not those"),
    ):
        list(store.graph().iter_edges())


@pytest.mark.parametrize(("column", "unit"), [("src", -1), ("src", 10**6), ("dst", 0), ("dst", 10**6)])
def test_edges_of_units_outside_their_layers_are_damage(tmp_path, column, unit):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute(f"UPDATE connections SET {column} = ? WHERE src = 0 AND dst = 3", [unit])
    with (
        open_store(path) as store,
        pytest.raises(StoreError, match=f"damaged, edges of block 0 have a {column} outside units"),
    ):
        list(store.graph().iter_edges())


def test_layers_whose_units_do_not_follow_one_another_are_damage(tmp_path):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute("UPDATE layers SET first_unit = first_unit + 1 WHERE id = 1")
    with open_store(path) as store, pytest.raises(StoreError, match="units of layer 1 do not follow"):
        list(store.graph().iter_edges())


@pytest.mark.parametrize("column", ["layer", "src_layer"])
def test_blocks_of_layers_that_the_graph_lacks_are_damage(tmp_path, column):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute(f"UPDATE blocks SET {column} = 999 WHERE id = 0")
    with open_store(path) as store, pytest.raises(StoreError, match="damaged, block 0 is of a layer"):
        store.graph().blocks_info()


@pytest.mark.parametrize(
    ("time", "known"),
    [
        ("0001-01-01 00:00:00", True),
        ("9999-12-31 23:59:59.999999", True),
        ("10000-01-01 00:00:00", False),
        ("0001-12-31 (BC) 23:59:59.999999", False),
        ("290000-01-01 00:00:00", False),
    ],
)
def test_times_that_python_does_not_know_are_damage(tmp_path, time, known):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute("UPDATE graphs SET created_at = ?::TIMESTAMP", [time])
    with open_store(path) as store:
        if known:
            assert store.graph().summary["created_at"].isoformat(sep=" ") == time
            return
        with pytest.raises(StoreError, match="damaged, created_at holds a time outside the years 1 to 9999"):
            _ = store.graph().summary


def test_choosing_a_graph(store):
    with pytest.raises(UsageError, match="holds no graph"):
        store.graph()
    for name in ("resnet", "lstm", "1"):
        write_chain(store, random_chain([2, 1]), name)
    assert store.graph().name == "1"
    assert store.graph("resnet").id == store.graph(0).id == store.graph("0").id == 0
    assert store.graph(1).name == "lstm"
    assert store.graph("1").id == 2, "a name goes before an id"
    with pytest.raises(UsageError, match=r"unknown graph 'resnt'; available: .*resnet \(id 0\)"):
        store.graph("resnt")
    with pytest.raises(UsageError, match="unknown graph '7'; available"):
        store.graph(7)


def test_frames_leave_out_the_graph(mixed):
    store, _ = mixed
    reader = store.graph(1)
    assert reader.layers().columns[:3] == ["id", "name", "op"]
    assert reader.layers()["n_units"].to_list() == [6, 5]
    assert reader.units().height == 11
    assert reader.blocks()["number"].to_list() == list(range(9))
    assert reader.tensors().height == reader.operations().height == reader.metrics().height == 0
    assert reader.traces().height == 0


def test_queries_of_one_graph_skip_the_others(tmp_path):
    """Row groups of other blocks are not read: the ids of a graph's blocks lie together."""
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        for seed in range(4):
            write_chain(store, random_chain([400, 400], seed), f"net{seed}")
    with open_store(tmp_path / "net.duckdb") as store:
        plan = store.connection.execute(
            "EXPLAIN (ANALYZE, FORMAT json) SELECT sum(weight) FROM edges WHERE graph = 2"
        ).fetchall()[0][1]
    assert scanned_rows(json.loads(plan), "connections") == 160_000


def scanned_rows(plan, table):
    """Rows that the scan of a table hands on, in a profile of DuckDB."""
    pending, total = [plan], 0
    while pending:
        node = pending.pop()
        pending.extend(node.get("operator", []) + node.get("children", []))
        if str(node.get("extra_info", {}).get("Table", "")).endswith(f".{table}"):
            total += node["intermediate_rows"]
    return total


@pytest.mark.parametrize(
    ("table", "row"),
    [("blocks", "*"), ("layers", "* REPLACE (0 AS n_units, first_unit + n_units AS first_unit)")],
)
def test_a_block_or_layer_that_is_there_twice_is_damage(tmp_path, table, row):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute(f"INSERT INTO {table} SELECT {row} FROM {table} ORDER BY id DESC LIMIT 1")
    with open_store(path) as store, pytest.raises(StoreError, match="is there twice; restore it"):
        store.graph().blocks_info()


@pytest.mark.parametrize(
    ("table", "column", "read"),
    [
        ("layers", "activation_axes", lambda graph: graph.layers()),
        ("blocks", "src_units", lambda graph: graph.blocks_info()),
        ("blocks", "dst_units", lambda graph: graph.blocks_info()),
    ],
)
def test_a_list_of_numbers_with_a_gap_is_damage(tmp_path, table, column, read):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute(f"UPDATE {table} SET {column} = [0, NULL]")
    said = f"damaged, {column} holds a list with nothing in the place of a number"
    with open_store(path) as store, pytest.raises(StoreError, match=said):
        read(store.graph())


def test_a_role_that_is_none_is_damage(tmp_path):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute("UPDATE units SET role = 'x' WHERE id = 1")
    with open_store(path) as store, pytest.raises(StoreError, match=r"damaged, units\.role holds 'x'"):
        store.graph().units()


@pytest.mark.parametrize("end", ["src", "dst"])
def test_units_of_a_block_that_are_fewer_than_it_says_are_damage(tmp_path, end):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute(f"UPDATE blocks SET {end}_units = {end}_units[2:] WHERE id = 0")
    said = f"{end}_units and n_{end} of block 0 differ"
    with open_store(path) as store, pytest.raises(StoreError, match=said):
        store.graph().blocks_info()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("layers SET n_params = -1", "n_params holds -1, a count"),
        ("layers SET n_zeros = n_params + 1", "n_zeros holds more than n_params"),
        ("blocks SET n_edges = -1", "n_edges holds -1, a count"),
        ("graphs SET n_units = -1", "n_units holds -1, a count"),
    ],
)
def test_counts_that_are_none_are_damage(tmp_path, change, said):
    path = make_store(tmp_path / "net.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute(f"UPDATE {change}")
    with open_store(path) as store, pytest.raises(StoreError, match=f"damaged, {said}; restore"):
        read_unit_graph(store.graph())
