"""`emergraph export`: a model file becomes a graph in a store."""

import os
import shutil
import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emergraph.analysis.report.texts import percent
from emergraph.analysis.view import View
from emergraph.cli.app import command
from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit
from emergraph.cli.progress import progress_bar
from emergraph.cli.storeargs import AnyName
from emergraph.exporters.placements import IN_PLACE_EDGES, EdgePlacement
from emergraph.exporters.runtime.inputwords import InputOptions
from emergraph.graphstore.text import listed
from emergraph.memory import mebibytes
from emergraph.options import FileRole
from emergraph.processes import held_memory

if TYPE_CHECKING:
    from emergraph.exporters.export import ExportSummary
    from emergraph.exporters.summary import GraphSummary


class Branch(StrEnum):
    """Which branches of an If are traced."""

    TAKEN = "taken"
    ALL = "all"


class Wire(StrEnum):
    """How the layers of a weight file are joined."""

    AUTO = "auto"
    NONE = "none"
    SEQUENTIAL = "sequential"


@dataclass(frozen=True, kw_only=True)
class ExportChoices:
    """Options of an export beside inputs and limits."""

    name: Annotated[
        str | None, typer.Option(help="Name of the graph.  [default: the file name without its ending]")
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="Export even if the store holds a graph of the same file.")
    ] = False
    branch: Annotated[
        Branch,
        typer.Option(help="Of an If that the inputs decide: the branch taken, or all branches that run."),
    ] = Branch.TAKEN
    wire: Annotated[
        Wire,
        typer.Option(
            help="How the layers of a weight file are joined; auto: as a config.json says, else none."
        ),
    ] = Wire.AUTO
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Weights for the module of a factory; read without running anything."
        ),
        FileRole.MODEL,
    ] = None
    keep_onnx: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the ONNX file of a module, which `trace --model` needs."),
        FileRole.WRITES,
    ] = None
    allow_missing_classes: Annotated[
        bool,
        typer.Option("--allow-missing-classes", help="Read tensors inside objects of third-party classes."),
    ] = False
    any_name: AnyName = False
    edges: Annotated[
        EdgePlacement,
        typer.Option(
            help="Write edges into the store, or leave those in the file whose weights it holds as they are; "
            f"auto: leave them where there are more than {IN_PLACE_EDGES // 1_000_000} M."
        ),
    ] = EdgePlacement.AUTO
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Write nothing; show coverage, edges and size."),
    ] = False


OPAQUE_SHOWN = 5


@command(
    examples="""
    emergraph export model.onnx net.duckdb
    emergraph export model.onnx net.duckdb --dry-run --format json
    emergraph export vad.onnx net.duckdb --input sr=16000 --input-shape input=1,512 --name vad
    emergraph export vad.onnx net.duckdb --branch all
    emergraph export model.safetensors net.duckdb --wire sequential
    emergraph export package.module:make_net net.duckdb --weights net.pt --input-shape x=1,3,32,32
    """
)
def export(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="ONNX file, weight file, folder, or package.module:callable or FILE.py:callable.",
        ),
        FileRole.MODEL,
    ],
    store: Annotated[
        Path,
        typer.Argument(metavar="STORE", help="The store, which is created if missing."),
        FileRole.STORES,
    ],
    *,
    inputs: InputOptions,
    choices: ExportChoices,
    links: Links,
    limits: Limits,
    output: Output,
) -> None:
    """Trace the units of a model and write its graph into a store."""
    from emergraph.exporters.export import ExportOptions
    from emergraph.exporters.runtime.limits import RunLimits
    from emergraph.exporters.sourcekinds import SourceKind, source_kind
    from emergraph.exporters.sources import SourceOptions, Wiring, export_any
    from emergraph.graphstore.store import open_store

    run_limits = RunLimits(wall_seconds=limits.seconds, memory_bytes=limits.memory_bytes)
    with progress_bar(f"tracing {model.name}", output) as progress:
        options = ExportOptions(
            name=choices.name,
            inputs=inputs.arrays(),
            input_shapes=inputs.shapes(),
            all_branches=choices.branch is Branch.ALL,
            root=links.root,
            force=choices.force,
            edges=choices.edges,
            run_limits=run_limits,
        )
        source = SourceOptions(
            wire=Wiring(choices.wire),
            weights=choices.weights,
            onnx_path=choices.keep_onnx,
            allow_missing_classes=choices.allow_missing_classes,
        )
        if source_kind(model) is SourceKind.FACTORY:
            sys.path.append(str(Path.cwd()))  # the user's own code, named on the command line
        if choices.dry_run:
            summary = export_any(model, None, options=options, source=source, progress=progress)
        else:
            with open_store(store, mode="create", any_name=choices.any_name) as opened:
                summary = export_any(model, opened, options=options, source=source, progress=progress)
    view = _view(summary)
    if summary.to_write is not None and summary.estimated_bytes is not None:
        view = _with_plan(view, summary, store)
    emit(view, output)


def _with_plan(view: View, summary: "ExportSummary", store: Path) -> View:
    """The view of a dry run, with what the export would take on this machine."""
    from emergraph.graphstore.probes import pass_rates, write_rate

    folder = store.absolute().parent
    todo, size = summary.to_write, summary.estimated_bytes or 0
    notes = list(view.notes)
    if todo is None or not folder.is_dir():
        return view
    rates = pass_rates()
    seconds = summary.seconds + todo.weights / rates.sums + todo.bytes / rates.bytes
    if todo.rows:
        seconds += todo.rows / write_rate(folder)
    memory = held_memory(os.getpid()) + min(_WRITING_BYTES, 40 * todo.rows)
    free = shutil.disk_usage(folder).free
    if size > free:
        notes.append(f"NOT ENOUGH DISK SPACE: the store would take {size / 1e6:.1f} MB")
    plan = {"seconds_to_export": round(seconds, 1), "memory": memory, "free_on_disk": free}
    facts = {
        **view.facts,
        "seconds to export": plan["seconds_to_export"],
        "memory to export": mebibytes(memory),
        "free on the disk": f"{free / 1e6:.0f} MB",
    }
    document = {**summary.to_dict(), "plan": plan}
    return replace(view, facts=facts, document=document, notes=notes)


_WRITING_BYTES = 600 << 20
"""What writing a graph takes at most besides the trace."""


def _view(summary: "ExportSummary") -> View:
    facts: dict[str, object] = {"graph": summary.name, "id": summary.graph, "source": summary.source}
    notes: list[str] = []
    if summary.trace is not None:
        trace = summary.trace
        parameters = percent(trace.n_parameters_understood, trace.n_parameters)
        facts |= {
            "layers": trace.n_layers,
            "units": trace.n_units,
            "edges": trace.n_edges,
            **(_placed(trace) if summary.in_place else {}),
            "parameters": trace.n_parameters,
            "parameters understood": parameters,
            "operations understood": percent(trace.n_operations_understood, trace.n_operations),
            "inputs": [f"{name} {list(shape)}" for name, shape in summary.input_shapes.items()],
        }
        if trace.n_nonfinite:
            facts["parameters not finite"] = trace.n_nonfinite
        if trace.split_by:
            facts["layers with units by position"] = [f"{n}: {why}" for why, n in trace.split_by.items()]
        if summary.branches:
            facts["branches"] = summary.branches
        notes.extend(trace.warnings)
        notes.extend(f"not understood: {op.op} {op.name}: {op.reason}" for op in trace.opaque[:OPAQUE_SHOWN])
        if len(trace.opaque) > OPAQUE_SHOWN:
            notes.append(
                f"{len(trace.opaque) - OPAQUE_SHOWN} more operations are not understood (--format json)"
            )
        if trace.coverage < 1:
            notes.append(f"ONLY {parameters} OF THE PARAMETERS ARE UNDERSTOOD: results leave the others out")
    if summary.estimated_bytes is not None:
        facts["size in a store"] = f"{summary.estimated_bytes / 1e6:.1f} MB"
    facts["seconds"] = round(summary.seconds, 2)
    return View(finding=_finding(summary), facts=facts, document=summary.to_dict(), notes=notes)


def _placed(trace: "GraphSummary") -> dict[str, object]:
    """How many edges are in the file, and of which weights they had to become rows."""
    facts: dict[str, object] = {"edges in the file": trace.n_in_place}
    if trace.rows:
        largest = sorted(trace.rows, key=lambda name: -trace.rows[name])
        facts["weights as rows"] = f"{sum(trace.rows.values()):,} edges of {listed(largest)}"
    return facts


def _finding(summary: "ExportSummary") -> str:
    """How much of the model is in the graph, and what to do next."""
    trace = summary.trace
    if trace is None:
        return "The store holds this file already, nothing was written; --force writes it again."
    said = (
        f"{percent(trace.n_parameters_understood, trace.n_parameters)} of {trace.n_parameters:,} parameters "
        f"are understood: {trace.n_units:,} units and {trace.n_edges:,} edges in {trace.n_layers} layers"
    )
    return f"{said}." if trace.coverage == 1 else f"{said}; what follows leaves the others out."
