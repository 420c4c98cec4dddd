"""What-ifs as rows of a store: the result table `pruning_levels`."""

from typing import TYPE_CHECKING

import polars as pl

from emergraph.analysis.pruning.analysis import LEVELS, PRUNE, SENSITIVITY
from emergraph.graphstore.store import StoreFile

if TYPE_CHECKING:
    from emergraph.analysis.pruning.sensitivity import SensitivityResult
    from emergraph.analysis.pruning.whatif import PruningResult


def save_pruning(
    store: StoreFile, graph: int, result: "PruningResult", *, duration: float | None = None, **about: object
) -> int:
    """Write a table of what-ifs to a store; return the id of the run.

    Args:
        store: Open for writing.
        graph: Id of the graph.
        result: The what-ifs.
        duration: Wall time in seconds.
        about: Parameters of the run beside the options, such as the trace.
    """
    frame = result.frame.select(
        pl.col(c.name).cast(LEVELS.schema[c.name]) for c in LEVELS.columns if c.name in result.frame.columns
    )
    parameters = {**result.options.to_dict(), "notes": list(result.notes), **about}
    seed = 0 if result.options.criterion == "random" else None
    return store.record_run(
        graph, PRUNE.name, parameters, seed=seed, result_tables={LEVELS.name: frame}, duration=duration
    )


def save_sensitivity(store: StoreFile, graph: int, result: "SensitivityResult", **about: object) -> int:
    """Write a table of sensitivities to a store; return the id of the run.

    Args:
        store: Open for writing.
        graph: Id of the graph.
        result: The table.
        about: Parameters of the run beside the options, such as the trace.
    """
    known = result.frame.columns
    frame = result.frame.select(
        (pl.col(c.name) if c.name in known else pl.lit(None).alias(c.name)).cast(SENSITIVITY.schema[c.name])
        for c in SENSITIVITY.columns
    )
    parameters = {**result.options.to_dict(), "sensitivity": True, "notes": list(result.notes), **about}
    return store.record_run(graph, PRUNE.name, parameters, result_tables={SENSITIVITY.name: frame})
