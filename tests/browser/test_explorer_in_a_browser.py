"""The explorer in a real browser: every view, by mouse and by keyboard, wide and narrow, light and dark."""

import os
import time
from pathlib import Path

import pytest
from reportstores import HOSTILE, dense_demo, hostile_model
from webdriver import Browser

from emergraph import api
from emergraph.analysis.routes.options import PathOptions
from emergraph.exporters.traces.samples import RandomInputs
from emergraph.graphstore.store import open_store

pytestmark = pytest.mark.browser
SHOTS = os.environ.get("EMERGRAPH_SHOTS")
"""Folder where screenshots are kept, for a person to look at."""
LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
VIEWS = {
    "network": "",
    "layer": "#layer=1&sort=0.desc&by=column-activity.mean",
    "unit": "#unit=70&trail=3",
    "paths": "#from=3&to=150&show=paths",
}
WIDER = """
const edge = document.documentElement.clientWidth;
const held = ['auto', 'scroll', 'hidden'];
const scrolls = e => e && (held.includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
return [...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.skip, .visually-hidden') && e.getBoundingClientRect().right > edge + 1
    && !scrolls(e.parentElement))
  .map(e => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 60));
"""
UNREADABLE = """
const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255).map(
  v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const back = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (c.startsWith('rgb') && !c.startsWith('rgba(0, 0, 0, 0')) return c; } return 'rgb(255, 255, 255)'; };
const texts = 'p, dd, dt, td, th, a, h1, h2, h3, summary, code, caption, label, span, button';
return [...document.querySelectorAll(texts)]
  .filter(e => { const [x, y] = [lum(getComputedStyle(e).color), lum(back(e))].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05) < 4.5; })
  .map(e => e.tagName + ': ' + e.textContent.slice(0, 40));
"""
EDGES_IN = """
const box = [...document.querySelectorAll('.sql')].find(e => e.textContent.startsWith('SQL: edges in'));
const table = [...document.querySelectorAll('table')].find(e => e.caption.textContent.includes('into it'));
const weights = [...table.tBodies[0].rows].map(row => row.cells[1].textContent);
return [box.querySelector('code').textContent, weights];
"""
PATHS = """
const unit = link => Number(/unit=(\\d+)/.exec(link.hash)[1]);
return [...document.querySelectorAll('#panel table')]
  .filter(table => table.caption.textContent.startsWith('Product'))
  .map(table => [table.caption.textContent.split(': ')[1], [...table.querySelectorAll('a')].map(unit)]);
"""
PANEL = "return document.getElementById('panel').textContent"


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorers")
    for page, model in (("plain", dense_demo()), ("hostile", hostile_model(folder / "hostile.onnx"))):
        name = "digits" if page == "plain" else HOSTILE[4]
        graph = api.export(model, folder / f"{page}.duckdb", name=name)
        graph.trace(RandomInputs(12, 3), model=model)
        graph.explore(folder / f"{page}.html")
    return folder


def opened(browser, page, fragment=""):
    """Open a page at a fragment; wait until it has drawn."""
    browser.run("location.href = 'about:blank'")
    messages, requests = browser.open(page)
    for _ in range(200):
        if browser.run("return document.documentElement.dataset.state") != "loading":
            break
        time.sleep(0.02)
    assert browser.run("return document.documentElement.dataset.state") == "ready"
    messages += browser.console()
    assert messages == []
    assert [
        url for url in requests + browser.requests() if not url.startswith(("data:", "file:", "about:"))
    ] == []
    if fragment:
        went(browser, f"location.hash = {fragment!r}")


def went(browser, script):
    """Run a script and wait for two frames: the page has answered."""
    browser.run(script)
    browser.run(
        "return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
    )


def pressed(browser, *keys):
    """Press keys as a person does."""
    for key in keys:
        code = {"Enter": 13, "Tab": 9}.get(key, 0)
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        for kind in ("keyDown", "keyUp"):
            browser._cdp("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                         **({"text": text} if text and kind == "keyDown" else {}))  # fmt: skip
    went(browser, "return 1")


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_every_view_fits_and_can_be_read(browser, pages, width, scheme):
    browser.look(width=width, scheme=scheme)
    opened(browser, pages / "plain.html")
    for name, fragment in VIEWS.items():
        went(browser, f"location.hash = {fragment!r}")
        if SHOTS:
            browser.screenshot(Path(SHOTS) / f"explorer-{name}-{width}-{scheme}.png")
        assert browser.run(WIDER) == [], name
        assert browser.run(UNREADABLE) == [], name
        assert browser.run("return document.querySelector('#canvas canvas').width") > 100
    assert browser.console() == []


def test_a_walk_by_keyboard_from_the_search_to_the_next_unit(browser, pages):
    browser.look(width=1280)
    opened(browser, pages / "plain.html")
    browser.run("document.getElementById('query').focus()")
    pressed(browser, *"hidden1[3]")
    assert "hidden1[3]" in browser.run("return document.querySelector('#results a').textContent")
    pressed(browser, "ArrowDown", "Enter")
    unit = browser.run("return location.hash")
    assert unit.startswith("#unit=")
    assert "hidden1[3]" in browser.run(PANEL)
    browser.run("document.getElementById('canvas').focus()")
    pressed(browser, "ArrowLeft", "ArrowLeft", "Enter")
    assert f"trail={unit.removeprefix('#unit=')}" in browser.run("return location.hash")
    assert "hidden1[3]" in browser.run("return document.getElementById('where').textContent")
    went(browser, "history.back()")
    time.sleep(0.1)
    assert browser.run("return location.hash") == unit


def test_a_link_restores_the_view(browser, pages):
    opened(
        browser,
        pages / "plain.html",
        "#layer=0&sort=0.desc&page=1&from=3&by=column-activity.mean&columns=0.3",
    )
    seen = browser.run("return [document.getElementById('panel').innerHTML, location.hash]")
    opened(browser, pages / "plain.html", seen[1])
    assert browser.run("return [document.getElementById('panel').innerHTML, location.hash]") == seen
    assert "page 2 of" in seen[0]


@pytest.mark.parametrize(
    "fragment",
    ["#unit=99999999", "#layer=x", "#block=7.9", "#by=%00&unit=-1", "#show=paths&from=1", "#%E0%A4%A"],
)
def test_an_address_that_means_nothing_shows_the_network(browser, pages, fragment):
    opened(browser, pages / "plain.html", fragment)
    assert browser.run("return document.querySelector('#panel h2').textContent") == "Network"
    assert browser.console() == []


def test_the_edges_shown_are_what_its_sql_gives(browser, pages):
    opened(browser, pages / "plain.html", "#unit=70")
    sql, shown = browser.run(EDGES_IN)
    with open_store(pages / "plain.duckdb") as store:
        rows = store.connection.execute(sql).fetchall()
    assert [float(text) for text in shown] == pytest.approx([row[6] for row in rows], rel=1e-3)
    assert len(rows) == 20


def test_paths_of_the_page_are_those_of_the_library_where_all_edges_are_kept(browser, tmp_path, pages):
    graph = api.open_graph(pages / "plain.duckdb")
    graph.explore(tmp_path / "all.html", strongest=500)
    found = graph.analyse("paths", PathOptions(start="unit = 3", end="unit = 150", k=5), save=False)
    expected = (
        found.paths.filter(path="strongest").group_by("rank", maintain_order=True).agg("unit", "strength")
    )
    opened(browser, tmp_path / "all.html", "#from=3&to=150&show=paths")
    shown = browser.run(PATHS)
    assert [units for _, units in shown] == expected["unit"].to_list()
    strengths = [one[0] for one in expected["strength"].to_list()]
    assert [float(text) for text, _ in shown] == pytest.approx(strengths, rel=1e-3)


def test_hostile_names_are_text(browser, pages):
    opened(browser, pages / "hostile.html")
    for fragment in ("", *(f"#layer={i}" for i in range(4)), "#unit=1", "#from=0&to=3&show=paths"):
        went(browser, f"location.hash = {fragment!r}")
        assert browser.run("return document.title").endswith("emergraph explorer")
        assert browser.run("return document.querySelectorAll('script').length") == 2
        assert browser.run("return document.querySelectorAll('img, iframe, form, b').length") == 0
    went(browser, "location.hash = ''")
    text = browser.run(PANEL)
    assert "<script>document.title='pwned'</script>" in text
    assert "'; DROP TABLE graphs; --" in text
    assert "safe\\u202egnp.exe" in text
    assert browser.console() == []


def test_a_script_that_is_not_the_page_s_would_not_run(browser, pages, tmp_path):
    page = (pages / "plain.html").read_text(encoding="utf-8")
    attack = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
    spoiled = tmp_path / "spoiled.html"
    spoiled.write_text(page.replace("<main>", f"<main>{attack}"), encoding="utf-8")
    browser.open(spoiled)
    time.sleep(0.3)
    assert "ran" not in browser.run("return document.title").split()
