"""One file of a survey, in a child process: audited, exported into the lake, fingerprinted, analysed."""

import contextlib
import resource
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emergraph.errors import EmergraphError, LimitError, UnsafeInputError
from emergraph.exporters.onnxfile.findings import KINDS, Severity
from emergraph.exporters.runtime.limits import RunLimits
from emergraph.leftovers import Scratch

_BUDGET_SHARE = 0.5
"""Of the time for a file, that of its audit; the rest is for the run of the model, analyses and the lake."""
_COUNTS = (
    *("n_layers", "n_units", "n_edges", "n_parameters", "n_parameters_understood"),
    *("n_operations", "n_operations_understood"),
)
_KILLED = "(SIGKILL)"
"""How the runner of models says that somebody has killed it."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is to be found out about a model."""

    path: str
    lake: str
    seconds: float
    memory: int
    analyses: tuple[str, ...] = ()
    seed: int = 0
    root: str | None = None

    @property
    def limits(self) -> RunLimits:
        """Of the child that looks at the file, and of the model's runs inside of it."""
        return RunLimits(
            wall_seconds=self.seconds,
            memory_bytes=self.memory,
            threads=1,
            time_option="--file-time",
            memory_option="--file-memory",
        )

    @property
    def settings(self) -> dict[str, object]:
        """What the answer depends on, besides the file."""
        return {"analyses": sorted(self.analyses), "seed": self.seed}


def failure(error: EmergraphError) -> dict[str, Any]:
    """The columns of a row that say why there is no result."""
    kinds = ((UnsafeInputError, "refused"), (LimitError, "limit"))
    status = next((status for kind, status in kinds if isinstance(error, kind)), "failed")
    return {"status": status, "reason": str(error), "code": int(error.exit_code)}


def look_at(look: Look) -> dict[str, Any]:
    """Audit a model, write its graph into the lake, and return its row and its findings.

    Raises:
        EmergraphError: The model cannot be read, is refused, or takes too much.
    """
    from emergraph.analysis.audit.analysis import FINDINGS, audit_rows
    from emergraph.analysis.audit.audit import audit_model
    from emergraph.analysis.audit.subject import Given

    begin = time.monotonic()
    with Scratch() as scratch:
        store = scratch.path / "graph.duckdb"
        result = audit_model(
            look.path,
            Given(
                store=store,
                seed=look.seed,
                root=None if look.root is None else Path(look.root),
                limits=look.limits,
            ),
            seconds=_BUDGET_SHARE * look.seconds,
        )
        if killed := next((note for note in result.notes if _KILLED in note), None):
            raise LimitError(killed)
        row: dict[str, Any] = {"status": "done", "notes": list(result.notes)}
        if result.refused:
            first = next(found for found in result.findings if found.severity is Severity.ERROR)
            kind = KINDS[first.id].error or UnsafeInputError
            row |= failure(kind(first.sentence))
        counts = Counter(found.severity for found in result.findings)
        row |= {f"n_{severity.value}s": counts[severity] for severity in Severity}
        if result.identity is not None:
            row |= {"producer": result.identity.producer, "licence": result.identity.licence}
            if result.identity.guess is not None:
                row |= {"family": result.identity.guess.family, "task": result.identity.guess.task}
        if store.exists():
            with _weights(store, look):
                row |= _graph(store, look, row["notes"])
    findings = audit_rows(result)[FINDINGS.name].drop("place").to_dicts()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    row |= {
        "seconds": time.monotonic() - begin,
        "cpu_seconds": sum(one.ru_utime + one.ru_stime for one in used),
    }
    return {"row": row, "findings": findings}


@contextlib.contextmanager
def _weights(store: Path, look: Look) -> Iterator[None]:
    """Hand over the model where edges of its graph stayed in it."""
    from emergraph.exporters.modeltensors import open_model
    from emergraph.graphstore.modelfiles import model_given
    from emergraph.graphstore.store import open_store

    with open_store(store) as opened:
        lacks_weights = opened.graphs().height > 0 and opened.graph().lacks_weights
    if not lacks_weights:
        yield
        return
    with model_given(open_model(look.path, root=None if look.root is None else Path(look.root))):
        yield


def _graph(store: Path, look: Look, notes: list[str]) -> dict[str, Any]:
    """Analyse a graph, write it into the lake, and say what it is."""
    from emergraph.analysis.access import carry_out
    from emergraph.analysis.registry import analysis_named
    from emergraph.analysis.survey.fingerprints import fingerprints
    from emergraph.graphstore.lake.writing import write_lake
    from emergraph.graphstore.store import open_store

    for name in look.analyses:
        try:
            carry_out(analysis_named(name), store)
        except LimitError:
            raise
        except EmergraphError as error:
            notes.append(f"{name}: {error}")
    with open_store(store) as opened:
        if not opened.graphs().height:
            return {}
        graph = opened.graph()
        summary = graph.summary
        written = write_lake(opened, Path(look.lake), graphs=[graph.id])
        counts = {name: int(str(summary[name])) for name in _COUNTS}
        n_zeros = int(graph.layers()["n_zeros"].sum())
        return {**counts, "n_zeros": n_zeros, "graph": written[0]["graph"], **fingerprints(graph)}
