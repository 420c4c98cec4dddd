"""The one-operation models of the onnx package: invariants, and the graph against the Jacobian's pattern.

Inputs of a model are taken as parameters except for its first float input; where an operation joins
activations, all float inputs are data as well.
"""

import re

import numpy as np
import pytest
from nodecases import NodeCase, node_cases, stored_cases
from pathtruth import WITH_STATE, assert_norm_truth, assert_path_bounds, assert_path_truth
from tracedmodel import Traced, trace_model

from emergraph.exporters.tracing.context import find_rule
from emergraph.graphstore.records import EdgeKind

NOT_RUN = {
    r"gradient_of": "differentiation is no operation of a model",
    r"sequence_model1$|split_to_sequence_2$|_optional_": "an output that is not a tensor",
    r"padded_kv$": "onnxruntime refuses the model's own input",
    r"scan|loop|^test_if": "bodies run only with a file's own runner (test_control_flow)",
}
"""Models that this harness cannot run, and why."""

WITHOUT_TRUTH = {
    r"dropout|bernoulli": "random",
    r"quantizelinear": "a scale that is taken from the data counts as a constant",
    r"hardmax|greater|less|onehot|_equal": "flat almost everywhere: a change rarely crosses a threshold",
    r"causal|mask|window|transpose_verification|nonpad": "masked or single keys: their scores do nothing",
    r"layer_normalization.*expanded": "outputs its statistics, which no unit is",
    r"crop_and_resize|roialign": "where to sample is control",
    r"rotary.*\*": "the table of angles is control",
    r"lrn": "onnxruntime keeps a running sum: rounding reaches where influence does not",
    r"clip.*\*|pow_bcast_scalar\*|resize.*\*|upsample.*\*": "sizes and bounds that no perturbation fits",
}
"""Models whose influence cannot be seen by perturbing, and why."""

OPAQUE_WITH_DATA = {
    "If": "a branch that only a file's own runner can run",
    "Scan": "a body that only a file's own runner can run",
    "Loop": "a body that only a file's own runner can run",
    "OneHot": "levels that are data",
    "QLinearMatMul": "a scale that is data",
    "DequantizeLinear": "a scale that is data",
}
"""Operations with a rule that may be opaque, and why."""

JOINING = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "Pow", "PRelu", "Where", "Concat"),
        *("MatMul", "Gemm", "Einsum", "Mod", "ScatterND", "ScatterElements", "Conv", "ConvTranspose"),
        *("Attention", "GridSample"),
    }
)
"""Operations of several activations."""


def _reason(name: str, reasons: dict[str, str]) -> str | None:
    return next((why for pattern, why in reasons.items() if re.search(pattern, name)), None)


def _floats(case: NodeCase) -> list[str]:
    return [n for n, a in case.feeds.items() if a.dtype == np.float32 and a.size]


def _check(case: NodeCase, name: str, data: set[str]) -> Traced:
    chosen = case.with_parameters(data)
    traced = trace_model(chosen.model, chosen.feeds)
    elements = sum(array.size for array in traced.values.values())
    is_small = 0 < traced.sink.n_units <= 300 and traced.sink.n_units * elements < 5e6
    if traced.summary.opaque or not is_small or _reason(name, WITHOUT_TRUTH):
        return traced
    if traced.sink.count(EdgeKind.NORM):
        assert_path_bounds(traced)
        assert_norm_truth(traced)
    else:
        draws = 16 if elements < 200 else 4
        # fast transforms add in another order: where a term is zero, its rounding is left
        noise = 1e-4 if case.op_types & {"DFT", "STFT"} else 0.0
        assert_path_truth(traced, WITH_STATE, feeds=[chosen.feeds], draws=draws, size=4.0, noise=noise)
    return traced


@pytest.mark.parametrize(
    "case", [c for c in stored_cases() if _floats(c) and not _reason(c.name, NOT_RUN)], ids=lambda c: c.name
)
def test_stored_models(case):
    traced = _check(case, case.name, set(_floats(case)))
    unknown = [op.op for op in traced.summary.opaque if op.op != "SequenceInsert"]
    assert not unknown


def _surprises(case: NodeCase, traced: Traced) -> set[str]:
    """Operations that have a rule and are opaque nevertheless, for no reason that is expected."""
    nodes = traced.model.graph.node
    return {
        f"{case.name}: {op.op}: {op.reason}"
        for op in traced.summary.opaque
        if find_rule(nodes[op.index]) is not None and op.op not in OPAQUE_WITH_DATA
    }


PARTS = 8
"""Of the node models, so that the workers of a test run share them."""


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_node_models_are_understood_and_traced_truly(part):
    checked, with_truth, surprises = 0, 0, set()
    for case in node_cases()[part::PARTS]:
        floats = _floats(case)
        if not floats or _reason(case.name, NOT_RUN):
            continue
        variants = [{floats[0]}] + ([set(floats)] if case.op_types & JOINING and len(floats) > 1 else [])
        for data in variants:
            name = case.name + ("*" if len(data) > 1 else "")
            try:
                traced = _check(case, name, data)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error
            if len(data) == 1:
                surprises |= _surprises(case, traced)
            checked += 1
            with_truth += not traced.summary.opaque and not _reason(name, WITHOUT_TRUTH)
    assert not surprises
    assert checked > 1000 / PARTS
    assert with_truth > 700 / PARTS
