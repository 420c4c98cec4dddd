"""The paper's claims (arXiv 2409.01568) as effects per seed, with intervals and corrected p values.

Every claim is turned into one number per seed that is positive where the claim holds. Its mean over seeds has
Student's interval and p value; all p values of a claim are corrected together by Holm's method. Beside it is
the p value of the sign-flip permutation test, which assumes no distribution but is at least 2^(1 - seeds).
Numbers that pair a seed with the others, and correlations over initialisations, have a test of their own, and
no interval. Verdicts are those of `planned`, with the margins of the plan. The plan's primary tests are
corrected among themselves: `primary`. All others are exploratory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray
from planned import Row, among, judge, named, over_replicates, read_plan, verdict

from emergraph.analysis.statistics.permutation import FEWEST_MORE, holm, partial_spearman, sign_flip_p
from emergraph.analysis.statistics.series import pair_correlations, paired_runs_p

Floats = NDArray[np.float64]

PLAN = read_plan("pathcounts")
RHO = "Spearman's rho"
LOST, WON = "decades of E lost", "decades of E / density won"
OVER_SCHEMES = f"{RHO} over initialisations"
MARGINS = {
    unit: PLAN["claims"][claim]["margin"]
    for unit, claim in (
        (LOST, "falls"),
        (WON, "pruning_raises_relative"),
        (RHO, "goes_with_change"),
        (OVER_SCHEMES, "initialisation"),
    )
}
"""By unit: effects within it, on both sides of 0, are none: an eighth of E, a rank correlation of 0.1."""
COUNTS = ("active", "any", "printed")
CLAIMS = {
    "falls": "E falls during training",
    "pruning_lowers": "pruning lowers E",
    "pruning_raises_relative": "pruning raises relative E (per density)",
    "goes_with_change": "along a run, the change in accuracy goes with E",
    "beyond_time": "... beyond the time course that all seeds share",
    "initialisation": "high-emergence initialisation trains better",
    "near_zero": "when E falls to zero, improvement stops",
    "ends_near_zero": "E is near zero when training is over, the converse",
}


@dataclass(frozen=True)
class Effect:
    """One number per seed."""

    claim: str
    group: str
    form: str
    rule: str
    interior: str
    detail: str
    unit: str
    values: Floats
    """(n_seeds,)."""
    found: Row | None = None
    """What a test of its own has found, for values that are not independent of each other."""


def _per_seed(frame: pl.DataFrame, figure: Callable[[pl.DataFrame], float]) -> Floats:
    parts = frame.sort("seed", "epoch").partition_by("seed", maintain_order=True)
    return np.array([figure(part) for part in parts])


def _log(frame: pl.DataFrame, interior: str) -> Floats:
    """log10(1 + E), which E = 0 has too."""
    return np.log10(1 + frame[interior].to_numpy())


def training_effects(name: str, counts: pl.DataFrame, metrics: pl.DataFrame) -> Iterator[Effect]:
    """Effects of a group that was pruned: the dense networks along training, the pruned ones beside them."""
    baseline = int(metrics.filter(pl.col("variant") != "0")["epoch"].min())  # type: ignore[arg-type]
    last = int(metrics["epoch"].max())  # type: ignore[arg-type]
    keys = ["form", "rule", "threshold"]
    for (form, rule, threshold), part in counts.sort(keys).group_by(keys, maintain_order=True):
        label = f"{rule} {threshold:g}"
        for interior in counted(part):

            def effect(claim: str, values: Floats, detail: str, unit: str) -> Effect:
                return Effect(claim, name, str(form), label, interior, detail, unit, values)  # noqa: B023 - used at once

            dense = part.filter(pl.col("variant") == "0")
            yield effect(
                "falls",
                _per_seed(dense, lambda f: -float(np.diff(_log(f, interior)[[0, -1]])[0])),  # noqa: B023
                f"first count to epoch {last}",
                LOST,
            )
            by_level = _levels(part, interior, (baseline, last))
            for level, epoch, lost, gained in by_level:
                detail = f"{float(level):.0%} pruned, epoch {epoch}"
                yield effect("pruning_lowers", lost, detail, LOST)
                yield effect("pruning_raises_relative", gained, detail, WON)
            joined = dense.join(metrics.filter(pl.col("variant") == "0"), on=["seed", "variant", "epoch"])
            yield from _changes(joined, effect, interior)
            largest = _per_seed(
                dense,
                lambda f: 0.01 - float(f[interior][-1] / max(float(f[interior].max()), 1.0)),  # noqa: B023
            )
            yield effect("ends_near_zero", largest, f"epoch {last}", "1 % less E's share of its maximum")
            yield effect("near_zero", *_after_zero(part, metrics, interior))


def counted(part: pl.DataFrame) -> list[str]:
    """The counts that a table has: `printed` is younger than some, and does not exist for all units."""
    return [name for name in COUNTS if name in part.columns and part[name].is_finite().any()]


NEAR_ZERO, STOPPED = 0.01, 0.005
"""Share of its maximum so far that E is near zero at; validation accuracy that may still be gained after."""


def _after_zero(part: pl.DataFrame, metrics: pl.DataFrame, interior: str) -> tuple[Floats, str, str]:
    """Per seed, 0.005 less what its runs gain after E is near zero; NaN where it never gets there."""
    joined = part.join(metrics, on=["seed", "variant", "epoch"]).sort("seed", "variant", "epoch")
    per_seed, reached = [], 0
    for of_seed in joined.partition_by("seed", maintain_order=True):
        gains = []
        for run in of_seed.partition_by("variant", maintain_order=True):
            e, accuracy = run[interior].to_numpy(), run["validation_accuracy"].to_numpy()
            near = np.flatnonzero(e <= NEAR_ZERO * np.maximum.accumulate(e))
            if len(near):
                gains.append(float(accuracy[near[0] :].max() - accuracy[near[0]]))
        reached += len(gains)
        per_seed.append(STOPPED - np.mean(gains) if gains else np.nan)
    n_runs = joined.select("seed", "variant").n_unique()
    return (
        np.array(per_seed),
        f"{reached} of {n_runs} runs get there",
        "accuracy: 0.005 less what is gained after",
    )


def _levels(
    part: pl.DataFrame, interior: str, epochs: tuple[int, int]
) -> Iterator[tuple[str, int, Floats, Floats]]:
    """Level, epoch, and per seed the decades that E has lost, and E over density has won, by pruning."""
    for level in sorted(set(part["variant"]) - {"0"}):
        for epoch in epochs:
            both = [
                part.filter((pl.col("variant") == variant) & (pl.col("epoch") == epoch)).sort("seed")
                for variant in ("0", level)
            ]
            dense, pruned = (frame[interior].to_numpy() for frame in both)
            lost = np.log10(1 + dense) - np.log10(1 + pruned)
            yield level, epoch, lost, np.log10(1 + pruned / (1 - float(level))) - np.log10(1 + dense)


def _changes(frame: pl.DataFrame, effect: Callable[..., Effect], interior: str) -> Iterator[Effect]:
    """E along each run with the change of accuracy that follows it.

    Two series that only drift go together in every run. What is beyond the time course that all seeds share
    shows in E of a seed beside the changes of the others: `paired_runs_p`, see docs/calibration.md. Ranks
    less those of the epoch would not do: p values of such residuals reject up to 0.87 of independent pairs.
    """
    runs = frame.sort("seed", "epoch").partition_by("seed", maintain_order=True)
    x = np.array([run[interior].to_numpy()[:-1] for run in runs], dtype=np.float64)
    learned = "train_accuracy" if "train_accuracy" in frame.columns else "test_accuracy"
    y = np.array([np.diff(run[learned].to_numpy()) for run in runs])
    detail = f"{learned.replace('train_', 'training ').replace('_', ' ')} in the epoch that follows"
    rho = np.array([partial_spearman(one, other) for one, other in zip(x, y, strict=True)])
    yield effect("goes_with_change", rho, detail, RHO)
    table, test = pair_correlations(x, y), paired_runs_p(x, y)
    beyond = np.diag(table) - table.mean(axis=1)
    found = None if test.p is None else {"n": len(x), "mean": float(beyond.mean()), "p": test.p}
    unit = f"{RHO} beyond that with other seeds"
    yield replace(effect("beyond_time", np.full(len(x), np.nan), detail, unit), found=found)


LEARNS = 0.2
"""Accuracy at the end, mean over seeds, above which an initialisation has learnt anything: chance is 0.1."""


def initialisation_effects(name: str, counts: pl.DataFrame, metrics: pl.DataFrame) -> Iterator[Effect]:
    """The rank correlation over initialisations of E at the start with accuracy at the end, means over seeds.

    Initialisations are the replicates: more seeds of the same seven say no more about an eighth. Beside all,
    those that leave chance: two that never do, with hardly any paths, make a correlation by themselves.
    """
    last = int(metrics["epoch"].max())  # type: ignore[arg-type]
    final = (
        metrics.filter(pl.col("epoch") == last).group_by("variant").agg(final=pl.col("test_accuracy").mean())
    )
    learns = final.filter(pl.col("final") > LEARNS)
    start = counts.filter(pl.col("epoch") == 0)
    keys = ["form", "rule", "threshold"]
    for (form, rule, threshold), part in start.sort(keys).group_by(keys, maintain_order=True):
        for interior in counted(part):
            mean = part.group_by("variant").agg((pl.col(interior) + 1).log(10).mean())
            for what, chosen in (("all", final), ("that learn", learns)):
                both = mean.join(chosen, on="variant").sort("variant")
                found = over_initialisations(both[interior].to_numpy(), both["final"].to_numpy())
                detail = f"{both.height} initialisations, {what}; accuracy at epoch {last}"
                about = ("initialisation", name, str(form), f"{rule} {threshold:g}", interior, detail)
                yield Effect(*about, OVER_SCHEMES, np.empty(0), found)


FEWEST_WITH_ENDS = 10
"""Initialisations from which on their correlation has an interval."""


def over_initialisations(emergence: Floats, final: Floats) -> Row:
    """Their rank correlation, with p by permuting, and an interval where they are many."""
    if len(final) < FEWEST_MORE:
        return {"n": len(final)}
    found = among(emergence, final)
    return found if len(final) >= FEWEST_WITH_ENDS else found | {"low": None, "high": None}


FIGURES = ("mean", "low", "high", "d", "p", "p_flip")


def judged(effects: list[Effect]) -> pl.DataFrame:
    """One row per effect: mean over seeds, interval, Cohen's d, p corrected within its claim, verdict."""
    frame = pl.DataFrame(
        [_row(effect) for effect in effects],
        infer_schema_length=None,
        schema_overrides=dict.fromkeys((*FIGURES, "margin"), pl.Float64),
    )
    parts = [
        part.with_columns(pl.Series("p_holm", holm(part["p"].to_list()), dtype=pl.Float64))
        for part in frame.partition_by("claim", maintain_order=True)
    ]
    return pl.concat(parts).with_columns(verdict(PLAN["level"]))


def _row(effect: Effect) -> dict[str, object]:
    values = effect.values[np.isfinite(effect.values)]
    row: dict[str, object] = {
        **{name: getattr(effect, name) for name in ("claim", "group", "form", "rule", "interior")},
        "detail": effect.detail,
        "unit": effect.unit,
        "margin": MARGINS.get(effect.unit, 0.0),
        "n": len(values),
        **dict.fromkeys(FIGURES),
    }
    if effect.found is not None:
        row |= effect.found
    elif len(values) >= 3:
        row |= over_replicates(values, unit="rho" if effect.unit == RHO else "")
        # seeds that are all equal have no interval, and the p value of their signs
        sd = float(values.std(ddof=1))
        row |= {"d": float(values.mean()) / sd if row["low"] is not None and sd > 0 else None}
        row |= {"p_flip": sign_flip_p(values)}
    return row


def primary(claims: pl.DataFrame) -> pl.DataFrame:
    """The plan's tests among all that were judged, corrected over themselves: each claim under each count."""
    rows = []
    for name, claim in PLAN["claims"].items():
        own = claims.filter(claim=name, group=claim["group"], rule=PLAN["rule"])
        own = own.filter(pl.col("detail") == claim["detail"]) if "detail" in claim else own
        if name == "initialisation":
            own = own.filter(pl.col("detail").str.contains("that learn"))
        for count in PLAN["counts"]:
            rows += [
                named("pathcounts", name, count=count)
                | {key: row[key] for key in ("n", "mean", "low", "high", "p", "detail")}
                for row in own.filter(interior=count).to_dicts()
            ]
    return judge(rows, level=PLAN["level"])
