"""The difference of two graphs as a page: the sections, tables and looks of a report."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from emergraph.analysis.comparison.difference import Difference
from emergraph.analysis.comparison.summary import MEANING, changed_tensors, difference_facts, difference_notes
from emergraph.analysis.declaration import Caption
from emergraph.analysis.report.document import Page, Section, Table
from emergraph.version import __version__

ROWS = 200
"""Most rows of the tables of layers and tensors."""
UNITS = 40
"""Units that the page shows."""
LAYERS = Caption(
    name="layers",
    title="Layers that differ",
    definition=(
        "State: added (only in B), removed (only in A), or changed (another number of units, or other "
        "weights into it). Layers stand for each other when weights into them were matched, or by name."
    ),
)
TENSORS = Caption(
    name="tensors",
    title="Weight tensors that changed",
    definition=(
        "Rms change: root mean square of B - A, after dequantization; relative: the same over the root mean "
        "square of A; max change: of any one weight; sign flips: weights that are positive in one and "
        "negative in the other; cosine: of both as vectors. Largest relative change first."
    ),
)
CHANGED_UNITS = Caption(
    name="units",
    title="Units whose weights changed most",
    definition=(
        "The weights into one unit, as a vector. Unit: position in the layer; l2 a: length in A; l2 delta: "
        "length of B - A; relative: of the two; cosine: of A and B. Largest relative change first."
    ),
)
MEASURES = Caption(
    name="measures",
    title="Measures of both",
    definition=(
        "Of the newest run of each analysis; a measure that only one side has stays unpaired. Change: B - A. "
        "Overlap: whether the intervals, low to high, meet, where both sides have one."
    ),
)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two graphs."""

    source: str
    """What was given: file and graph, without folders."""
    graph: Mapping[str, object]
    """The row of the table `graphs`."""


def difference_page(found: Difference, a: Side, b: Side, *, command: str) -> Page:
    """Return a difference as a page.

    Args:
        found: The difference of A and B.
        a: Where A came from.
        b: Where B came from.
        command: Command line that makes the page again.
    """
    return Page(
        kind="diff",
        title=f"{found.a} and {found.b}",
        tool_version=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sections=(*difference_sections(found), _provenance(a, b, command)),
    )


def difference_sections(found: Difference) -> tuple[Section, ...]:
    """Return a difference section by section: summary, layers, tensors, units, measures."""
    return (
        Section(
            id="summary",
            title="Summary",
            lead=MEANING[found.verdict],
            facts=difference_facts(found),
            notes=tuple(difference_notes(found)),
        ),
        _layers(found),
        _tensors(found),
        _units(found),
        _measures(found),
    )


def _layers(found: Difference) -> Section:
    differing = found.layers.filter(pl.col("state") != "same")
    n_same = found.layers.height - differing.height
    return Section(
        id="layers",
        title="Layers",
        lead=_lead("Layers added, removed or changed", differing.height, f"The same: {n_same:,}", ROWS),
        tables=_table(LAYERS, differing.sort("state", maintain_order=True).head(ROWS)),
    )


def _tensors(found: Difference) -> Section:
    changed = changed_tensors(found).sort(
        "relative_change", descending=True, nulls_last=True, maintain_order=True
    )
    n_same = found.tensors.height - changed.height
    shown = changed.select(
        "tensor_a", "tensor_b", "matched_by", "n_params", "rms_change", "relative_change", "max_change",
        "sign_flips", "share_flipped", "cosine",
    )  # fmt: skip
    return Section(
        id="tensors",
        title="Weights",
        lead=_lead("Matched weight tensors that changed", changed.height, f"The same: {n_same:,}", ROWS),
        tables=_table(TENSORS, shown.head(ROWS)),
    )


def _units(found: Difference) -> Section:
    changed = found.units.filter(pl.col("l2_delta") > 0) if found.units.height else found.units
    n_changed = changed.height
    moved = 0 if found.matching is None else found.matching.n_moved
    note = (
        "Units are compared at the same position of both. The permutation found, which brings A closer to B, "
        f"moves {moved:,} hidden units: rows tell the numbering of units as well as what they learned."
    )
    return Section(
        id="units",
        title="Units",
        lead=_lead("Units with other weights into them", n_changed, "Biases are not counted here", UNITS),
        tables=_table(CHANGED_UNITS, changed.head(UNITS)),
        notes=(note,) if moved and n_changed else (),
    )


def _measures(found: Difference) -> Section:
    paired = found.measures.filter(pl.col("change").is_not_null())
    n_changed = paired.filter(pl.col("change") != 0).height
    empty = [
        name for name in found.measures.columns if found.measures[name].null_count() == len(found.measures)
    ]
    return Section(
        id="measures",
        title="Measures",
        lead=(
            f"{found.measures.height:,} measures are stored, {paired.height:,} of them of both A and B; "
            f"{n_changed:,} of these changed."
        ),
        tables=_table(MEASURES, found.measures.drop(empty)),
    )


def _provenance(a: Side, b: Side, command: str) -> Section:
    facts = {
        f"{name}, {what}": value
        for name, side in (("A", a), ("B", b))
        for what, value in (
            ("given as", side.source),
            ("file of the model", side.graph["source"]),
            ("SHA-256", side.graph["sha256"]),
            ("wiring", side.graph["wiring"]),
        )
        if value
    }
    return Section(
        id="provenance",
        title="How this page was made",
        lead=(
            "Weights were matched by their bytes, then by name, by their numbers in any order, by "
            "correlation, and last by position; the column matched by says which. docs/reports.md has the "
            "conventions. The command that makes this page again stands below; with --format json it "
            "gives every row as data."
        ),
        facts={"command": command, **facts},
    )


def _lead(what: str, n: int, rest: str, most: int) -> str:
    """How many rows there are, and how many of them the table shows."""
    cut = f" The table shows {most:,} of them." if n > most else ""
    return f"{what}: {f'{n:,}' if n else 'none'}.{cut} {rest}."


def _table(caption: Caption, frame: pl.DataFrame) -> tuple[Table, ...]:
    return () if frame.is_empty() else (Table(spec=caption, frame=frame),)
