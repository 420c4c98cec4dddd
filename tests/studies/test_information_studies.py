"""The quick variants of the studies of information and skills run, and their parts do what they say."""

import numpy as np
import polars as pl
import pytest
from blockinformation.decoders import TextDecoder
from information_study import quick
from markdown import markdown
from skills_study import QUICK, run
from skillsmodel.experiment import change_effect, emergence_steps

from emergraph.analysis.skills.simulate import SimulationOptions


def silent(_line):
    """Says nothing."""


def test_the_quick_study_of_information_has_every_estimator():
    found = quick(silent)
    assert set(found["estimator"]) == {"gaussian", "codes", "ksg"}
    assert found["block"].unique().to_list().count("all blocks") == 1
    above = found.filter(pl.col("macro") > pl.col("macro_ceiling") + 1e-9)
    assert above.is_empty()
    assert TextDecoder(width=16, blocks=2, heads=2).blocks[1].heads == 2


@pytest.mark.slow
def test_the_quick_study_of_skills_writes_its_tables(tmp_path):
    short = SimulationOptions(**{**QUICK.to_dict(), "steps": 120, "snapshots": 2})
    assert run(short, 1, tmp_path, tmp_path, silent)
    assert pl.read_parquet(tmp_path / "snapshots.parquet")["log10_any"].is_not_null().all()
    assert (tmp_path / "found.json").exists()
    # what is there is not done again
    assert run(short, 1, tmp_path, tmp_path, silent, 0)


def steps_table(measure, runs=6):
    rows = [
        {"run": run, "step": step, "m": float(value)}
        for run in range(runs)
        for step, value in enumerate(measure)
    ]
    return pl.DataFrame(rows)


def test_a_measure_that_jumps_with_skills_is_found_and_another_is_not():
    rng = np.random.default_rng(0)
    emergence = {run: [5.5, 12.5] for run in range(6)}
    drift = rng.normal(0, 0.01, 21).cumsum()
    jumps = drift + (np.arange(21) >= 6) + (np.arange(21) >= 13)
    found = change_effect(steps_table(jumps), emergence, "m", draws=300, seed=0)
    assert found["difference"] > found["shifted_spread_high"]
    assert found["with_emergence"] == 12
    other = change_effect(steps_table(np.arange(21) % 7), emergence, "m", draws=300, seed=0)
    assert other["shifted_spread_low"] <= other["difference"] <= other["shifted_spread_high"]
    assert "p" not in found


def test_emergence_is_where_a_skill_crosses_half():
    curves = pl.DataFrame(
        {
            "run": [0] * 6,
            "skill": [1, 1, 1, 2, 2, 2],
            "step": [0, 10, 20] * 2,
            "strength": [0.0, 2, 4, 0, 0, 1],
        }
    )
    assert emergence_steps(curves, 4.0) == {0: [10.0]}


def test_markdown():
    table = pl.DataFrame({"a": [1.234, None], "b": ["x", ""]})
    assert markdown(table, {"a": ".1f"}).splitlines()[2:] == ["| 1.2 | x |", "| - | - |"]
