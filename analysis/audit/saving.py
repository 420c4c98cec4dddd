"""Findings of an audit as rows of a store."""

from pathlib import Path

from emergraph.analysis.audit.analysis import AUDIT, audit_rows
from emergraph.analysis.audit.result import AuditResult
from emergraph.graphstore.store import open_store


def save_audit(
    path: str | Path, result: AuditResult, *, seed: int, any_name: bool = False, **about: object
) -> int:
    """Keep the findings of an audit beside the graph of the same file, if the store has one.

    Args:
        path: The store; made when missing.
        result: The audit.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        seed: Of its random inputs.
        about: Options of the run.

    Returns:
        Id of the run.
    """
    sha256 = None if result.identity is None else result.identity.sha256
    about |= {"left_out": dict(result.left_out), "notes": list(result.notes)}
    with open_store(path, mode="create", any_name=any_name) as store:
        return store.record_run(
            None if sha256 is None else store.find_graph(sha256),
            AUDIT.name,
            {**about, "model": Path(result.path).name, "sha256": sha256},
            seed=seed,
            duration=result.seconds,
            result_tables=audit_rows(result),
        )
