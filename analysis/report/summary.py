"""The first section of a report: what the file is, how much of it was understood, and what to beware of."""

from collections.abc import Sequence

from emergraph.analysis.declaration import Analysis
from emergraph.analysis.figures.reading import newest_run, question
from emergraph.analysis.report.document import Attempt, Section
from emergraph.analysis.report.texts import percent
from emergraph.graphstore.reader import GraphReader
from emergraph.graphstore.text import stored_object


def summary_section(
    reader: GraphReader,
    analyses: Sequence[Analysis],
    *,
    attempts: Sequence[Attempt],
    budget: float | None,
) -> Section:
    """Return the summary of a graph.

    Args:
        reader: The graph.
        analyses: Those whose headlines it gives.
        attempts: Commands that ran, or were to run, for the report.
        budget: Seconds that they were given.
    """
    about = reader.summary
    units, layers, params = (
        _number(about["n_units"]),
        _number(about["n_layers"]),
        _number(about["n_parameters"]),
    )
    lead = (
        f"{about['source'] or about['name']} holds a network of {units:,} units in {layers:,} layers, with "
        f"{_number(about['n_edges']):,} edges and {params:,} parameters."
    )
    facts: dict[str, object] = {
        "graph": about["name"],
        "file": about["source"],
        "SHA-256": about["sha256"],
        "format": about["format"],
        "made by": about["producer"],
        "wiring": about["wiring"],
        "units": units,
        "neurons": about["n_neurons"],
        "edges": about["n_edges"],
        "parameters": params,
        "parameters understood": percent(_number(about["n_parameters_understood"]), params),
        "operations understood": percent(
            _number(about["n_operations_understood"]), _number(about["n_operations"])
        ),
        "parameters that are zero": _zeros(reader),
        "branches taken": about["branches"],
        "training step": about["step"],
    }
    facts |= _headlines(reader, analyses)
    return Section(
        id="summary",
        title="Summary",
        lead=lead,
        facts={name: value for name, value in facts.items() if value not in (None, "", [])},
        notes=tuple(_notes(reader, attempts, budget)),
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _zeros(reader: GraphReader) -> str | None:
    sql = """SELECT sum(n_zeros), sum(n_params) FROM tensors
    WHERE graph = ? AND role NOT IN ('quantization', 'buffer')"""
    zeros, params = reader.connection.execute(sql, [reader.id]).fetchall()[0]
    return None if not params else f"{int(zeros):,} ({percent(int(zeros), int(params))})"


def _headlines(reader: GraphReader, analyses: Sequence[Analysis]) -> dict[str, object]:
    """One line per analysis that has run."""
    lines: dict[str, object] = {}
    for headline in (analysis.headline for analysis in analyses):
        run = None if headline is None else newest_run(reader, headline.query)
        if headline is not None and run is not None:
            sql = question(headline.query, reader.id, run.id)
            rows = reader.connection.execute(sql).fetchall()
            lines[headline.query.name] = headline.text(rows, run.parameters)
    return lines


def _notes(reader: GraphReader, attempts: Sequence[Attempt], budget: float | None) -> list[str]:
    notes = []
    traces = reader.traces()
    if traces.is_empty():
        notes.append("No activation trace: nothing here depends on what the units do.")
    elif traces["kind"][-1] == "random":
        seed = traces["seed"][-1]
        n = traces["n_samples"][-1]
        notes.append(
            f"Activity was measured on {n} random inputs (seed {seed}), not on real ones: what "
            "depends on it says little about the model in use. --inputs FILE.npz takes real ones."
        )
        free = stored_object(traces["settings"][-1], "settings of the trace").get("open_shapes")
        if free:
            from emergraph.exporters.runtime.sizes import open_shapes_note  # loads onnx

            note = open_shapes_note(free)
            notes.append(f"{note[0].upper()}{note[1:]}.")
    unfinished = [attempt for attempt in attempts if attempt.state != "done"]
    if unfinished and budget is not None:
        names = ", ".join(attempt.command.split(" ")[1] for attempt in unfinished)
        notes.append(f"Not finished in the budget of {budget:g} s, or failed: {names}.")
    return notes
