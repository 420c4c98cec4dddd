"""Information runs as rows of a store."""

from pathlib import Path

from emergraph.analysis.information.analysis import BLOCKS, INFORMATION
from emergraph.analysis.information.emergence import InformationResult
from emergraph.analysis.modelruns.samples import IN_MEMORY
from emergraph.graphstore.store import open_store


def save_information(
    path: str | Path,
    result: InformationResult,
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
