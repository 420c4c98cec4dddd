"""`docs/percolation-study.md` and the tables beside the results, written from the study's data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from markdown import markdown, table
from planned import answers

from grammar.experiment import Run
from grammar.findings import METRICS, PRIMARY
from grammar.scarce import MANY, PLAN, both_exponents, primary

TEMPLATE = Path(__file__).with_name("page.md")
TABLES = Path(__file__).with_name("tables.md")
PRIMARY_GROUP = PLAN["claims"]["exponent"]["setting"]
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
    scarce: pl.DataFrame | None = None
    """One row per run where pairs are scarce."""


def _control(tables: Tables) -> str:
    """What moves both exponents, and when the data percolate."""
    middles, steps = (
        tables.middles.filter(metric=PRIMARY, group="batch64"),
        tables.data.filter(batch=64)["step_of_threshold"],
    )
    if middles.is_empty():
        return ""
    descriptive, relative = both_exponents(tables.exponents)
    return f"""Relative types, which need no pair of an entity and a property, are the control. Their exponent is {relative:.2f} where the paper
has 0: what moves them moves descriptive types as well, so the {descriptive:.2f} of these is not about percolation alone. Nor do the times
agree where pairs are plentiful (batch64): the data percolate at step {steps.min()} to {steps.max()}, the model's descriptive types are half way at step
{middles["middle"].min():.0f} to {middles["middle"].max():.0f}."""


def _missing(tables: Tables) -> str:
    """Settings of the plan that no run is there of."""
    wanted = dict.fromkeys(claim["setting"] for claim in PLAN["claims"].values())
    there = {PRIMARY_GROUP} | (set() if tables.scarce is None else set(tables.scarce["setting"]))
    names = [name for name in wanted if name not in there]
    return f"Not trained yet, so that its claims have no answer: {'; '.join(names)}. " if names else ""


def _scarce(tables: Tables) -> str:
    """When unseen pairs are learned where pairs are scarce, and which."""
    if tables.scarce is None:
        return ""
    shown = tables.scarce.group_by("setting", "n_properties", maintain_order=True).agg(
        pl.len().alias("runs"),
        pl.col("percolates", "half").mean(),
        pl.col("last_lift", "connected", "apart").mean(),
    )
    formats = {"percolates": ".0f", "half": ".0f"}
    return f"""## Where pairs are scarce

One new pair is released at every second step, in a random order; sentences use the released ones. `percolates`: the step at which their
number reaches sqrt(|E||K|), K being the properties that have pairs. `half`: the step at which the odds of unseen pairs of one class over
foreign ones (`unseen_lift`) are half their last logarithm. Lifts at the end of the training, decades: of unseen pairs in all, of those that the
stated ones connect (`connected`), and of those that they do not (`apart`, at the last check at which more than {MANY} lie apart). In the
blind setting nouns of one sentence are of any classes and verbs go with all: nothing but pairs tells the classes. Means over runs.

{markdown(shown, formats)}

"""


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
        answer=answers("percolation", primary(tables.exponents, tables.scarce))
        if PRIMARY_GROUP in runs
        else "none: a quick run.",
        control=_control(tables),
        scarce=_scarce(tables),
        missing=_missing(tables),
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
