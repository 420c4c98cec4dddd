"""The page holds what the store holds, says where it comes from, and takes names as text."""

import base64
import hashlib
import re
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest
from explorerdata import page_data
from inplacemodels import export_twice, residual_onnx
from pagereader import Reader
from reportstores import HOSTILE, hostile_model

from emergraph import api
from emergraph.analysis.explorer import collect, unitcolumns
from emergraph.analysis.explorer.collect import rounded
from emergraph.analysis.explorer.options import ExplorerOptions
from emergraph.analysis.explorer.page import explorer_page
from emergraph.errors import LimitError, StoreError
from emergraph.exporters.modeltensors import open_model
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.modelfiles import model_given
from emergraph.graphstore.query import run_query
from emergraph.graphstore.store import open_store

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "analysis" / "explorer"


def page_of(path, **options):
    with open_store(path) as store:
        return explorer_page(store.graph(), ExplorerOptions(**options))


@pytest.fixture(scope="module")
def page(analysed_store):
    return page_of(analysed_store, strongest=4)


def test_the_sql_of_the_page_gives_its_numbers(page, analysed_store):
    header, arrays = page_data(page)
    layer = header["layers"][2]
    asked = header["sql"]["units"].replace("{layer}", f" AND u.layer = {layer['id']}")
    frame = run_query(analysed_store, asked.replace("{order}", "u.id")).frame
    units = slice(layer["first"], layer["first"] + layer["n"])
    assert frame["unit"].to_list() == list(range(units.start, units.stop))
    names = {column["name"] for column in header["columns"]}
    assert {"activity.mean", "edges.edges in", "unit.bias", "topology_units.pagerank"} <= names
    for number, column in enumerate(header["columns"]):
        expected = rounded(frame[column["name"]].cast(float).to_numpy())
        np.testing.assert_array_equal(arrays[f"column{number}"][units], expected, err_msg=column["name"])
    assert [header["roles"][code] for code in arrays["role"][units]] == frame["role"].to_list()
    words = [header["activations"][code] or None for code in arrays["activation"][units]]
    assert words == frame["activation"].to_list()
    for name in ("layers", "blocks"):
        assert run_query(analysed_store, header["sql"][name]).frame.height >= 3


def test_the_edges_of_the_page_are_the_strongest_of_the_store(page, analysed_store):
    header, arrays = page_data(page)
    src = np.repeat(np.arange(header["units"]), arrays["out"]).tolist()
    blocks = [header["blocks"][place]["id"] for place in arrays["block"]]
    asked = """
        SELECT src, dst, block, weight FROM edges
        QUALIFY row_number() OVER (PARTITION BY src ORDER BY coalesce(l1, 1) DESC, block, dst) <= 4
             OR row_number() OVER (PARTITION BY dst ORDER BY coalesce(l1, 1) DESC, block, src) <= 4
        ORDER BY src, coalesce(l1, 1) DESC, block, dst"""
    with open_store(analysed_store) as store:
        expected = store.connection.execute(asked).fetchall()
    found = list(zip(src, arrays["dst"].tolist(), blocks, arrays["weight"].tolist(), strict=True))
    assert found == expected
    assert header["kept"] == len(expected) < header["edges"]


def test_a_page_made_again_is_the_same(page, analysed_store):
    assert page_of(analysed_store, strongest=4) == page


def test_the_policy_names_the_scripts_and_the_style_of_the_page_and_nothing_else(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    inside = re.findall(r"<(script|style)(?: id=\"__[a-z_]+\")?>(.*?)</\1>", page, re.DOTALL)

    def source(kind):
        digests = [hashlib.sha256(text.encode()).digest() for tag, text in inside if tag == kind]
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    assert policy == (
        f"default-src 'none'; script-src {source('script')}; style-src {source('style')}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    reader = Reader(page)
    assert not {"img", "iframe", "form", "object", "embed"} & set(reader.tags)
    assert [value for name, value in reader.attributes if name in ("src", "href")] == [
        "data:,",
        "#panel",
        "#",
    ]
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name == "style"]


def test_no_script_makes_markup_of_text():
    for path in FOLDER.glob("*.js"):
        if not path.is_symlink():
            text = path.read_text(encoding="utf-8")
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text
            )
            assert "</script" not in text


def test_hostile_names_are_data(tmp_path):
    model = hostile_model(tmp_path / "hostile.onnx")
    graph = api.export(model, tmp_path / "net.duckdb", name=HOSTILE[4])
    graph.trace(RandomInputs(3, 1), model=model)
    graph.explore(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not any(name in page for name in HOSTILE)
    header, _ = page_data(page)
    names = " ".join(layer["name"] for layer in header["layers"])
    assert "<script>document.title='pwned'</script>" in names
    assert "safe\\u202egnp.exe\\u2066" in names
    assert all(text.isprintable() for text in (names, header["title"]))


def test_edges_that_stayed_in_the_model_need_it(tmp_path):
    model = residual_onnx(tmp_path / "net.onnx")
    stored, in_place = export_twice(model, tmp_path)
    header, arrays = page_data(page_of(in_place, strongest=3))
    assert header["lacking"] == "emergraph explore in-place.duckdb --model net.onnx"
    assert "dst" not in arrays
    assert {"edges.edges in", "edges.|w| out"} <= {column["name"] for column in header["columns"]}
    with model_given(open_model(model)):
        header, arrays = page_data(page_of(in_place, strongest=3))
    assert header["lacking"] == ""
    expected = page_data(page_of(stored, strongest=3))[1]
    for name in ("out", "dst", "block", "weight", "strength"):
        np.testing.assert_array_equal(arrays[name], expected[name])


def test_a_graph_without_units(analysed_store, tmp_path):
    with duckdb.connect(shutil.copy(analysed_store, tmp_path / "net.duckdb")) as store:
        for table in ("blocks", "units", "layers"):
            store.execute(f"DELETE FROM {table}")
    header, arrays = page_data(page_of(tmp_path / "net.duckdb"))
    assert (header["units"], header["layers"], arrays["activation"].size) == (0, [], 0)


def test_several_rows_about_a_unit_are_a_damaged_store(analysed_store, tmp_path):
    path = Path(shutil.copy(analysed_store, tmp_path / "net.duckdb"))
    with duckdb.connect(path) as store:
        store.execute("INSERT INTO activations SELECT * FROM activations WHERE unit = 3")
    with pytest.raises(StoreError, match="damaged, a trace or result has several rows for a unit"):
        page_of(path)


@pytest.mark.parametrize(("units", "k"), [(1, 20), (15_000, 20), (15_001, 19), (299_999, 1), (10**6, 1)])
def test_large_graphs_have_fewer_edges_for_each_unit(units, k):
    assert collect.strongest_by_default(units) == k


def test_a_graph_of_too_many_units_is_refused(analysed_store, monkeypatch):
    n_units = page_data(page_of(analysed_store))[0]["units"]
    monkeypatch.setattr(collect, "MOST_UNITS", n_units)
    page_of(analysed_store)
    monkeypatch.setattr(collect, "MOST_UNITS", n_units - 1)
    with pytest.raises(LimitError, match=r"154 units, and a page is meant for 153"):
        page_of(analysed_store)


def test_too_many_columns_are_left_out_and_named(analysed_store, monkeypatch):
    with open_store(analysed_store) as store:
        every = len(unitcolumns.unit_columns(store.graph()).names)
        monkeypatch.setattr(unitcolumns, "MOST_COLUMNS", every)
        assert unitcolumns.unit_columns(store.graph()).left_out == ()
        monkeypatch.setattr(unitcolumns, "MOST_COLUMNS", every - 1)
        assert unitcolumns.unit_columns(store.graph()).left_out == ("topology_units",)


def test_the_library_is_the_one_that_is_recorded():
    folder = ROOT / "third_party" / "cytoscape"
    data = (folder / "cytoscape.min.js").read_bytes()
    assert hashlib.sha256(data).hexdigest() in (folder / "README.md").read_text(encoding="utf-8")
    assert (FOLDER / "cytoscape.min.js").resolve() == folder / "cytoscape.min.js"
    licence = (folder / "LICENSE").read_text(encoding="utf-8")
    assert "Permission is hereby granted, free of charge" in " ".join(licence.split())
    assert b"Permission is hereby granted, free of charge" in data[:1500]
