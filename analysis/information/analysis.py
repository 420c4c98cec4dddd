"""`emergraph information`: what the blocks of a model do to information."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.analysis.declaration import Analysis, Headline, Query, SectionSpec, Subject
from emergraph.analysis.information.options import BlockOptions, EstimatorOptions, SequenceOptions
from emergraph.analysis.view import View, first_and_last
from emergraph.graphstore.results import Column, ResultTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from emergraph.analysis.figures.figure import Figure
    from emergraph.analysis.information.emergence import InformationResult
    from emergraph.analysis.information.model import ModelInformation


BLOCKS = ResultTable(
    "information",
    "One row per block of a run, and one for the chain of all blocks.",
    (
        Column("number", "BIGINT", "Place in the chain, from 1; the chain as a whole comes last."),
        Column("block", "VARCHAR", "The operation or submodule that ends the block, or all blocks."),
        Column("emergence", "DOUBLE", "Macro less micro, bits."),
        Column("low", "DOUBLE", "Lower end of its 95 % interval over halves; NULL for none."),
        Column("high", "DOUBLE", "Upper end of it."),
        Column("ideal", "DOUBLE", "Emergence with both at their ceilings: of the data, not the model."),
        Column("macro", "DOUBLE", "Information at the last token, capped at its ceiling, bits."),
        Column("macro_low", "DOUBLE", "Lower end of its interval."),
        Column("macro_high", "DOUBLE", "Upper end of its interval."),
        Column("macro_ceiling", "DOUBLE", "log2 of the distinct inputs, bits."),
        Column("micro", "DOUBLE", "Information of single tokens, mean over positions, bits."),
        Column("micro_ceiling", "DOUBLE", "Mean of their ceilings, bits."),
        Column("at_ceiling", "VARCHAR", "Which estimates are at their ceilings; empty for none."),
    ),
)
SECTION = SectionSpec(
    id="information",
    title="Information",
    lead="What the layers keep and lose about inputs and labels.",
    only_with="embedding",
)


def _figures() -> "Sequence[Figure]":
    from emergraph.analysis.information import figures

    return figures.FIGURES


_COLUMNS = (
    "block",
    "emergence",
    "low",
    "high",
    "ideal",
    "macro",
    "macro_ceiling",
    "micro",
    "micro_ceiling",
    "at_ceiling",
)


def shown(found: "ModelInformation", run: int | None = None) -> View:
    """Return what is shown of a run, which a store may have kept."""
    result = found.result
    distinct = f"{result.n_distinct} distinct"
    facts: dict[str, object] = {
        "model": found.source,
        "sequences": result.description,
        "ceiling": f"{result.ceiling:.4f} bits: log2 of {result.population or distinct} inputs",
        "micro level": str(result.micro),
        "estimator": str(result.options.estimator),
        "dimensions": f"{min(result.options.kept_dimensions(result.n), result.width)} of {result.width}",
        "seed": result.options.seed,
        "mean over blocks": f"{result.mean:.4f} bits",
        "seconds": round(found.seconds, 2),
    }
    if run is not None:
        facts["run"] = run
    frame = result.frame()
    short = first_and_last(frame.select("block", "emergence", "low", "high", "ideal", "at_ceiling"))
    most = frame.head(len(result.blocks)).sort("emergence", descending=True, nulls_last=True)
    return View(
        finding=f"Blocks tell {result.mean:.3g} bits more about sequences than about tokens, on average; "
        f"block {most['block'][0]} the most ({most['emergence'][0]:.3g} bits).",
        rows=frame,
        columns=_COLUMNS,
        brief=[short],
        facts=facts,
        document=found.to_dict(),
        notes=list(result.notes),
    )


def _headline(rows: "Sequence[tuple[Any, ...]]", _parameters: "Mapping[str, Any]") -> str | None:
    if not rows:
        return None
    block, most, mean = rows[0]
    return (
        f"blocks tell {mean:.3g} bits more about sequences than about tokens, on average; block {block} the "
        f"most ({most:.3g} bits)"
    )


INFORMATION = Analysis(
    name="information",
    summary="Estimate how much more each block of a model tells about sequences than about single tokens.",
    of=Subject.MODEL,
    options=(SequenceOptions, BlockOptions, EstimatorOptions),
    show=shown,
    tables=(BLOCKS,),
    section=SECTION,
    figures=_figures,
    headline=Headline(
        query=Query(
            name="information",
            table="information",
            sql="""
SELECT block, emergence, avg(emergence) OVER () FROM information
WHERE run = {run} AND number < (SELECT max(number) FROM information WHERE run = {run})
  AND emergence IS NOT NULL ORDER BY emergence DESC LIMIT 1""",
        ),
        text=_headline,
    ),
)


def save_information(
    path: str | Path,
    result: "InformationResult",
    *,
    model: str,
    sha256: str | None,
    duration: float,
    any_name: bool = False,
    **asked: object,
) -> int:
    """Write a run to a store, beside the model's graph if it is there; return its id.

    Args:
        path: The store; made when missing.
        result: The run.
        model: Name of the model.
        sha256: Of its file; None for a module.
        duration: Seconds.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        asked: The options that the run had, as a run keeps them.
    """
    from emergraph.analysis.modelruns.samples import IN_MEMORY
    from emergraph.graphstore.store import open_store

    rows = result.frame()
    found = result.to_dict()
    about = {key: value for key, value in found.items() if key not in {"blocks", "seed", "sequences"}}
    about |= {"sequences": IN_MEMORY, "description": found["sequences"], **asked}
    with open_store(path, mode="create", any_name=any_name) as store:
        return store.record_run(
            None if sha256 is None else store.find_graph(sha256),
            INFORMATION.name,
            {**about, "model": model, "sha256": sha256},
            seed=result.options.seed,
            duration=duration,
            result_tables={BLOCKS.name: rows},
        )
