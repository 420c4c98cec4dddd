"""docs/architectures.md from the rows."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

INTRODUCTION = """# Architectures

Whether graphs are true on today's architectures. Each is built with random weights at a reduced size and exported as a PyTorch
module; `make zoo` runs them all and writes this page (`benchmarks/architectures.py`), `make test-zoo` runs the few that
continuous integration has time for.

- **understood**: share of the parameters that the module uses whose effect the graph shows.
- **layers**: layers with weights that have exactly one unit per output of their weight, of all of them; in brackets those that
  have more for a reason that `layers.split_by` names. Where a weight is computed from several parameters or cut out of one, its
  outputs are those that the tracer counted; layers of which not even that is known are left out. The summary counts both.
- **missing**: pairs of units of which the second changed when the first was changed (by more than 10⁻⁶ of its tensor's scale, in
  one of three draws), and the graph has no path. At least 30 units, spread over all layers, are changed in each architecture that
  has as many. Where rounding alone could be what changed, double precision decides. What a model chooses (the experts of a
  token, the best places) stays chosen: a graph is of the choices of the run that it was made from.
- **excess**: pairs that the graph has a path for and no draw showed a change, of all such pairs. The last column says where
  the changes were lost, after a second look with larger changes at every bit.

Not among them, since torch cannot export them: Longformer and LED (steps that depend on the values of a mask), DeepSeek-V2
(rotary embedding in complex numbers).
"""


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    from architectures import problems

    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["group"]].append(row)
    parts = [INTRODUCTION, _summary(rows), _shortfalls([(row, problems(row)) for row in rows])]
    parts += [
        f"\n## {name[0].upper()}{name[1:]}\n\n{_table(found)}" for name, found in sorted(groups.items())
    ]
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


def _summary(rows: Sequence[Row]) -> str:
    done = [row for row in rows if "error" not in row]
    whole = sum(row["parameters"]["understood"] == row["parameters"]["graph"] for row in done)
    equal = sum(row["layers"]["equal"] == row["layers"]["weighted"] for row in done)
    reasoned = sum(row["layers"]["n_other"] == 0 for row in done)
    missing = sum(row["oracle"]["missing"] for row in done)
    units = sum(row["oracle"]["units"] for row in done)
    claimed = sum(row["oracle"]["claimed"] for row in done)
    excess = sum(row["oracle"]["excess"] for row in done)
    weighted = sum(row["layers"]["weighted"] for row in done)
    inferred = sum(row["layers"]["inferred"] for row in done)
    unjudged = sum(row["layers"]["unjudged"] for row in done)
    families = len({row["family"] for row in rows})
    sources = Counter(row["source"] for row in rows)
    from_where = ", ".join(
        f"{n} from {name}" if name != "own" else f"{n} of our own" for name, n in sources.items()
    )
    n = len(rows)
    versions = Counter(row["code"] for row in rows)
    of_versions = ", ".join(f"{number} on {code}" for code, number in versions.most_common())
    return (
        f"\n{n} architectures of {families} families ({from_where}); {len(done)} were exported.\n"
        f"Checksums of the code that they were run on: {of_versions}.\n\n"
        f"| | architectures | share |\n|---|---|---|\n"
        f"| all parameters understood | {whole} | {_share(whole, n)} |\n"
        f"| units equal to the outputs of the weight, in every layer | {equal} | {_share(equal, n)} |\n"
        f"| the same, or more for a reason that is named | {reasoned} | {_share(reasoned, n)} |\n\n"
        f"{weighted:,} layers were compared with their weights, {inferred:,} of them by the tracer's count; "
        f"{unjudged:,} were left out.\n\n"
        f"{units:,} units were changed: {missing:,} missing paths; of {claimed:,} paths {excess:,} "
        f"({_share(excess, claimed)}) showed no change.\n"
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _shortfalls(told: Sequence[tuple[Row, list[str]]]) -> str:
    lines = [f"- **{row['name']}** ({row['family']}): {'; '.join(found)}" for row, found in told if found]
    body = "\n".join(sorted(lines)) or "None."
    return f"\n## Shortfalls\n\n{body}\n"


def _table(rows: Sequence[Row]) -> str:
    head = (
        "| family | architecture | parameters | understood | layers | missing | excess | where changes were lost |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    ordered = sorted(rows, key=lambda row: (row["family"].lower(), row["name"].lower()))
    return "\n".join([head, *(_row(row) for row in ordered)])


def _row(row: Row) -> str:
    start = f"| {row['family']} | {row['name']} ({row['source']})"
    if "error" in row:
        return f"{start} | not exported | | | | | |"
    numbers, layers, oracle = row["parameters"], row["layers"], row["oracle"]
    split = "; ".join(f"{reason}: {n}" for reason, n in layers["split"].items())
    share = 100 * numbers["understood"] / numbers["graph"] if numbers["graph"] else 100.0
    shown = f"{layers['equal']}/{layers['weighted']}" + (f" ({split})" if split else "")
    lost = "; ".join(f"{what}: {n:,}" for what, n in oracle["explained"].items())
    return (
        f"{start} | {numbers['graph']:,} | {share:.4g} % | {shown} | {oracle['missing']} "
        f"| {oracle['excess']:,} of {oracle['claimed']:,} | {lost} |"
    )
