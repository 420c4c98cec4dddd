"""`docs/skills-study.md`, written from the tables of the study."""

import json
from pathlib import Path

import polars as pl
from markdown import markdown

TEMPLATE = Path(__file__).with_name("page.md")


def write_page(results: Path, page: Path) -> None:
    """Write the page."""
    found = json.loads((results / "found.json").read_text(encoding="utf-8"))
    snapshots = pl.read_parquet(results / "snapshots.parquet")
    options, tests = found["options"], pl.DataFrame(found["tests"])
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
            factor=_factor(found),
            families=markdown(
                pl.DataFrame(found["families"]), {"held_out_error": ".3f", "calibration_error": ".3f"}
            ),
            per_run=markdown(
                pl.DataFrame(per_run, infer_schema_length=None),
                dict.fromkeys(("skill 1", "skill 2", "skill 3", "skill 4", "skill 5"), ".0f"),
            ),
            tests=markdown(tests, {"p": ".3f"}),
            test_sentence=_test_sentence(tests),
            trajectory=markdown(_trajectory(snapshots)),
        ),
        encoding="utf-8",
    )


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


def _factor(found: dict) -> str:
    """What slows the network down beside the model: rate of the fit over 2 eta P(1) S."""
    options = found["options"]
    weights = [k ** -(options["alpha"] + 1) for k in range(1, options["n_skills"] + 1)]
    expected = 2 * options["rate"] * weights[0] / sum(weights) * options["target"]
    return f"1/{expected / found['parameters'][0]:.0f}"


def _test_sentence(tests: pl.DataFrame) -> str:
    parts = []
    for row in tests.iter_rows(named=True):
        verdict = "more than chance" if row["p"] < 0.05 else "no more than chance"
        parts.append(f"{row['measure']} changes {verdict} where skills emerge (p = {row['p']:.3f})")
    return "; ".join(parts) + "."


def _trajectory(snapshots: pl.DataFrame) -> pl.DataFrame:
    names = ["log10_active", "log10_any", "percolation"]
    return (
        snapshots.group_by("step")
        .agg(pl.col(names).mean())
        .sort("step")
        .gather_every(2)
        .select("step", *names)
    )
