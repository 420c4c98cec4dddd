"""The tests of the plan `skills`: which curve the data single out, and whether the times are predicted."""

import numpy as np
import polars as pl
from planned import Row, judge, named, over_replicates, read_plan

from emergraph.analysis.skills.fit import SkillCurves, fit_skills
from emergraph.analysis.skills.options import FitOptions

PLAN = read_plan("skills")
MODEL = "multilinear"


def per_seed(curves: pl.DataFrame, target: float) -> pl.DataFrame:
    """One row per seed: held-out error of each family, calibrated on the seed's skill 1, and `late`.

    `late`: log10 of the observed over the predicted step, mean over the other skills that emerge.
    """
    rows = []
    for (seed,), own in curves.sort("run").group_by(["run"], maintain_order=True):
        fit = fit_skills(SkillCurves.from_frame(own), FitOptions(target=target))
        ratios = fit.emergence.filter(~pl.col("calibrated")).drop_nulls("ratio")["ratio"].to_numpy()
        late = float(np.log10(ratios).mean()) if len(ratios) else None
        rows.append({"seed": seed, "late": late} | {one.name: one.held_out_error for one in fit.families})
    return pl.DataFrame(rows, infer_schema_length=None)


def primary(seeds: pl.DataFrame) -> pl.DataFrame:
    """Every other family against the model, and the times."""
    rows: list[Row] = []
    families = [name for name in seeds.columns if name not in ("seed", "late", MODEL)]
    for family in families:
        worse = seeds[family].to_numpy() - seeds[MODEL].to_numpy()
        rows.append(named("skills", "single_out", setting=family) | over_replicates(worse, unit="share of S"))
    late = seeds["late"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    rows.append(named("skills", "times") | over_replicates(late, unit="decades"))
    return judge(rows, level=PLAN["level"])
