"""A kind of operations is decided in every room: followed, or left out on purpose."""

import emergraph.exporters.tracing.tracer  # noqa: F401 - importing it registers the rules
from emergraph.analysis.emergence import positionops
from emergraph.analysis.pruning.channels.rules import RULES
from emergraph.exporters.operations import OPERATIONS, Kind
from emergraph.exporters.tracing.context import registered_rules

NEITHER = {
    *(Kind.UNKNOWN, Kind.SCALER, Kind.DEQUANTIZE, Kind.QUANTIZE, Kind.ONE_HOT, Kind.SCATTER, Kind.TOP),
    *(Kind.SEQUENCE, Kind.CONTROL, Kind.EINSUM, Kind.DEFORMED, Kind.TRANSFORM, Kind.ATTENTION, Kind.ROTARY),
    *(Kind.RUNNING, Kind.REGION_POOL, Kind.SAMPLING, Kind.QUANTIZED, Kind.ON_CODES, Kind.FUSED, Kind.EMBED),
    *(Kind.EXPERTS, Kind.BRANCH, Kind.LOOP),
}
"""Kinds at which channels are fixed and positions refused."""


def test_channels_are_followed_or_fixed():
    fixed = NEITHER | {Kind.REARRANGE, Kind.PICK, Kind.GROUP_NORM, Kind.OTHER_NORM}
    assert set(RULES) == set(Kind) - fixed


def test_positions_are_followed_or_refused():
    refused = NEITHER | {Kind.CONV_TRANSPOSE, Kind.RECURRENT, Kind.RESIZE, Kind.SHAPE, Kind.ARGUMENT}
    assert set(positionops.RULES) == set(Kind) - refused


def test_units_are_traced_through_every_kind_that_is_known():
    traced = {OPERATIONS[key].kind for key in registered_rules()}
    assert traced == set(Kind) - {Kind.UNKNOWN, Kind.EXPERTS}
