"""Information runs as rows of a store."""

from pathlib import Path

import polars as pl

from emergraph.analysis.information.emergence import InformationResult
from emergraph.graphstore.results import Column, ResultTable, register
from emergraph.graphstore.store import open_store

COMMAND = "information"

BLOCKS = register(
    ResultTable(
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
)


def save_information(
    path: str | Path,
    result: InformationResult,
    *,
    model: str,
    sha256: str | None,
    duration: float,
    any_name: bool = False,
) -> int:
    """Write a run to a store, beside the model's graph if it is there; return its id.

    Args:
        path: The store; made when missing.
        result: The run.
        model: Name of the model.
        sha256: Of its file; None for a module.
        duration: Seconds.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
    """
    rows = result.frame().with_columns(pl.col(pl.Float64).fill_nan(None))
    about = {key: value for key, value in result.to_dict().items() if key not in {"blocks", "seed"}}
    with open_store(path, mode="create", any_name=any_name) as store:
        return store.record_run(
            None if sha256 is None else store.find_graph(sha256),
            COMMAND,
            {**about, "model": model, "sha256": sha256},
            seed=result.options.seed,
            duration=duration,
            result_tables={BLOCKS.name: rows},
        )
