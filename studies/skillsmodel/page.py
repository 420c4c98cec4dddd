"""`docs/skills-study.md`, written from the tables of the study."""

import json
from pathlib import Path

import polars as pl
from markdown import markdown
from planned import VERDICTS, answers

TEMPLATE = Path(__file__).with_name("page.md")


def write_page(results: Path, page: Path) -> None:
    """Write the page."""
    found = json.loads((results / "found.json").read_text(encoding="utf-8"))
    snapshots = pl.read_parquet(results / "snapshots.parquet")
    draw_figure(pl.read_parquet(results / "curves.parquet"), found, page.with_name("skills-study.svg"))
    options, changes = found["options"], pl.DataFrame(found["changes"])
    per_run = [
        {"seed": int(run)} | {f"skill {k}": step for k, step in enumerate(steps, start=1)}
        for run, steps in found["emergence_steps"].items()
    ]
    page.write_text(
        TEMPLATE.read_text(encoding="utf-8").format(
            **{name: options[name] for name in ("n_skills", "bits", "relevant", "width", "batch", "steps")},
            alpha=options["alpha"],
            target=options["target"],
            rate=options["rate"],
            snapshots=options["snapshots"] + 1,
            seeds=found["seeds"],
            cpu_minutes=f"{found['cpu_seconds'] / 60:.1f}",
            skills=markdown(
                pl.DataFrame(found["skills"]),
                {
                    "share": ".3f",
                    "predicted": ".0f",
                    "low": ".0f",
                    "high": ".0f",
                    "observed": ".0f",
                    "error": ".3f",
                },
            ),
            skill_sentence=_skill_sentence(found),
            answers=answers("skills", pl.DataFrame(found["primary"], infer_schema_length=None)),
            singled=_singled(found),
            errors=markdown(
                pl.DataFrame(found["per_seed"], infer_schema_length=None).drop("late"),
                dict.fromkeys(found["per_seed"][0], ".3f"),
            ),
            factor=_factor(found),
            families=markdown(
                pl.DataFrame(found["families"]), {"held_out_error": ".3f", "calibration_error": ".3f"}
            ),
            per_run=markdown(
                pl.DataFrame(per_run, infer_schema_length=None),
                dict.fromkeys(("skill 1", "skill 2", "skill 3", "skill 4", "skill 5"), ".0f"),
            ),
            changes=markdown(changes, {}),
            change_sentence=_change_sentence(changes),
            trajectory=markdown(_trajectory(snapshots), {"percolation": ".4f"}),
        ),
        encoding="utf-8",
    )


def draw_figure(curves: pl.DataFrame, found: dict, path: Path) -> None:
    """Strengths by step: points are means over seeds, lines the model calibrated on skill 1."""
    import altair as alt

    target, (rate, start) = found["options"]["target"], found["parameters"]
    seen = (
        curves.group_by("step", "skill")
        .agg((pl.col("strength").mean() / target).alias("strength"))
        .with_columns(skill=pl.col("skill").cast(pl.String))
        .sort("skill", "step")
    )
    shares = pl.DataFrame(found["skills"]).select(pl.col("skill").cast(pl.String), "share")
    lines = seen.join(shares, on="skill").with_columns(
        strength=1 / (1 + (1 / start - 1) * (-rate * pl.col("share") * pl.col("step")).exp())
    )
    x, y = alt.X("step:Q", title="training step"), alt.Y("strength:Q", title="strength / S")
    points = alt.Chart(seen.to_arrow()).mark_point(size=12, filled=True).encode(x=x, y=y, color="skill:N")
    drawn = alt.Chart(lines.to_arrow()).mark_line().encode(x=x, y=y, color="skill:N")
    (drawn + points).properties(width=640, height=260).save(str(path))


def _skill_sentence(found: dict) -> str:
    others = [skill for skill in found["skills"] if not skill["calibrated"]]
    seen = [skill for skill in others if skill["ratio"] is not None]
    ratios = ", ".join(f"{skill['ratio']:.2f}" for skill in seen)
    inside = sum(skill["low"] <= skill["observed"] <= skill["high"] for skill in seen)
    never = len(others) - len(seen)
    return (
        f"Observed over predicted, skills 2 to {len(found['skills'])}: {ratios}"
        + (f" ({never} not seen to emerge within the training)" if never else "")
        + f". {inside} of {len(seen)} observed times lie in the interval, which knows only how sure the "
        "calibration is."
    )


def _singled(found: dict) -> str:
    """What the data single out: the families that are worse than the model beyond doubt, and those that are not."""
    rows = {row["setting"]: row["verdict"] for row in found["primary"] if row["claim"] == "single_out"}
    by_verdict = {verdict: [name for name, got in rows.items() if got == verdict] for verdict in VERDICTS}
    worse, better, same, open_ = (", ".join(by_verdict[verdict]) for verdict in VERDICTS)
    said = [
        f"worse than the model: {worse}" if worse else "none is worse than the model beyond doubt",
        f"better: {better}" if better else "",
        f"as good within the margin: {same}" if same else "",
        f"not told apart: {open_}" if open_ else "",
    ]
    return "; ".join(filter(None, said))


def _factor(found: dict) -> str:
    """What slows the network down beside the model: rate of the fit over 2 eta P(1) S."""
    options = found["options"]
    weights = [k ** -(options["alpha"] + 1) for k in range(1, options["n_skills"] + 1)]
    expected = 2 * options["rate"] * weights[0] / sum(weights) * options["target"]
    return f"1/{expected / found['parameters'][0]:.0f}"


def _change_sentence(changes: pl.DataFrame) -> str:
    outside = changes.filter(
        ~pl.col("difference").is_between(pl.col("shifted_spread_low"), pl.col("shifted_spread_high"))
    )
    if outside.is_empty():
        return f"All {changes.height} differences lie between those of 95 % of the shifts."
    names = ", ".join(outside["measure"].to_list())
    return f"Outside of what 95 % of the shifts give: {names}."


def _trajectory(snapshots: pl.DataFrame) -> pl.DataFrame:
    names = ["log10_active", "log10_any", "log10_abs", "percolation"]
    return (
        snapshots.group_by("step")
        .agg(pl.col(names).mean())
        .sort("step")
        .gather_every(2)
        .select("step", *names)
    )
