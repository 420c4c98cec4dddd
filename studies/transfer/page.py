"""`docs/transfer-study.md`, written from the tables of the study."""

from pathlib import Path

import polars as pl
from markdown import table
from parts import seconds_of
from pathcounts.page import read_tables
from planned import answers

from emergraph.analysis.statistics.intervals import student
from transfer.experiment import ARMS
from transfer.findings import primary
from transfer.tasks import SETTINGS
from transfer.vgg import CHANNELS, EPOCHS, HIDDEN, N_TRAIN, SCALINGS

SCHEMES = ("mnist-schemes", "mnist-schemes-large")


def write_page(results: Path, pathcounts: Path, page: Path) -> None:
    """Test what the plan says, keep it in `primary.parquet`, and write the page."""
    tasks, vgg = (pl.read_parquet(results / f"{name}.parquet") for name in ("tasks", "vgg"))
    groups = read_tables(pathcounts)
    schemes = {name: groups[name][1:] for name in SCHEMES if name in groups}
    tested = primary(tasks, vgg, schemes)
    tested.write_parquet(results / "primary.parquet", compression="zstd")
    seconds = seconds_of([results / "tasks.parquet", results / "vgg.parquet"])
    missing = [name for name in SCHEMES if name not in groups]
    parts = [_head(tested, tasks, vgg, seconds, missing), _settings()]
    page.write_text("\n".join(parts), encoding="utf-8")
    parts = [TABLES, _of_tasks(tasks), _of_vgg(vgg)]
    (results / "tables.md").write_text("\n".join(parts), encoding="utf-8")


TABLES = """# Tables of the study of transfer, scale and a classifier

<!-- Written by studies/transfer_study.py; do not edit. -->

The findings and the setting are in `docs/transfer-study.md`.
"""


def _head(
    tested: pl.DataFrame, tasks: pl.DataFrame, vgg: pl.DataFrame, seconds: float, missing: list[str]
) -> str:
    return f"""# Emergence when the task changes, and in a classifier

<!-- Written by studies/transfer_study.py from studies/results/transfer; do not edit. -->

**Question.** Does path-count emergence (arXiv 2409.01568) rise when a network gets a new task, and foretell how well it
learns it? Does the paper's scaling of a classifier raise E and help? Is a large network as a small one?

**Design.** {tasks["seed"].n_unique()} dense networks learn one task and then, with a new last layer, another: two halves of the classes of the
8x8 digits, two of MNIST, or the digits and then MNIST at 8x8; fresh networks beside them. {vgg["seed"].n_unique()} seeds of a small VGG with the
three matrices of its classifier scaled in {len(SCALINGS)} ways. Initialisations of small and of large dense networks. Tests as the
[plan](../studies/plans/transfer.toml) chose them before any of these was trained.

**Answer**, by the paper's rule (mean activation above 0.05); effect with its 95 % interval, p corrected over all
{tested.height} tests, n replicates:

{answers("transfer", tested)}

{f"Not trained yet: {', '.join(missing)} (`make study` does). " if missing else ""}No weight is removed here, so the printed formula is the interior `any`, by arithmetic. The three scalings of the classifier
compute the same function at the start: 1/2 x 1 x 2 is 1, there are no biases yet, and ReLU passes factors on.
What differs is which units are above a threshold, and how fast each layer learns.

Accuracy and E along the way are in [tables.md](../studies/results/transfer/tables.md).

**What would change it.** More seeds: the intervals of ten are far wider than the margins. A network of the paper's size; more scalings than {len(SCALINGS)}, which are three points and no replicates; other pairs of
tasks.

`python studies/transfer_study.py` trains what is missing and writes this page; the networks took {seconds / 60:.1f} minutes of CPU time.
"""


def _interval(values: pl.Series, digits: int, scale: float = 1.0) -> str:
    found = student((scale * values).to_numpy())
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _row(own: pl.DataFrame) -> list[str]:
    return [
        _interval(own["test_accuracy"], 1, 100.0),
        *(_interval((own[count] + 1).log(10), 2) for count in ("active", "any")),
        _interval(own["share_active"], 2),
    ]


HEADER = ["test accuracy, %", "log10(1 + E), active", "any", "share of units active"]


def _of_tasks(tasks: pl.DataFrame) -> str:
    rows = []
    for name in SETTINGS:
        own = tasks.filter(setting=name)
        last = int(own["epoch"].max())  # type: ignore[arg-type]
        places = [
            (1, ARMS[0], 0),
            (1, ARMS[0], last),
            *((2, arm, epoch) for arm in ARMS for epoch in (0, 1, last)),
        ]
        for task, arm, epoch in places:
            found = own.filter(task=task, arm=arm, epoch=epoch)
            rows.append([name, str(task), arm if task == 2 else "", str(epoch), *_row(found)])
    head = ["setting", "task", "network", "epoch", *HEADER]
    return f"## Two tasks\n\nMean over seeds with its 95 % interval.\n\n{table(head, rows)}"


def _of_vgg(vgg: pl.DataFrame) -> str:
    last = int(vgg["epoch"].max())  # type: ignore[arg-type]
    rows = [
        [
            f"{name} ({', '.join(f'{f:g}' for f in factors)})",
            str(epoch),
            *_row(vgg.filter(scaling=name, epoch=epoch)),
        ]
        for name, factors in SCALINGS.items()
        for epoch in (0, 1, last)
    ]
    return f"## The classifier\n\nE of the classifier alone, from its features to the classes.\n\n{table(['scaling', 'epoch', *HEADER], rows)}"


def _settings() -> str:
    rows = [
        [name, "-".join(map(str, s.sizes)), str(s.n_train), str(s.epochs), f"{s.rate:g}", str(s.batch)]
        for name, s in SETTINGS.items()
    ]
    head = ["setting", "network", "images", "epochs per task", "rate", "batch"]
    channels = ", ".join(map(str, CHANNELS))
    return f"""## Setting

{table(head, rows)}
- He initialisation, plain gradient descent, activity on at most 250 validation images of the task at hand, logits as outputs. The
  second task's last layer is new in both arms; all arms of a seed see the same batches.
- "digits, then MNIST": all ten classes of both; MNIST is framed to 32 x 32 and averaged to 8 x 8.
- The VGG: 3 x 3 convolutions of {channels} channels, pooled after every second one, three dense layers with {HIDDEN} hidden
  units each; {N_TRAIN} images of MNIST at 16 x 16, {EPOCHS} epochs, momentum 0.9, batches of 50. The paper's VGG19 is far larger.
- Initialisations: groups `mnist-schemes` (784-32-16-10) and `mnist-schemes-large` (784-128-64-10) of
  [the study of path counts](study.md), those that leave chance.
"""
