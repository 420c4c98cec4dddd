"""`docs/information-study.md` and the tables beside the results, written from the study's data."""

import json
from math import isfinite, log2, perm
from pathlib import Path
from typing import Any

import polars as pl
from markdown import markdown

PAGE = Path(__file__).with_name("page.md")
TABLES = Path(__file__).with_name("tables.md")
TOTAL = "all blocks"
FIRST = "25 entities, 4 shots"
SHAPES = {"countries, 25 entities, 4 shots": (25, 4), "animals, 16 entities, 5 shots": (16, 5)} | {
    "colours, 15 entities, 5 shots": (15, 5)
}


def write_page(results: Path, page: Path) -> None:
    """Write the page of findings, and the long tables into the folder of the results."""
    blocks = pl.read_parquet(results / "blocks.parquet")
    about = json.loads((results / "text-decoder.json").read_text(encoding="utf-8"))
    page.write_text(PAGE.read_text(encoding="utf-8").format(**_findings(blocks, about)), encoding="utf-8")
    tables = TABLES.read_text(encoding="utf-8").format(
        mine_n=blocks.filter(pl.col("estimator") == "mine")["n"].max(),
        estimators_wheel=_estimators(blocks, "microformer", FIRST),
        estimators_text=_estimators(blocks, "text decoder", "text"),
        at_ceiling=_at_ceiling(blocks),
        other_lists=_other_lists(blocks),
    )
    (results / "tables.md").write_text(tables, encoding="utf-8")


def _findings(blocks: pl.DataFrame, about: dict[str, Any]) -> dict[str, object]:
    """What the template of the page asks for."""
    seconds = blocks.group_by("model", "data", pl.col("estimator") == "mine").agg(
        pl.col("cpu_seconds").first()
    )
    return {
        "n": blocks["n"].max(),
        "log_n": f"{log2(float(str(blocks['n'].max()))):.2f}",
        "cpu_minutes": f"{seconds['cpu_seconds'].sum() / 60:.0f}",
        "bits_per_byte": f"{about['last_loss_bits']:.2f}",
        "text_bytes": about["bytes"],
        "text_sha256": about["sha256"][:12],
        "steps": about["steps"],
        "ceilings": _ceilings(),
        "dimensions": _dimensions(blocks),
        "controls": _controls(blocks),
        "control_sentence": _control_sentence(blocks),
    }


def _ceilings() -> str:
    rows = []
    for name, (entities, shots) in SHAPES.items():
        macro, micro = log2(perm(entities, shots)), log2(entities) / 2
        rows.append(
            {
                "data": name,
                "sequences": perm(entities, shots),
                "macro": macro,
                "micro, alone": micro,
                "emergence": macro - micro,
            }
        )
    rows.append(
        {
            "data": "text, 8 tokens",
            "sequences": 300000,
            "macro": log2(300000),
            "micro, alone": None,
            "emergence": None,
        }
    )
    return markdown(pl.DataFrame(rows, infer_schema_length=None))


def _estimators(blocks: pl.DataFrame, model: str, data: str) -> str:
    """Emergence per block and estimator, with intervals; starred where the macro value is at its ceiling."""
    chosen = blocks.filter(
        (pl.col("model") == model)
        & (pl.col("data") == data)
        & ((pl.col("estimator") != "gaussian") | pl.col("dimensions").is_in([2, 8]))
    ).with_columns(
        name=pl.format("{} ({})", "estimator", "dimensions").str.replace(" (0)", "", literal=True),
        cell=pl.struct("emergence", "low", "high", "at_ceiling").map_elements(_shown, return_dtype=pl.String),
    )
    wide = chosen.pivot(on="name", index=["number", "block"], values="cell", maintain_order=True)
    # that of codes is of the sample, the others' of all sequences there are
    ceilings = chosen.filter(pl.col("estimator") == "ksg").select(
        "number", pl.col("ideal").alias("both at ceiling")
    )
    return markdown(
        wide.join(ceilings, on="number")
        .drop("number")
        .with_columns(pl.col("block").str.replace("transformer.", "", literal=True))
    )


def _shown(row: dict[str, object]) -> str:
    star = "*" if "macro" in str(row["at_ceiling"]) else ""
    low, high = row["low"], row["high"]
    interval = "" if low is None or not isfinite(float(str(low))) else f" ({low:.2f} to {high:.2f})"
    return f"{row['emergence']:.2f}{star}{'' if star else interval}"


def _dimensions(blocks: pl.DataFrame) -> str:
    """Mean macro information over blocks (the first left out) by dimensions."""
    chosen = blocks.filter(
        (pl.col("estimator") == "gaussian") & (pl.col("number") > 1) & (pl.col("block") != TOTAL)
    )
    frame = chosen.group_by("model", "data", "dimensions", maintain_order=True).agg(pl.col("macro").mean())
    wide = frame.pivot(on="dimensions", index=["model", "data"], values="macro", maintain_order=True)
    ceilings = chosen.group_by("model", "data").agg(pl.col("macro_ceiling").max().alias("ceiling"))
    return markdown(wide.join(ceilings, on=["model", "data"], maintain_order="left"))


def _means(blocks: pl.DataFrame) -> pl.DataFrame:
    chosen = blocks.filter(
        (pl.col("number") > 1)
        & (pl.col("block") != TOTAL)
        & (pl.col("estimator") != "mine")
        & ((pl.col("estimator") != "gaussian") | (pl.col("dimensions") == 2))
    )
    return chosen.group_by("model", "data", "estimator", maintain_order=True).agg(
        *(pl.col(name).mean() for name in ("emergence", "macro", "micro")),
        pl.col("at_ceiling").str.contains("macro").any().alias("capped"),
    )


def _pairs(blocks: pl.DataFrame) -> pl.DataFrame:
    means = _means(blocks)
    untrained = means.filter(pl.col("model").str.ends_with(", untrained")).with_columns(
        pl.col("model").str.replace(", untrained", "", literal=True)
    )
    return means.join(
        untrained, on=["model", "data", "estimator"], suffix=", untrained", maintain_order="left"
    )


def _controls(blocks: pl.DataFrame) -> str:
    """Means beside those of the untrained model, starred where the macro information of a block is capped."""
    cells = [
        pl.format(
            "{}{}",
            pl.col(f"{name}{of}").round(2),
            pl.when(f"capped{of}").then(pl.lit("*")).otherwise(pl.lit("")),
        ).alias(f"{name}{of}")
        for name in ("emergence", "macro")
        for of in ("", ", untrained")
    ]
    return markdown(_pairs(blocks).select("model", "data", "estimator", *cells))


def _control_sentence(blocks: pl.DataFrame) -> str:
    pairs = _pairs(blocks)
    more = pairs.filter(pl.col("emergence") > pl.col("emergence, untrained")).height
    return f"In {more} of {pairs.height} comparisons the trained model has the larger mean."


def _at_ceiling(blocks: pl.DataFrame) -> str:
    frame = (
        blocks.filter(pl.col("macro_ceiling") > 0)
        .group_by("model", "data", "estimator", "dimensions", maintain_order=True)
        .agg(pl.len().alias("rows"), pl.col("at_ceiling").str.contains("macro").sum().alias("at the ceiling"))
        .filter(pl.col("at the ceiling") > 0)
    )
    return markdown(frame.with_columns(pl.col(pl.UInt32).cast(pl.Int64)))


def _other_lists(blocks: pl.DataFrame) -> str:
    chosen = blocks.filter(
        (pl.col("model") == "microformer")
        & (pl.col("estimator") == "gaussian")
        & (pl.col("dimensions") == 2)
        & (pl.col("block") != TOTAL)
    )
    wide = chosen.pivot(on="data", index=["number", "block"], values="emergence", maintain_order=True)
    return markdown(
        wide.drop("number").with_columns(pl.col("block").str.replace("transformer.", "", literal=True))
    )
