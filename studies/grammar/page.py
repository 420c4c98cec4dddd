"""`docs/percolation-study.md` and the tables beside the results, written from the study's data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from markdown import table

from grammar.experiment import Run
from grammar.findings import METRICS, PRIMARY

TEMPLATE = Path(__file__).with_name("page.md")
TABLES = Path(__file__).with_name("tables.md")
PREDICTED = ("descriptive types", "unseen pairs")
"""Capabilities whose exponent the theory predicts."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What the page is written from."""

    exponents: pl.DataFrame
    middles: pl.DataFrame
    data: pl.DataFrame
    recorded: pl.DataFrame
    after_grammar: dict[str, dict[str, object] | None]
    """Per group."""


def answer(tables: Tables) -> str:
    """The sentence that the study comes to, from the collapse of the primary metric in every group."""
    chosen = tables.exponents.filter(metric=PRIMARY, method="collapse")
    parts = [
        f"{row['exponent']:.2f} ({row['low']:.2f} to {row['high']:.2f}) with {row['group']}: {row['verdict']}"
        for row in chosen.iter_rows(named=True)
    ]
    return f"The exponent of descriptive types, 0.5 by the theory, is {'; '.join(parts)}."


def _control(tables: Tables) -> str:
    """The capability whose exponent is 0 by the paper, and when the data percolate."""
    rows = tables.exponents.filter(metric="relative_mass", method="collapse")
    told = "; ".join(
        f"{row['exponent']:.2f} ({row['low']:.2f} to {row['high']:.2f}) with {row['group']}"
        for row in rows.iter_rows(named=True)
    )
    middles, steps = tables.middles.filter(metric=PRIMARY)["middle"], tables.data["step_of_threshold"]
    return f"""The control, relative types, which need no pair of an entity and a property, has the exponent 0
by the paper, and comes out at {told}:
what moves it moves descriptive types as well, and theirs is not about percolation alone. Nor do the times
agree: the pairs of the data percolate at step {steps.min()} to {steps.max()}, the model's descriptive types
are half way at step {middles.min():.0f} to {middles.max():.0f}."""


def page(tables: Tables, runs: dict[str, Sequence[Run]], paper: Run) -> str:
    """The page of findings."""
    first = next(iter(runs.values()))[0]
    settings = "; ".join(
        f"{name}: {own[0].batch} sentences per step, learning rate {own[0].learning_rate}, "
        f"{own[0].steps} steps, |K| = {', '.join(map(str, sorted({run.n_properties for run in own})))}, "
        f"seeds {', '.join(map(str, sorted({run.seed for run in own})))}"
        for name, own in runs.items()
    )
    return TEMPLATE.read_text(encoding="utf-8").format(
        answer=answer(tables),
        control=_control(tables),
        n_entities=first.n_entities,
        width=first.width,
        settings=f"Settings: {settings}",
        checks=first.checks,
        paper=f"|E| = {paper.n_entities}, |K| = {paper.n_properties}, width {paper.width}, "
        f"{paper.batch} sentences per step, {paper.steps} steps",
        exponents=_exponents(tables.exponents.filter(pl.col("capability").is_in(PREDICTED))),
        after_grammar=_after_grammar(tables),
        phases=_phases(tables),
    )


def long_tables(tables: Tables, recorded: Run) -> str:
    """The tables that lie beside the results."""
    return TABLES.read_text(encoding="utf-8").format(
        exponents=_exponents(tables.exponents),
        data=_data(tables),
        recorded_properties=recorded.n_properties,
        recorded_batch=recorded.batch,
        recorded_seed=recorded.seed,
        recorded=_recorded(tables.recorded),
    )


def _exponents(exponents: pl.DataFrame) -> str:
    rows = [
        [
            row["group"],
            row["capability"],
            f"{METRICS[row['metric']][2]} ({row['kind']})",
            f"{row['runs_percolation']} / {row['runs_smooth']} / {row['runs_undecided']}",
            f"{row['exponent']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            row["verdict"] if row["capability"] in PREDICTED else "",
        ]
        for row in exponents.filter(method="collapse").iter_rows(named=True)
    ]
    head = ("setting", "capability", "metric", "shape", "exponent", "95 %", "0.5 is")
    return table(head, rows, words=3)


def _after_grammar(tables: Tables) -> str:
    found = {group: each for group, each in tables.after_grammar.items() if each is not None}
    if not found:
        return ""
    told = "; ".join(
        f"{each['exponent']:.2f} ({each['low']:.2f} to {each['high']:.2f}) with {group}"
        for group, each in found.items()
    )
    return (
        "Descriptive types wait for the grammar, which takes nearly the same time at all sizes. Counted\n"
        f"from the middle of the grammar's rise, which was not planned, the exponent is {told}.\n"
    )


def _phases(tables: Tables) -> str:
    chosen = ("grammar_mass", "relative_mass", "descriptive_mass", "unseen_lift")
    wide = tables.middles.filter(pl.col("metric").is_in(chosen)).pivot(
        "metric", index=["group", "n_entities", "n_properties"], values="middle"
    )
    rows = []
    for row in wide.sort("group", "n_properties", descending=[True, False]).iter_rows(named=True):
        ratio = row[PRIMARY] / (row["n_entities"] * row["n_properties"]) ** 0.5
        steps = [f"{row[metric]:.0f}" for metric in chosen]
        rows.append([row["group"], row["n_properties"], *steps, f"{ratio:.2f}"])
    head = ("setting", "K", "grammar", "relative types", "descriptive types", "unseen pairs", "over M_c")
    return table(head, rows, words=1)


def _data(tables: Tables) -> str:
    rows = [
        [
            row["n_properties"],
            row["batch"],
            row["n_pairs"],
            f"{row['expected_threshold']:.0f}",
            f"{row['threshold']:.0f}",
            f"{row['random_threshold']:.0f} ({row['random_low']:.0f} to {row['random_high']:.0f})",
            row["step_of_threshold"],
            row["step_of_all"],
        ]
        for row in tables.data.iter_rows(named=True)
    ]
    head = (
        "K",
        "batch",
        "pairs",
        "M_c",
        "threshold",
        "random pairs",
        "step of the threshold",
        "last new pair",
    )
    return table(head, rows, words=0)


def _recorded(recorded: pl.DataFrame) -> str:
    masses = ("loss", "grammar_mass", "relative_mass", "descriptive_mass")
    rows = [
        [
            row["step"],
            *(f"{row[name]:.2f}" for name in masses),
            *(f"{row[f'log10_emergence_{name}']:.2f}" for name in ("active", "any")),
            f"{row['active_share']:.2f}",
            *(f"{row[f'weights_{name}']:.0f}" for name in ("threshold", "shuffled", "random")),
            f"{row['pairs']:.2f}",
        ]
        for row in recorded.gather_every(2).iter_rows(named=True)
    ]
    head = (
        *("step", "loss", "grammar", "relative", "descriptive", "log10 E active", "log10 E any", "active"),
        *("threshold", "shuffled", "random", "pairs / M_c"),
    )
    return table(head, rows, words=0)
