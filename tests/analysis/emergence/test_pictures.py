"""The pictures of the documentation show what emergraph counts and stores, and are made from that."""

import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
from storegraphs import make_store

from emergraph.analysis.emergence.pathcount import path_count_emergence
from emergraph.graphstore.records import EdgeKind
from emergraph.graphstore.store import open_store

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "pictures"
_SPEC = importlib.util.spec_from_file_location("draw", FOLDER / "draw.py")
draw = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(draw)


def test_the_files_are_what_the_script_draws():
    for name, make in draw.PICTURES.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == make(), "run python docs/pictures/draw.py"


def test_e_of_the_picture(small):
    sizes = [len(units) for units in draw.LAYERS]
    graph = small(sizes, [(a, b, 1, EdgeKind.WEIGHT) for a, b in draw.EDGES]).graph()
    active = np.array([unit in draw.ACTIVE for unit in range(sum(sizes))])
    assert path_count_emergence(graph, active).active.exact == len(draw.PATHS)
    for path in draw.PATHS:
        assert not active[path[0]]
        assert active[list(path[1:])].all()
        assert set(pairwise(path)) <= set(draw.EDGES)
    assert len(set(draw.PATHS)) == len(draw.PATHS)


def test_tables_of_the_diagram_have_these_columns(tmp_path):
    path = make_store(tmp_path / "net.duckdb")
    with open_store(path) as store:
        for table, columns in draw.TABLES.items():
            there = {row[0] for row in store.connection.execute(f"DESCRIBE {table}").fetchall()}
            assert set(columns) <= there, table
    for table, column, other in draw.JOINS:
        assert set(column.split(", ")) <= set(draw.TABLES[table])
        assert "id" in draw.TABLES[other]
