"""One graph, one transaction: what the rows say, what is checked, and what a failed export leaves behind."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest
from storegraphs import (
    block,
    chain_layers,
    finish,
    footer,
    header,
    make_store,
    random_chain,
    write_chain,
)

from emergraph.errors import LimitError, StoreError
from emergraph.graphstore.connection import translated_errors
from emergraph.graphstore.records import (
    EdgeKind,
    Layer,
    LayerKind,
    MatrixKernels,
    Operation,
    Role,
    TracedAs,
    UnitColumns,
)
from emergraph.graphstore.store import open_store

HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "net.duckdb", mode="create") as opened:
        yield opened


def rows(store, sql):
    return store.connection.execute(sql).fetchall()


def test_graph_row(store):
    with store.write_graph(
        header("a", producer="pytorch 2.13", step=7, settings={"seed": 1, "shape": (1, np.int64(3))})
    ) as writer:
        writer.write_matrix(block(), np.arange(2), np.arange(2, 5), np.ones((2, 3)))
        graph = finish(writer, [2, 3], branches=["If_0:then"], warnings=["w"], n_parameters=6)
    summary = store.graph(graph).summary
    assert graph == 0
    assert summary["name"] == "a"
    assert summary["source"] == "a.onnx"
    assert summary["step"] == 7
    assert json.loads(summary["settings"]) == {"seed": 1, "shape": [1, 3]}
    assert summary["branches"] == ["If_0:then"]
    assert summary["warnings"] == ["w"]
    assert [summary[name] for name in ("n_layers", "n_units", "n_neurons", "n_blocks", "n_edges")] == [
        2,
        5,
        5,
        1,
        6,
    ]
    assert summary["parent"] is None


def test_blocks_know_their_source_layers(store):
    with store.write_graph(header()) as writer:
        writer.write_edges(block(0, layer=2, kind=EdgeKind.IDENTITY), np.array([0, 1]), np.array([4, 4]))
        writer.write_edges(
            block(1, layer=2, kind=EdgeKind.IDENTITY), np.array([0, 3, 2]), np.array([5, 4, 5])
        )
        finish(writer, [2, 2, 2])
    assert rows(store, "SELECT src_layer, src_layers, src_layer_starts FROM blocks ORDER BY id") == [
        (0, [0], [0]),
        (None, [0, 1], [0, 2]),
    ]
    assert rows(store, "SELECT src, src_layer FROM edges WHERE block = 1 ORDER BY src") == [
        (0, 0),
        (2, 1),
        (3, 1),
    ]


def test_source_layers_when_ids_and_units_are_in_different_orders(store):
    """Layer ids are a topological order; units may have been numbered otherwise."""
    layers = [
        Layer(id=2, name="out", op="Gemm", kind=LayerKind.DENSE, depth=2, first_unit=0, n_units=1),
        Layer(id=0, name="in", op="Input", kind=LayerKind.INPUT, depth=0, first_unit=1, n_units=2),
        Layer(id=1, name="mid", op="Gemm", kind=LayerKind.DENSE, depth=1, first_unit=3, n_units=1),
    ]
    with store.write_graph(header()) as writer:
        writer.write_edges(block(layer=2), np.array([1, 2, 3]), np.array([0, 0, 0]), np.ones(3))
        writer.write_layers(layers)
        writer.write_units([UnitColumns(layer=i, role=Role.HIDDEN) for i in range(3)])
        writer.finish(footer())
    assert rows(store, "SELECT src, src_layer, layer FROM edges ORDER BY src") == [
        (1, 0, 2),
        (2, 0, 2),
        (3, 1, 2),
    ]
    assert rows(store, "SELECT id, layer, position FROM units ORDER BY id") == [
        (0, 2, 0),
        (1, 0, 0),
        (2, 0, 1),
        (3, 1, 0),
    ]


def test_dense_edge_lists_are_found(store):
    with store.write_graph(header()) as writer:
        writer.write_edges(block(0), np.array([0, 1, 0, 1]), np.array([2, 2, 3, 3]))
        writer.write_edges(block(1), np.array([0, 1, 0]), np.array([2, 2, 3]))
        writer.write_edges(block(2), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
        finish(writer, [2, 2])
    infos = store.graph().blocks_info()
    assert [info.dense for info in infos] == [True, False, False]
    assert infos[0].src_units.tolist() == [0, 1]
    assert infos[0].dst_units.tolist() == [2, 3]
    assert infos[1].src_units is infos[1].dst_units is None
    assert [(info.n_src, info.n_dst) for info in infos] == [(2, 2), (2, 2), (0, 0)]


def test_a_block_may_come_in_pieces(store):
    with store.write_graph(header()) as writer:
        writer.write_edges(block(0), np.array([0]), np.array([2]))
        writer.write_edges(block(0), np.array([1]), np.array([2]))
        writer.write_edges(block(1), np.array([1]), np.array([3]))
        with pytest.raises(ValueError, match="written before"):
            writer.write_edges(block(0), np.array([1]), np.array([3]))
        finish(writer, [2, 2])
    infos = store.graph().blocks_info()
    assert [info.n_edges for info in infos] == [2, 1]
    assert infos[0].dense
    assert [edges["src"].tolist() for _, edges in store.graph().iter_edges()] == [[0, 1], [1]]


def test_store_wide_ids(store):
    for name in ("a", "b"):
        with store.write_graph(header(name)) as writer:
            writer.write_matrix(block(5, tensor="w"), np.arange(2), np.arange(2, 4), np.ones((2, 2)))
            writer.write_matrix(
                block(3, tensor="w", shared_with=5), np.arange(2), np.arange(2, 4), np.ones((2, 2))
            )
            finish(writer, [2, 2])
    assert rows(store, "SELECT id, graph, number, shared_with FROM blocks ORDER BY id") == [
        (0, 0, 5, None),
        (1, 0, 3, 0),
        (2, 1, 5, None),
        (3, 1, 3, 2),
    ]


def test_names_of_graphs_are_unique(store):
    for _ in range(3):
        write_chain(store, random_chain([2, 1]), "net")
    assert store.graphs()["name"].to_list() == ["net", "net-2", "net-3"]
    assert store.graph_name("net") == "net-4"
    assert store.graph_name("other") == "other"


def test_unit_columns(store):
    with store.write_graph(header()) as writer:
        writer.write_layers(chain_layers([2, 3]))
        writer.write_units(
            [
                UnitColumns(layer=1, role=Role.OUTPUT, bias=np.array([1.0, np.nan, 0.0]), activation="Relu"),
                UnitColumns(layer=0, role=Role.INPUT, scale=np.array([2.0, 3.0])),
            ]
        )
        writer.finish(footer())
    units = store.graph().units()
    assert units["id"].to_list() == list(range(5))
    assert units["layer"].to_list() == [0, 0, 1, 1, 1]
    assert units["position"].to_list() == [0, 1, 0, 1, 2]
    assert units["role"].to_list() == ["input"] * 2 + ["output"] * 3
    assert units["bias"].to_list() == [None, None, 1.0, None, 0.0]
    assert units["scale"].to_list() == [2.0, 3.0, None, None, None]
    assert units["shift"].null_count() == 5
    assert units["activation"].to_list() == [None, None, "Relu", "Relu", "Relu"]


def test_operations_in_order(store):
    operations = [
        Operation(
            index=1, name="b", op="Foo", domain="x.y", traced_as=TracedAs.OPAQUE, reason="unknown", n_params=3
        ),
        Operation(index=0, name="a", op="Relu", domain="", traced_as=TracedAs.ELEMENTWISE),
    ]
    with store.write_graph(header()) as writer:
        writer.write_operations(operations)
        finish(writer, [1])
    frame = store.graph().operations()
    assert frame["name"].to_list() == ["a", "b"]
    assert frame.row(1) == (1, "b", "Foo", "x.y", "opaque", "unknown", 3)


@pytest.mark.parametrize(
    "name",
    [
        "'; DROP TABLE edges;--",
        'a"; DROP TABLE edges; --',
        "\x00",
        "\x1b[2J",
        "\ud800",
        "x" * 1_000_000,
        "=cmd|",
        "",
    ],
    ids=["single quote", "double quote", "NUL", "escape", "lone surrogate", "1 MB", "formula", "empty"],
)
def test_hostile_names_are_data(store, name):
    stored = name.replace("\ud800", "?")
    layers = chain_layers([1, 1])
    layers[1] = Layer(
        id=1,
        name=name,
        op=name,
        kind=LayerKind.DENSE,
        depth=1,
        first_unit=1,
        n_units=1,
        activation_tensor=name,
    )
    with store.write_graph(header(name, source=name, producer=name, settings={name: name})) as writer:
        writer.write_matrix(
            block(tensor=name, note=name, name=name), np.array([0]), np.array([1]), np.ones((1, 1))
        )
        writer.write_operations(
            [Operation(index=0, name=name, op=name, domain=name, traced_as=TracedAs.OPAQUE, reason=name)]
        )
        writer.write_layers(layers)
        writer.write_units(
            [UnitColumns(layer=0, role=Role.INPUT), UnitColumns(layer=1, role=Role.OUTPUT, activation=name)]
        )
        writer.finish(footer(warnings=[name], branches=[name]))
    reader = store.graph()
    assert reader.name == stored
    assert reader.layers()["name"].to_list() == ["layer0", stored]
    assert reader.operations()["reason"].to_list() == [stored]
    assert reader.units()["activation"].to_list() == [None, stored]
    assert reader.edges()["tensor"].to_list() == [stored]
    assert reader.summary["warnings"] == [stored]
    assert store.graph(stored).id == 0


def test_find_graph_by_file_and_settings(store):
    settings = {"seed": 0, "inputs": {"x": np.arange(3)}}
    first = write_chain(store, random_chain([2, 1]), sha256="b" * 64, settings=settings)
    second = write_chain(store, random_chain([2, 1]), sha256="b" * 64, settings=settings)
    assert store.find_graph("b" * 64, {"inputs": {"x": [0, 1, 2]}, "seed": 0}) == second > first
    assert store.find_graph("b" * 64, {"seed": 1}) is None
    assert store.find_graph("c" * 64, settings) is None
    third = write_chain(store, random_chain([2, 1]), sha256="b" * 64)
    assert store.find_graph("b" * 64) == third > second
    assert store.find_graph("c" * 64) is None


def test_settings_are_valid_json(store):
    write_chain(
        store,
        random_chain([2, 1]),
        settings={"nan": float("nan"), "inf": np.array([np.inf]), "path": Path("x")},
    )
    text = store.graph().summary["settings"]
    json.loads(text, parse_constant=pytest.fail)


BROKEN_PROMISES = {
    "shape": (
        lambda w: w.write_matrix(block(), np.arange(2), np.arange(2, 4), np.ones((2, 3))),
        "expected (2, 2)",
    ),
    "kernel shape": (
        lambda w: w.write_matrix(
            block(),
            np.arange(2),
            np.arange(2, 4),
            np.ones((2, 2)),
            MatrixKernels(
                l1=np.ones((2, 2)), l2=np.ones((2, 2)), max_abs=np.ones((2, 2)), n_params=np.ones((2, 1))
            ),
        ),
        "expected (2, 2)",
    ),
    "repeated row": (
        lambda w: w.write_matrix(block(), np.array([0, 0]), np.arange(2, 4), np.ones((2, 2))),
        "stands for two rows",
    ),
    "repeated column": (
        lambda w: w.write_matrix(block(), np.arange(2), np.array([2, 2]), np.ones((2, 2))),
        "two columns",
    ),
    "lengths": (lambda w: w.write_edges(block(), np.arange(2), np.arange(3)), "different lengths"),
    "weights": (
        lambda w: w.write_edges(block(), np.arange(2), np.arange(2), np.ones(3)),
        "different lengths",
    ),
    "layers twice": (lambda w: [w.write_layers(chain_layers([2])) for _ in range(2)], "written once"),
    "units first": (lambda w: w.write_units([]), "after the layers"),
    "units of one layer only": (
        lambda w: (
            w.write_layers(chain_layers([2, 2])),
            w.write_units([UnitColumns(layer=0, role=Role.INPUT)]),
        ),
        "one entry for each layer",
    ),
    "too few biases": (
        lambda w: (
            w.write_layers(chain_layers([2])),
            w.write_units([UnitColumns(layer=0, role=Role.INPUT, bias=np.ones(3))]),
        ),
        "values of bias",
    ),
    "gap between layers": (
        lambda w: w.write_layers([chain_layers([2])[0], *chain_layers([3, 2])[1:]]),
        "starts at unit 3, expected 2",
    ),
    "layer name twice": (
        lambda w: w.write_layers(
            [
                Layer(id=i, name="same", op="", kind=LayerKind.DENSE, depth=0, first_unit=i, n_units=1)
                for i in range(2)
            ]
        ),
        "name repeats",
    ),
    "unknown layer": (
        lambda w: (w.write_edges(block(layer=9), np.array([0]), np.array([1])), finish(w, [1, 1])),
        "target layer 9",
    ),
    "target outside the layer": (
        lambda w: (w.write_edges(block(), np.array([0]), np.array([0])), finish(w, [1, 1])),
        "targets outside layer 1",
    ),
    "source without a layer": (
        lambda w: (w.write_edges(block(), np.array([7]), np.array([1])), finish(w, [1, 1])),
        "source unit 7",
    ),
    "backward": (
        lambda w: (w.write_edges(block(layer=0), np.array([1]), np.array([0])), finish(w, [1, 1])),
        "expected a higher id",
    ),
    "sharing with nothing": (
        lambda w: (
            w.write_edges(block(shared_with=4, tensor="w"), np.array([0]), np.array([1])),
            finish(w, [1, 1]),
        ),
        "shared with block 4",
    ),
    "no layers": (lambda w: w.finish(footer()), "layers and units"),
}


@pytest.mark.parametrize("case", BROKEN_PROMISES)
def test_broken_promises_of_an_exporter(store, case):
    act, message = BROKEN_PROMISES[case]
    write_chain(store, random_chain([2, 1]), "before")
    with (
        pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")),
        store.write_graph(header()) as writer,
    ):
        act(writer)
    assert store.graphs()["name"].to_list() == ["before"]
    assert rows(store, "SELECT count(*) FROM connections") == [(2,)]
    write_chain(store, random_chain([2, 1]), "after")
    assert store.graphs()["name"].to_list() == ["before", "after"]


@pytest.mark.parametrize("kind", [EdgeKind.RECURRENT, EdgeKind.NORM])
def test_recurrent_and_norm_edges_may_lead_backward(store, kind):
    with store.write_graph(header()) as writer:
        writer.write_edges(block(layer=0, kind=kind), np.array([1]), np.array([0]))
        finish(writer, [1, 1])
    assert store.graph().edges()["kind"].to_list() == [kind.value]


def test_unit_ids_beyond_32_bits(store):
    with pytest.raises(LimitError, match="2147483646"), store.write_graph(header()) as writer:
        writer.write_edges(block(), np.array([0]), np.array([2**31 - 1]))
    with pytest.raises(LimitError), store.write_graph(header()) as writer:
        writer.write_edges(block(), np.array([-1]), np.array([1]))


def contents(store):
    tables = ["graphs", "layers", "units", "blocks", "connections", "kernels", "tensors", "operations"]
    return {table: rows(store, f"SELECT * FROM {table}") for table in tables}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt], ids=["error", "Ctrl-C"])
def test_failed_export_changes_nothing(store, error):
    write_chain(store, random_chain([3, 2]))
    before = contents(store)

    def export():
        with store.write_graph(header()) as writer:
            writer.write_matrix(block(), np.arange(400), np.arange(400, 800), np.ones((400, 400)))
            writer.write_layers(chain_layers([400, 400]))
            raise error

    with pytest.raises(error):
        export()
    assert contents(store) == before
    write_chain(store, random_chain([3, 2]), "later")
    assert store.graphs()["name"].to_list() == ["net", "later"]


def test_forgotten_finish_changes_nothing(store):
    with pytest.raises(RuntimeError, match="finish"), store.write_graph(header()) as writer:
        writer.write_matrix(block(), np.arange(2), np.arange(2, 4), np.ones((2, 2)))
    assert store.graphs().height == 0


def test_new_file_of_a_failed_export_is_removed(tmp_path):
    path = tmp_path / "net.duckdb"
    with pytest.raises(RuntimeError), open_store(path, mode="create") as store, store.write_graph(header()):
        raise RuntimeError("boom")
    assert list(tmp_path.iterdir()) == []


def run_python(code, *arguments):
    script = f"import sys; sys.path.insert(0, {str(HELPERS)!r})\n{textwrap.dedent(code)}"
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


ENDLESS_EXPORT = """
    import sys
    import numpy as np
    from storegraphs import block, header
    from emergraph.graphstore.store import open_store
    with open_store(sys.argv[1], mode="create") as store, store.write_graph(header("endless")) as writer:
        weights = np.random.default_rng(0).standard_normal((1000, 1000)).astype(np.float32)
        for i in range(1_000_000):
            writer.write_matrix(block(i), np.arange(1000), np.arange(1000, 2000), weights)
            if i == 3:
                print("writing", flush=True)
"""


@pytest.mark.parametrize("existing", [True, False], ids=["existing store", "new store"])
def test_kill_in_the_middle_of_an_export(tmp_path, existing):
    path = tmp_path / "net.duckdb"
    if existing:
        make_store(path)
        with open_store(path) as store:
            before = contents(store)
    process = run_python(ENDLESS_EXPORT, path)
    assert process.stdout.readline().strip() == "writing"
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with open_store(path, mode="create") as store:
        if existing:
            assert contents(store) == before
        else:
            assert store.graphs().height == 0
        write_chain(store, random_chain([3, 4, 2]), "after")
        assert store.graph("after").edges().height == 20
        assert rows(store, "SELECT count(*) FROM connections") == [(40 if existing else 20,)]


def test_interrupt_in_the_middle_of_an_export(tmp_path):
    path = make_store(tmp_path / "net.duckdb")
    with open_store(path) as store:
        before = contents(store)
    process = run_python(ENDLESS_EXPORT, path)
    assert process.stdout.readline().strip() == "writing"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert errors.strip().splitlines()[-1] == "KeyboardInterrupt"
    with open_store(path) as store:
        assert contents(store) == before


def test_an_interrupt_while_duckdb_reads_rows_is_one(tmp_path):
    said = "Invalid Input Error: counting the rows of the Arrow source failed: KeyboardInterrupt: "
    with pytest.raises(KeyboardInterrupt), translated_errors(tmp_path / "net.duckdb"):
        raise duckdb.InvalidInputException(said)
    with pytest.raises(StoreError, match="KeyboardInterrupt"), translated_errors(tmp_path / "net.duckdb"):
        raise duckdb.BinderException('column "KeyboardInterrupt" is not there')


FULL_DISK = """
    import resource, sys
    import numpy as np
    from pathlib import Path
    from storegraphs import block, finish, header, random_chain, write_chain
    from emergraph.errors import LimitError
    from emergraph.graphstore.store import open_store
    path = Path(sys.argv[1])
    size = path.stat().st_size if path.exists() else 0
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), hard))
    try:
        with open_store(path, mode="create") as store, store.write_graph(header("large")) as writer:
            weights = np.random.default_rng(0).standard_normal((1000, 1000)).astype(np.float32)
            for i in range(int(sys.argv[3])):
                writer.write_matrix(block(i), np.arange(1000), np.arange(1000, 2000), weights)
            finish(writer, [1000, 1000])
    except LimitError as error:
        print(error)
"""


@pytest.mark.parametrize("existing", [True, False], ids=["existing store", "new store"])
@pytest.mark.parametrize(
    ("room", "n_blocks"), [(2_000_000, 4), (9_000_000, 4), (18_000_000, 4), (300_000, 1)]
)
def test_full_disk(tmp_path, existing, room, n_blocks):
    """A limit on the size of files stands for the disk: it fails in mid-export or only at the commit."""
    path = tmp_path / "net.duckdb"
    before = {}
    if existing:
        size = make_store(path).stat().st_size
        with open_store(path) as store:
            before = contents(store)
    process = run_python(FULL_DISK, path, room, n_blocks)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "the disk is full" in output
    assert output.count("\n") == 1
    if existing:
        assert path.stat().st_size == size, "a full disk must not stay full"
        with open_store(path) as store:
            assert contents(store) == before
    else:
        assert [file.name for file in tmp_path.iterdir()] == []


def test_room_of_a_failed_export_is_given_back(tmp_path):
    path = make_store(tmp_path / "net.duckdb")
    size = path.stat().st_size
    grown = []

    def export(store):
        with store.write_graph(header()) as writer:
            for i in range(8):
                weights = np.random.default_rng(i).random((500, 500))
                writer.write_matrix(block(i), np.arange(500), np.arange(500, 1000), weights)
            grown.append(path.stat().st_size)
            raise RuntimeError("boom")

    with open_store(path, mode="write") as store, pytest.raises(RuntimeError, match="boom"):
        export(store)
    assert grown[0] > size
    assert path.stat().st_size == size
    with open_store(path, mode="write") as store:
        with pytest.raises(RuntimeError, match="boom"):
            export(store)
        write_chain(store, random_chain([300, 300]), "later")
    with open_store(path) as store:
        assert store.graph("later").edges().height == 90_000


def test_readers_never_see_half_a_graph(tmp_path):
    """A graph becomes visible to another connection of the process only when it is finished."""
    with open_store(tmp_path / "net.duckdb", mode="create") as store:
        watcher = store.connection.cursor()
        with store.write_graph(header()) as writer:
            writer.write_matrix(block(), np.arange(400), np.arange(400, 800), np.ones((400, 400)))
            assert watcher.execute("SELECT count(*) FROM connections").fetchall() == [(0,)]
            finish(writer, [400, 400])
            assert watcher.execute("SELECT count(*) FROM connections").fetchall() == [(160_000,)]
        watcher.close()


def test_the_file_alone_is_complete_after_closing(tmp_path):
    path = make_store(tmp_path / "net.duckdb")
    assert list(tmp_path.iterdir()) == [path]
    with duckdb.connect(path, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM edges").fetchall() == [(20,)]
