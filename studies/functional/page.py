"""`docs/functional-study.md`, written from the rows of the study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markdown import table

SOUNDS, SILERO = "silero-vad", "silero-vad: silero_vad_16k_op15.onnx"
"""Files of one network, and the one of them that counts in averages."""
TEMPLATE = Path(__file__).with_name("page.md")


def write_page(rows: Sequence[dict[str, Any]], others: Mapping[str, str], page: Path) -> None:
    """Write the page; `others` are the files that do not run, and why."""
    page.write_text(page_text(rows, others), encoding="utf-8")


def page_text(rows: Sequence[dict[str, Any]], others: Mapping[str, str]) -> str:
    """The page as text."""
    every = [row for row in rows if "refused" not in row]
    done = [row for row in every if not row["file"].startswith(SOUNDS) or row["file"] == SILERO]
    refused = [row for row in rows if "refused" in row]
    kept = sorted(row["share_0.01"] for row in done)
    strong = sorted(row["share_0.1"] for row in done)
    edges = sorted(row["strong_edges"]["0.01"] for row in done)
    units = sum(row["units"] for row in done)
    moved = sum(row["moved"] for row in done)
    small = sum(row["below_percent"] for row in done)
    halves = sorted(row["half_of_effect"] / row["units"] for row in done if row["units"])
    return TEMPLATE.read_text(encoding="utf-8").format(
        n=len(every),
        n_networks=len(done),
        kept_low=_percent(kept[0]),
        kept_middle=_percent(kept[len(kept) // 2]),
        kept_high=_percent(kept[-1]),
        strong_low=_percent(strong[0]),
        strong_middle=_percent(strong[len(strong) // 2]),
        strong_high=_percent(strong[-1]),
        edges_middle=_percent(edges[len(edges) // 2]),
        units=units,
        still=units - moved,
        small=small,
        small_share=_percent(small / units),
        half_middle=_percent(halves[len(halves) // 2]),
        table=table(
            [
                "file",
                "samples",
                "edges",
                "log10 E",
                "E above 0.1 %",
                "above 1 %",
                "above 10 %",
                "edges above 1 %",
                "units tried",
                "never moved",
                "below 1 % of the largest",
                "hold half of all effect",
            ],
            [_row(row) for row in sorted(every, key=lambda row: row["edges"])],
            words=1,
        ),
        refused="; ".join(f"{row['file']} ({row['refused']})" for row in refused) or "none",
        others=table(["not measured", "why"], _unmeasured(rows, others), words=2),
    )


def _unmeasured(rows: Sequence[dict[str, Any]], others: Mapping[str, str]) -> list[list[object]]:
    measured = {row["file"] for row in rows}  # elsewhere, where they were fetched
    return [[name, why] for name, why in sorted(others.items()) if name not in measured]


def _row(row: dict[str, Any]) -> list[object]:
    return [
        row["file"],
        row["samples"],
        f"{row['edges']:,}",
        f"{row['log10_paths']:.2f}",
        *(_percent(row[f"share_{share}"]) for share in ("0.001", "0.01", "0.1")),
        _percent(row["strong_edges"]["0.01"]),
        row["units"],
        row["units"] - row["moved"],
        row["below_percent"],
        row["half_of_effect"],
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"
