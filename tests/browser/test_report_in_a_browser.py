"""A report in a real browser: light and dark, wide and narrow, with names that try to be more than names."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from clifiles import chain_of_layers
from figureframes import FRAMES
from reportstores import HOSTILE, analysed, dense_demo, hostile_model
from webdriver import Browser

from emergraph.analysis.figures.rendering import inline_svg
from emergraph.analysis.registry import built_in, figure_named
from emergraph.analysis.report import html
from emergraph.analysis.report.collect import collect_report
from emergraph.analysis.report.html import report_page, styled
from emergraph.cli.main import main
from emergraph.graphstore.store import open_store

pytestmark = pytest.mark.browser
SHOTS = os.environ.get("EMERGRAPH_SHOTS")
"""Folder where screenshots are kept, for a person to look at."""
LOOKS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
SECTIONS = {"summary", "map", "provenance"} | {
    one.section.id for one in built_in() if one.section is not None
}
WIDER = """
const edge = document.documentElement.clientWidth;
const held = ['auto', 'scroll', 'hidden'];
const scrolls = e => e && (held.includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
return [...document.querySelectorAll('body *')]
  .filter(e => !e.closest('.skip') && e.getBoundingClientRect().right > edge + 1 && !scrolls(e.parentElement))
  .map(e => e.tagName + '.' + e.className + ': ' + e.textContent.slice(0, 60));
"""
OVERLAPPING = """
const boxes = [...document.querySelectorAll('header > *, section > *, figure > *, .facts > div, nav li')]
  .filter(e => !e.matches('.skip') && e.getBoundingClientRect().height > 0);
const found = [];
for (const a of boxes) for (const b of boxes) {
  if (a === b || a.parentElement !== b.parentElement) continue;
  const p = a.getBoundingClientRect(), q = b.getBoundingClientRect();
  if (p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1)
    found.push(a.textContent.slice(0, 40) + ' / ' + b.textContent.slice(0, 40));
}
return found;
"""
CLIPPED = """
return [...document.querySelectorAll('.plot svg, .pane svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(t => {
    const box = t.getBoundingClientRect();
    return box.width && (box.left < frame.left - 2 || box.right > frame.right + 2 ||
      box.top < frame.top - 2 || box.bottom > frame.bottom + 2);
  }).map(t => t.textContent);
});
"""
TOUCHING = """
const found = [];
for (const svg of document.querySelectorAll('.plot svg, .pane svg')) {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const seen = new Set();
  const texts = [...svg.querySelectorAll('text')]
    .filter(t => getComputedStyle(t).opacity > 0 && getComputedStyle(t).visibility === 'visible')
    .map(t => [t.textContent.trim(), t.getBoundingClientRect()])
    .filter(([said, box]) => said && box.width && box.height)
    .filter(([said, box]) => {  // a halo is below the letters that it is of
      const key = [said, box.left, box.top].join();
      return !seen.has(key) && seen.add(key);
    });
  for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
    const [[a, p], [b, q]] = [texts[i], texts[j]];
    const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (wide > -3 * scale && high > 0.35 * Math.min(p.height, q.height))
      found.push(svg.closest('figure').id + ': ' + a + ' / ' + b);
  }
}
return found;
"""
TINY = """
return [...document.querySelectorAll('.plot svg, .pane svg')].flatMap(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll('text')]
    .filter(t => parseFloat(getComputedStyle(t).fontSize) * scale < 7).map(t => t.textContent);
});
"""
UNREADABLE = """
const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255).map(
  v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const back = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!c.startsWith('rgba(0, 0, 0, 0')) return c; } return 'rgb(255, 255, 255)'; };
const texts = 'p, dd, dt, td, th, a, h1, h2, h3, summary, code, figcaption, .plot text, .pane text';
return [...document.querySelectorAll(texts)]
  .filter(e => { const s = getComputedStyle(e); const ink = e.closest('svg') ? s.fill : s.color;
    const [x, y] = [lum(ink), lum(back(e))].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05) < 4.5; })
  .map(e => e.tagName + ': ' + e.textContent.slice(0, 40));
"""


SIZES = {10: False, 72: True, 300: False}
"""Layers of a network, and whether they are blocks that repeat."""


def stack_of_layers(path, n, *, alike):
    """Dense layers with their nonlinearity, the names of which distinguish them only at their end."""
    rng = np.random.default_rng(n)
    widths = [6] * (n + 1) if alike else rng.integers(4, 12, n + 1).tolist()
    nodes, weights, last = [], [], "x"
    for k in range(n):
        name = f"/model/encoder/stage.{k // 12}/block.{k % 12}/projection"
        value = rng.standard_normal((widths[k], widths[k + 1])).astype(np.float32) / np.sqrt(widths[k])
        weights.append(onnx.numpy_helper.from_array(np.float32(value), f"w{k}"))
        nodes.append(onnx.helper.make_node("MatMul", [last, f"w{k}"], [f"{name}/y"], name=f"{name}/MatMul"))
        nodes.append(onnx.helper.make_node("Relu", [f"{name}/y"], [f"{name}/r"], name=f"{name}/Relu"))
        last = f"{name}/r"
    floats = onnx.TensorProto.FLOAT
    ends = [("x", widths[0]), (last, widths[-1])]
    graph_input, graph_output = (
        onnx.helper.make_tensor_value_info(name, floats, ["N", size]) for name, size in ends
    )
    graph = onnx.helper.make_graph(nodes, "stack", [graph_input], [graph_output], weights)
    onnx.save(onnx.helper.make_model(graph, ir_version=10), path)
    return path


DIFF_SECTIONS = {"summary", "layers", "tensors", "units", "measures", "provenance"}


def page_of(path, name=None):
    with open_store(path) as store:
        return report_page(collect_report(store.graph(name)))


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, model in (("plain", dense_demo()), ("hostile", hostile_model(folder / "hostile.onnx"))):
        analysed(folder / f"{name}.duckdb", model, name="digits" if name == "plain" else HOSTILE[4])
        (folder / f"{name}.html").write_text(page_of(folder / f"{name}.duckdb"), encoding="utf-8")
    for n, alike in SIZES.items():
        model = stack_of_layers(folder / f"{n}-layers.onnx", n, alike=alike)
        analysed(folder / f"{n}-layers.duckdb", model, name=f"stack-{n}", survey=n == min(SIZES))
        (folder / f"{n}-layers.html").write_text(page_of(folder / f"{n}-layers.duckdb"), encoding="utf-8")
    gallery(folder / "gallery.html")
    changed = folder / "changed.onnx"
    onnx.save(chain_of_layers(*HOSTILE, weight=np.asarray([[1.5, -0.5], [0.25, -2.0]], np.float32)), changed)
    sides = [f"{folder / 'hostile.duckdb'}:{HOSTILE[4]}", str(changed)]
    assert main(["diff", *sides, "--out", str(folder / "diff.html"), "--quiet"]) == 0
    return folder


def checked(browser, pages, name, width, scheme):
    """Open a page, look it over, and return the ids of its sections."""
    browser.look(width=width, scheme=scheme)
    console, requests = browser.open(pages / f"{name}.html")
    assert console == []
    assert [url for url in requests if not url.startswith("data:")] == []
    if SHOTS:
        browser.screenshot(Path(SHOTS) / f"{name}-{width}-{scheme}.png", whole=True)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run(WIDER) == []
    assert browser.run(OVERLAPPING) == []
    assert browser.run(CLIPPED) == []
    assert browser.run(TOUCHING) == []
    assert browser.run(TINY) == []
    assert browser.run(UNREADABLE) == []
    return set(browser.run("return [...document.querySelectorAll('section')].map(s => s.id)"))


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_a_report(browser, pages, name, width, scheme):
    assert checked(browser, pages, name, width, scheme) == SECTIONS
    assert browser.run("return document.querySelectorAll('figure svg').length") >= 11


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("n", SIZES)
def test_networks_of_few_and_of_many_layers(browser, pages, n, width, scheme):
    assert checked(browser, pages, f"{n}-layers", width, scheme) == SECTIONS
    assert browser.run("return document.querySelectorAll('#map svg text').length") > 3


def gallery(path):
    """A page of the figures that the stores of these tests hold no runs for."""
    charts = {name: figure_named(name).draw(frames) for name, frames in FRAMES.items()}
    pictures = {name: inline_svg(chart, prefix=name, label=name) for name, chart in charts.items()}
    wide = {"circuit": " wide", "lineage-tree": " wide"}
    drawn = "".join(
        f'<figure id="figure-{name}"><div class="plot{wide.get(name, "")}">{svg}</div></figure>'
        for name, svg in pictures.items()
    )
    sheet = styled(Path(html.__file__).parent / "report.css")
    path.write_text(
        f"<!doctype html><meta charset=utf-8><link rel=icon href=data:,><style>{sheet}</style>"
        f"<main><section>{drawn}</section></main>",
        encoding="utf-8",
    )


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_figures_of_rarer_runs(browser, pages, width, scheme):
    checked(browser, pages, "gallery", width, scheme)
    assert browser.run("return document.querySelectorAll('svg').length") == len(FRAMES)


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_a_difference(browser, pages, width, scheme):
    """Of two networks with hostile names and other weights."""
    assert checked(browser, pages, "diff", width, scheme) == DIFF_SECTIONS
    assert browser.run("return document.querySelectorAll('script, img, iframe, form').length") == 0
    assert HOSTILE[0] in browser.run("return document.body.textContent")
    assert browser.run("return document.querySelectorAll('#tensors tbody tr, #units tbody tr').length") > 2


def test_the_page_follows_the_reader_into_the_dark(browser, pages):
    shades = []
    for scheme in ("light", "dark"):
        browser.look(width=1280, scheme=scheme)
        browser.open(pages / "plain.html")
        shades.append(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert len(set(shades)) == 2


def test_hostile_names_are_text(browser, pages):
    browser.look(width=1280)
    browser.open(pages / "hostile.html")
    assert browser.run("return document.title").endswith("emergraph report")
    assert browser.run("return document.querySelectorAll('script, img, iframe, form').length") == 0
    text = browser.run("return document.body.innerText")
    assert "<script>document.title='pwned'</script>" in text
    assert "'; DROP TABLE graphs; --" in text
    assert "{{7*7}}" in text
    assert "safe\\u202egnp.exe" in text


def test_a_script_in_the_page_would_not_run(browser, pages, tmp_path):
    """The policy holds where the escaping would fail."""
    page = (pages / "plain.html").read_text(encoding="utf-8")
    spoiled = tmp_path / "spoiled.html"
    attack = (
        "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
        "<style>h1 { color: red }</style>"
    )
    spoiled.write_text(page.replace("<main>", f"<main>{attack}"), encoding="utf-8")
    browser.open(spoiled)
    assert "ran" not in browser.run("return document.title")
    assert browser.run("return getComputedStyle(document.querySelector('h1')).color") != "rgb(255, 0, 0)"


def test_the_keyboard_reaches_all_that_scrolls_or_opens(browser, pages):
    browser.look(width=390)
    browser.open(pages / "plain.html")
    stuck = browser.run(
        "return [...document.querySelectorAll('body *')].filter(e => e.scrollWidth > e.clientWidth + 1 && "
        "['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && e.tabIndex < 0).map(e => e.className)"
    )
    assert stuck == []
    assert browser.run("return [...document.querySelectorAll('summary')].every(e => e.tabIndex >= 0)")


def test_the_map_zooms(browser, pages):
    browser.look(width=1280)
    browser.open(pages / "plain.html")
    sizes = []
    for choice in ("half", "full", "double"):
        browser.run(f"document.getElementById('zoom-{choice}').click()")
        sizes.append(browser.run("return document.querySelector('.pane svg').getBoundingClientRect().width"))
    assert sizes[0] * 2 == pytest.approx(sizes[1], rel=0.02)
    assert sizes[1] * 2 == pytest.approx(sizes[2], rel=0.02)
