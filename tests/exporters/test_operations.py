"""The table of operations: one entry for each, what it says about inputs and values holds, no second list."""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import defs, helper

import emergraph.exporters.tracing.tracer  # noqa: F401 - importing it registers the rules
from emergraph.exporters.operations import (
    COPYING,
    DENSE,
    KEEPING,
    LINEAR,
    MICROSOFT,
    MOVING,
    NORMS,
    OPERATIONS,
    POINTWISE,
    UNARY,
    Kind,
    OpSpec,
    kind_of,
    operations,
    spec_of,
)
from emergraph.exporters.runtime.reference import EvaluationError, run_node
from emergraph.exporters.tracing.context import registered_rules, rule

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, dict[str, object]] = {
    "MaxPool": {"kernel_shape": [2, 2]},
    "AveragePool": {"kernel_shape": [2, 2]},
    "LpPool": {"kernel_shape": [2, 2]},
    "Cast": {"to": onnx.TensorProto.FLOAT},
    "Concat": {"axis": 0},
}
MORE_INPUTS: dict[str, list[np.ndarray]] = {
    "Reshape": [np.array([4, 8])],
    "Unsqueeze": [np.array([0])],
    "Slice": [np.array([1]), np.array([3]), np.array([3])],
    "Gather": [np.array([0])],
    "GatherElements": [np.zeros((1, 2, 4, 4), np.int64)],
    "GatherND": [np.array([[0, 1]])],
    "Resize": [np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)],
    "CastLike": [np.zeros(1, np.float32)],
}


def _node(spec: OpSpec, inputs: int) -> onnx.NodeProto:
    names = [f"x{k}" for k in range(inputs)]
    return helper.make_node(spec.name, names, ["y"], **SETTINGS.get(spec.name, {}))


def _of_one_value(spec: OpSpec, value: float) -> np.ndarray:
    inputs = [np.full((1, 2, 4, 4), value, np.float32), *MORE_INPUTS.get(spec.name, [])]
    if spec.name == "Resize":
        inputs.insert(1, np.zeros(0, np.float32))
        inputs.pop(2)
    return run_node(_node(spec, len(inputs)), inputs, {"": 9 if spec.name == "Upsample" else 21})[0]


def test_every_rule_has_an_entry_and_every_entry_but_the_opaque_ones_a_rule():
    without = {spec.title for key, spec in OPERATIONS.items() if key not in registered_rules()}
    assert set(registered_rules()) <= set(OPERATIONS)
    assert all(OPERATIONS[key].kind is not Kind.UNKNOWN for key in registered_rules())
    assert without >= {"Det", "ai.onnx.ml::TreeEnsemble"}
    assert not without & {spec.title for spec in OPERATIONS.values() if spec.plain_kind in POINTWISE}


def test_a_second_rule_or_one_without_an_entry_is_refused():
    with pytest.raises(ValueError, match=r"one entry in exporters/operations\.py and one rule"):
        rule("Relu")(print)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Reloo"):
        rule("Reloo")(print)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "spec", [s for s in OPERATIONS.values() if s.domain != MICROSOFT], ids=lambda s: s.title
)
def test_names_and_inputs_are_those_of_the_standard(spec: OpSpec):
    if spec.name == "SimplifiedLayerNormalization":
        return  # onnxruntime's own, in the standard's domain
    schema = defs.get_schema(spec.name, domain=spec.domain)
    named = [*spec.weights, *spec.vectors, *spec.steering, *spec.codes, *spec.scales]
    named += [] if spec.sizes is None else [spec.sizes]
    assert max(named, default=-1) < schema.max_input


def test_what_an_operation_stands_for_is_in_the_table():
    assert all(("", spec.plain) in OPERATIONS for spec in OPERATIONS.values() if spec.plain)
    assert all(spec.weights for spec in OPERATIONS.values() if spec.plain_kind in DENSE)


@pytest.mark.parametrize(
    "spec", [s for s in OPERATIONS.values() if s.keeps_value or s.keeps_zero], ids=lambda s: s.title
)
def test_one_value_everywhere_stays_what_the_table_says(spec: OpSpec):
    if spec.name in ("Split", "Upsample", "GlobalLpPool"):
        return  # it has several outputs, or the reference no kernel
    for value in (0.0, 1.75) if spec.keeps_value else (0.0,):
        found = _of_one_value(spec, value)
        assert found.size
        assert (found == value).all()
    if spec.keeps_zero and spec.kind is not Kind.NEGATION:
        assert not spec.keeps_value


@pytest.mark.parametrize("spec", operations(Kind.ACTIVATION, Kind.NEGATION), ids=lambda s: s.title)
def test_activations_look_at_each_element_by_itself(spec: OpSpec):
    values = np.linspace(-0.9, 0.9, 8)
    for dtype in (np.float32, np.int32, np.bool_):
        given = values.astype(dtype)
        try:
            there = run_node(_node(spec, 1), [given], {"": 26})[0]
        except (EvaluationError, KeyError):
            continue
        back = run_node(_node(spec, 1), [given[::-1].copy()], {"": 26})[0][::-1]
        assert there.shape == given.shape
        np.testing.assert_array_equal(there, back)
        return
    assert spec.name == "BitCast"  # for pairs of types alone


def test_the_sets_of_kinds_say_what_they_are_called():
    assert {Kind.IDENTITY, Kind.CAST} == KEEPING & POINTWISE == COPYING - {Kind.CAST_LIKE}
    assert NORMS - {Kind.SOFTMAX} == LINEAR - UNARY
    assert set() == MOVING & UNARY


NAMES = {spec.name for spec in OPERATIONS.values()}
LISTS = {
    "analysis/audit/dispensable.py": "which operations may be the identity",
    "analysis/audit/network.py": "where nonlinearities saturate",
    "exporters/runtime/oldversions.py": "how versions 1 to 6 of the standard wrote operations",
    "exporters/tracing/join.py": "which nonlinearity a product with a function of itself is",
    "exporters/tracing/rules/recurrent.py": "one rule for each recurrent cell",
    "exporters/tracing/rules/scatter.py": "which nonlinearity a scatter operation is",
    "exporters/weightfiles/wiring_modules.py": "what a module of a weight file would be in a model",
}
"""Modules that may list operations of their own, and why."""


@cache
def _trees() -> dict[str, ast.Module]:
    rooms = [ROOT / room for room in ("exporters", "analysis", "graphstore", "cli")]
    files = [path for room in rooms for path in room.rglob("*.py")]
    names = {str(path.relative_to(ROOT)): path for path in files}
    del names["exporters/operations.py"]
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in names.items()}


def _named(nodes: Iterable[ast.AST | None]) -> set[str]:
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {word for text in texts for word in text.split() if word in NAMES and text != "Not"}


def test_no_module_keeps_a_list_of_its_own():
    found = set()
    for name, tree in _trees().items():
        for node in ast.walk(tree):
            is_dict = isinstance(node, ast.Dict)
            listed = [*node.keys, *node.values] if is_dict else getattr(node, "elts", [])
            if len(_named(listed)) > 2:
                found.add(name)
    assert found == set(LISTS)


def test_no_operation_is_spelled_out_in_more_than_three_modules():
    where: dict[str, set[str]] = {}
    for name, tree in _trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
                for op in _named([node]):
                    where.setdefault(op, set()).add(name)
    assert {op: names for op, names in where.items() if len(names) > 3} == {}


def test_the_domain_counts():
    assert kind_of(helper.make_node("Gelu", ["x"], ["y"])) is Kind.ACTIVATION
    assert kind_of(helper.make_node("Gelu", ["x"], ["y"], domain="ai.onnx")) is Kind.ACTIVATION
    assert kind_of(helper.make_node("Gelu", ["x"], ["y"], domain=MICROSOFT)) is Kind.FUSED
    assert spec_of(helper.make_node("Gelu", ["x"], ["y"], domain="custom")).kind is Kind.UNKNOWN
