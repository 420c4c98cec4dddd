"""A sample of the study of lineage: trained nets, what is made of them, and what they are called."""

import polars as pl
import pytest
from lineage_study import relations
from lineagenets.derive import KINDS
from lineagenets.experiment import LEVEL, auroc, make


@pytest.mark.calibration
@pytest.mark.filterwarnings("default")  # the older export of torch, whose graphs these are
@pytest.mark.parametrize("architecture", ["mlp", "encoder"])
def test_trained_nets_are_called_what_they_are(architecture, tmp_path):
    make(tmp_path, seeds=2, only=(architecture,))
    found = relations(tmp_path, tmp_path / "nets.duckdb", unrelated=45)
    apart = found.filter(pl.col("truth") == "independent")
    assert apart.height == 60
    assert not apart["related"].any()
    assert apart["p_corrected"].drop_nulls().min() > LEVEL
    known = found.filter(pl.col("truth").is_not_null(), pl.col("truth") != "independent")
    assert set(known["truth"]) == set(KINDS.values())
    assert (known["truth"] == known["kind"]).mean() >= 0.9, known.filter(pl.col("truth") != pl.col("kind"))
    assert auroc(found) >= 0.99
