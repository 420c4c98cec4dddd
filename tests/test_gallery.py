"""The gallery is what its script makes of the numbers that were found: none was typed by hand."""

import importlib.util
import json
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"
_SPEC = importlib.util.spec_from_file_location("make_gallery", DOCS / "gallery" / "make_gallery.py")
gallery = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(gallery)
LARGEST = 1_500_000
"""Bytes of all pictures."""


def test_the_page_is_made_from_the_values():
    values = json.loads(gallery.VALUES.read_text(encoding="utf-8"))
    assert len(gallery.ENTRIES) == len(values) == 12
    assert gallery.PAGE.read_text(encoding="utf-8") == gallery.page(values), "run make gallery"


def test_every_entry_has_a_small_picture_and_numbers_of_its_own():
    pictures = {path.stem: path.stat().st_size for path in (DOCS / "gallery").glob("*.svg")}
    assert set(pictures) == {entry.name for entry in gallery.ENTRIES}
    assert sum(pictures.values()) < LARGEST
    assert (
        len({entry.figure for entry in gallery.ENTRIES})
        == len({entry.files for entry in gallery.ENTRIES})
        == 12
    )
    for entry in gallery.ENTRIES:
        assert len(re.findall(r"\{\w+", entry.text)) >= 2
        assert "AS holds" in entry.sql
