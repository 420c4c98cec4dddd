"""The page of result tables has every table that an analysis keeps results in, and no other."""

import re
from pathlib import Path

import emergraph.analysis
from emergraph.analysis.registry import built_in
from emergraph.analysis.resultpage import schema_page
from emergraph.graphstore.schema import schema_markdown

ROOT = Path(__file__).parents[2]


def test_pages_of_the_schema_are_up_to_date():
    """`make docs` writes them."""
    assert (ROOT / "docs" / "schema.md").read_text(encoding="utf-8") == schema_markdown()
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == schema_page(built_in())


def test_every_result_table_of_the_source_is_on_the_page():
    source = Path(emergraph.analysis.__file__).parent
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(source.rglob("*.py")))
    declared = re.findall(r'ResultTable\(\s*"(\w+)"', text)
    shown = [table.name for analysis in built_in() for table in analysis.tables]
    assert len(declared) == text.count("ResultTable(\n")
    assert sorted(shown) == sorted(declared)


def test_each_column_has_a_meaning_and_stays_in_its_row():
    page = schema_page(built_in()).partition("\n## ")[2]
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 300
    assert all(len(re.split(r"(?<!\\)\|", row)) == 5 for row in rows)
    assert all(column.comment for one in built_in() for t in one.tables for column in t.columns)
