"""The documentation site that `make site` built, page by page: links, console, requests, width."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from webdriver import Browser, find_browser

pytestmark = pytest.mark.site
SITE = Path(__file__).resolve().parents[2] / "build" / "site"
MADE = ("genindex.html", "search.html")
"""Pages of the generator: they have no title of ours."""


class Page(HTMLParser):
    """What a page links to, loads, and can be linked at."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.ids = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get("src"):
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(found["href"])


@pytest.fixture(scope="module")
def pages():
    """Every page of the site, read."""
    assert (SITE / "index.html").is_file(), "run make site"
    return {path: Page(path) for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts}


def test_the_site_has_all_pages(pages):
    docs = SITE.parents[1] / "docs"
    sources = {path.relative_to(docs).with_suffix("") for path in docs.rglob("*.md")}
    wanted = {str(path) for path in sources if path.parent.name not in ("study", "gallery")}
    assert wanted == {str(path.relative_to(SITE).with_suffix("")) for path in pages} - {
        Path(name).stem for name in MADE
    }


def test_links_lead_somewhere(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            there = target.is_file() and (not anchor or target not in pages or anchor in pages[target].ids)
            if not there:
                broken.append(f"{path.relative_to(SITE)}: {link}")
    assert broken == []


def test_options_keep_both_hyphens(pages):
    """What is printed can be typed: no dash where a docstring has ``--inputs``."""
    found = {path.name: re.findall("\N{EN DASH}[a-z-]+", path.read_text(encoding="utf-8")) for path in pages}
    assert {name: words for name, words in found.items() if words} == {}


def test_nothing_is_loaded_from_elsewhere(pages):
    assert [load for page in pages.values() for load in page.loads if urlsplit(load).netloc] == []


@pytest.mark.skipif(find_browser() is None, reason="no Chromium or no chromedriver")
def test_every_page_in_a_browser(pages):
    """No word on the console, no request that leaves, and no page wider than the window."""
    faults = []
    with Browser() as browser:
        for width in (1280, 390):
            browser.look(width=width)
            for path in pages:
                console, requests = browser.open(path)
                faults += [f"{path.name} at {width}: {line}" for line in console]
                faults += [
                    f"{path.name}: asks for {url}"
                    for url in requests
                    if not url.startswith(("file:", "data:"))
                ]
                wide = browser.run("return document.documentElement.scrollWidth")
                if wide > width:
                    faults.append(f"{path.name} at {width}: {wide} pixels wide")
    assert faults == []
