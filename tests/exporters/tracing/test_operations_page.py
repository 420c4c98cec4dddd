"""The page of operations is the registry of rules, and every rule says how."""

from inspect import getdoc
from pathlib import Path

from emergraph.exporters.tracing.context import registered_rules
from emergraph.exporters.tracing.operations_page import operations_page

PAGE = Path(__file__).parents[3] / "docs" / "operations.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == operations_page(), "run `make docs`"


def test_every_operation_with_a_rule_is_on_the_page():
    page = operations_page()
    for domain, op in registered_rules():
        assert f"`{domain}::{op}`" in page if domain else f"`{op}`" in page


def test_every_rule_says_how():
    silent = {op for op, rule in registered_rules().items() if not getdoc(rule)}
    assert not silent
