"""A sample of the calibration with fixed seeds: `make calibrate` runs the whole of it."""

import pytest
from calibrate import LEVELS, limits, simulate
from casetypes import Interval
from claims import cases

COSTLY = {
    "match score of two models",
    "information, ksg",
    "skill's half-time",
    "skill's curve",
    "information emergence",
    "exponent, collapse",
}
WEAK = {name for name in cases() if name.startswith("given one variable") and name.endswith(" 10")}


@pytest.mark.calibration
@pytest.mark.parametrize("name", cases())
def test_the_sample_agrees_with_the_level(name):
    case = cases()[name]
    counts = simulate(case, 60 if name in COSTLY else 200)
    if isinstance(case, Interval):
        assert limits(counts["hits"], counts["n"])[1] >= 0.94
    else:
        for level in LEVELS:
            assert limits(counts[f"at_{level}"], counts["n"])[0] <= level
        assert counts["power"] > (0.3 if name not in WEAK else 0.05) * counts["n"]
