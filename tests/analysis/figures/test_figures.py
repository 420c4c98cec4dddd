"""Figures show what the store holds, and are drawn without a network."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import duckdb
import numpy as np
import polars as pl
import pytest
from figureframes import FRAMES

from emergraph.analysis.figures.figure import drawable
from emergraph.analysis.figures.marks import with_labels
from emergraph.analysis.figures.names import short_name
from emergraph.analysis.figures.picture import Picture
from emergraph.analysis.figures.reading import read_figure, require_figure
from emergraph.analysis.figures.rendering import ImageFormat, inline_svg, render, specification
from emergraph.analysis.landscape.figures import _basins, density
from emergraph.analysis.pruning.figures import CURVES
from emergraph.analysis.registry import Known, built_in, figure_named
from emergraph.errors import StoreError, UsageError
from emergraph.graphstore.query import run_query
from emergraph.graphstore.store import open_store

FIGURES = Known(analyses=built_in()).figures()


@pytest.fixture(scope="module")
def data(analysed_store):
    with open_store(analysed_store) as opened:
        found = {figure.name: read_figure(opened.graph(), figure) for figure in FIGURES}
    return {name: one for name, one in found.items() if one is not None}


def test_every_figure_with_data_is_there(data):
    assert set(data) >= {figure.name for figure in FIGURES} - FRAMES.keys()


@pytest.mark.parametrize("figure", [f for f in FIGURES if f.name not in FRAMES], ids=lambda f: f.name)
def test_a_figure_is_svg_that_brings_all_it_needs(data, figure):
    chart = data[figure.name].chart()
    svg = inline_svg(chart, prefix="p-", label="A figure")
    ET.fromstring(svg)
    assert not re.search(r"https?://(?!www\.w3\.org)|<image|<script| style=| on\w+=", svg)
    assert 'aria-label="A figure"' in svg
    assert "var(--ink)" in svg
    for name in re.findall(r'\bid="([^"]*)"', svg):
        assert name.startswith("p-")


@pytest.mark.parametrize("image", ImageFormat)
@pytest.mark.parametrize("name", ["strengths", "layers"])
def test_images(data, name, image):
    content = render(data[name].chart(), image)
    start = {"svg": b"<svg", "png": b"\x89PNG", "html": b"<!"}[image]
    assert content.lstrip().lower().startswith(start.lower())
    if image is ImageFormat.HTML:
        assert not re.search(rb'src="http|@import|link rel', content)


def test_axes_name_their_quantities(data):
    for name, one in data.items():
        chart = one.chart()
        if isinstance(chart, Picture):
            continue
        titles = re.findall(r'"title": "([^"]+)"', json.dumps(specification(chart)))
        assert titles, name


def test_the_sql_of_a_figure_gives_its_frames(analysed_store, data):
    """One query in the sandbox, for all figures: it takes a second to start."""
    asked = [(one.frames[name], sql) for one in data.values() for name, sql in one.sql.items()]
    counts = " UNION ALL ".join(
        f"SELECT {i} AS i, count(*) AS n FROM ({sql})" for i, (_, sql) in enumerate(asked)
    )
    found = run_query(analysed_store, f"{counts} ORDER BY i").frame
    assert found["n"].to_list() == [frame.height for frame, _ in asked]


def test_the_newest_run_is_drawn(analysed_store, tmp_path):
    from emergraph import api

    path = tmp_path / "copy.duckdb"
    path.write_bytes(analysed_store.read_bytes())
    graph = api.open_store(path).graph()
    graph.emergence(thresholds=[0.1, 0.2, 0.3])
    with open_store(path) as opened:
        drawn = require_figure(opened.graph(), figure_named("emergence-sweep"))
        assert drawn.runs[0].id == opened.runs()["id"].max()
    assert set(drawn.frames["sweep"]["threshold"]) <= {0.1, 0.2, 0.3}


def test_layers_whose_share_no_bar_would_show_are_left_out(analysed_store, tmp_path):
    path = tmp_path / "copy.duckdb"
    path.write_bytes(analysed_store.read_bytes())
    with open_store(path) as opened:
        run = opened.results("emergence_layers")["run"].max()
        layers = opened.graph().layers()["name"].to_list()
    small, large = layers[0], layers[1]
    with duckdb.connect(path) as connection:
        connection.execute("UPDATE emergence_layers SET share = 0 WHERE run = ?", [run])
        for layer, share in ((0, 0.005), (1, 0.995)):
            connection.execute(
                "UPDATE emergence_layers SET share = ? WHERE run = ? AND layer = ?", [share, run, layer]
            )
    with open_store(path) as opened:
        drawn = require_figure(opened.graph(), figure_named("emergence-layers")).frames["layers"]
    assert set(drawn["layer"]) == {large}
    assert small not in set(drawn["layer"])


@pytest.mark.parametrize(
    ("figure", "rows", "change"),
    [
        ("landscape-walks", "walks", lambda frame: frame.head(-1)),
        ("layers", "layers", lambda frame: frame.head(-1)),
    ],
)
def test_rows_that_do_not_fit_one_another_are_damage(data, figure, rows, change):
    frames = {**data[figure].frames, rows: change(data[figure].frames[rows])}
    with pytest.raises(StoreError, match=f"damaged, the rows of figure '{figure}' do not fit one another"):
        replace(data[figure], frames=frames).chart()


def test_collapse_is_marked_at_its_level():
    levels = pl.DataFrame(
        {
            "level": [0.0, 0.5, 0.9],
            "seed": [None, None, None],
            "effective_sparsity": [0.0, 0.5, 1.0],
            "giant_share": [1.0, 1.0, 0.2],
            "collapsed_layers": [0, 0, 2],
            "disconnected_outputs": [0, 0, 0],
            "log10_emergence_active": [3.0, 2.0, None],
            "log10_emergence_any": [3.0, 2.0, None],
            "argmax_agreement": pl.Series([None] * 3, dtype=pl.Float64),
            "accuracy": pl.Series([None] * 3, dtype=pl.Float64),
        }
    )
    spec = str(specification(CURVES.draw({"levels": levels})))
    assert "2 layer(s) collapse" in spec
    assert "cut off" not in spec
    assert "collapse" not in str(specification(CURVES.draw({"levels": levels.head(2)})))


def test_basins_of_two_wells():
    axis = np.linspace(-1.5, 1.5, 31)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    points = pl.DataFrame({"x": x.ravel(), "y": y.ravel(), "loss": ((x**2 - 1) ** 2 + y**2).ravel()})
    minima, borders = _basins(points, axis, axis)
    assert sorted(minima["x"].round(6)) == [-1.0, 1.0]
    assert minima["y"].abs().max() < 1e-9
    assert borders.height == axis.size
    assert borders["x"].abs().max() <= 0.1 / 2 + 1e-9


def test_figures_without_data_say_what_makes_them(analysed_store):
    with open_store(analysed_store) as opened, pytest.raises(UsageError, match="--model MODEL"):
        require_figure(opened.graph(), figure_named("pruning-runs"))
    with pytest.raises(UsageError, match="percolation"):
        figure_named("percolaton")


def test_short_names_keep_the_end():
    assert short_name("model/encoder/layer.3/attention/output/dense/MatMul", 26) == "output/dense/MatMul"
    assert short_name("fc1", 26) == "fc1"
    assert len(short_name("x" * 99, 26)) == 26
    assert len(short_name("x" * 99 + "/", 26)) == 26
    assert "\x1b" not in short_name("\x1b[31m" * 20, 20)


def test_labels_are_different_for_different_names():
    names = [f"{i}/{'long' * 10}" for i in range(3)]
    labels = with_labels(pl.DataFrame({"name": [*names, names[0]]}), "name")["label"].to_list()
    assert len(set(labels)) == 3
    assert labels[0] == labels[3]


def test_what_is_drawn_has_no_characters_that_steer():
    frame = drawable(pl.DataFrame({"name": ["a\u202eb\x1b[0m", None], "x": [1.0, 2.0]}))
    assert frame["name"].to_list() == ["a\\u202eb\\x1b[0m", None]


def test_the_density_of_a_spectrum_holds_all_of_it():
    frame = pl.DataFrame({"number": [0, 0, 1], "eigenvalue": [-1.0, 3.0, 1.0], "weight": [0.25, 0.75, 1.0]})
    found = density(frame)
    step = found["eigenvalue"][1] - found["eigenvalue"][0]
    assert found["mean"].sum() * step == pytest.approx(1.0, abs=0.02)
    assert (found["low"] <= found["mean"]).all()
    assert (found["mean"] <= found["high"]).all()


@pytest.mark.parametrize("name", FRAMES)
def test_figures_that_need_other_runs(name):
    svg = inline_svg(figure_named(name).draw(FRAMES[name]), prefix="p-", label="A figure")
    assert svg.count("<text") > 5
