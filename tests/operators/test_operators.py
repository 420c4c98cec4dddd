"""A sample of the operator tests of the onnx package, by the whole of `export`; `make operators` runs all."""

from dataclasses import replace
from unittest import mock

import classify
import pytest
from classify import Outcome, all_cases, page, variants

from emergraph.errors import InvalidInputError

pytestmark = pytest.mark.slow

EXPECTED = {
    "test_basic_conv_with_padding+parameters": "traced",
    "test_gru_defaults+parameters": "traced",
    "test_einsum_batch_diagonal": "traced",
    "test_affine_grid_2d_expanded": "traced",
    "test_reduce_sum_empty_set": "traced",
    "test_dft_axis": "traced",
    "test_stft_with_window+parameters": "traced",
    "test_scatternd_add": "traced",
    "test_scatter_elements_with_duplicate_indices": "traced",
    "test_range_float_type_positive_delta_expanded": "traced",
    "test_bitcast_float32_to_int32": "traced",
    "test_det_2d": "opaque",
    "test_sce_mean": "opaque",
    "test_string_split_basic": "refused",
    "test_sequence_map_identity_1_sequence": "refused",
}


@pytest.fixture(scope="module")
def cases():
    return {case.name: case for case in all_cases()}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_what_becomes_of_an_operator(cases, name):
    outcome = classify.classify(cases[name])
    assert outcome.kind == EXPECTED[name], outcome
    assert outcome.reason or outcome.kind == "traced"


def test_all_of_the_package_are_there(cases):
    assert len(cases) > 2500
    assert sum(name.startswith("light_") for name in cases) == 9


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("x"), "failed"),
        (InvalidInputError("unexpected y"), "failed"),
        (InvalidInputError("z"), "refused"),
    ],
)
def test_errors_that_are_no_answers_fail(cases, error, kind):
    case = replace(cases["test_dft_axis"], name="one")
    with mock.patch.object(classify, "dry_run", side_effect=error):
        assert classify.classify(case).kind == kind


def test_the_page_counts_reasons():
    text = page([Outcome("a", "traced"), Outcome("b", "opaque", "x | y"), Outcome("c", "opaque", "x | y")])
    assert "3 models" in text
    assert "1 traced, 2 opaque, 0 refused, 0 failed" in text
    assert "| x \\| y | 2 |" in text


def test_the_second_variant_has_parameters(cases):
    both = list(variants(cases["test_matmul_3d"]))
    assert [len(v.model.graph.initializer) for v in both] == [0, 1]
