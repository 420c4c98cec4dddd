"""`emergraph diff`: what differs between two graphs or model files."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from emergraph.cli.app import command
from emergraph.cli.limits import Limits, held_to
from emergraph.cli.output import Output, View, emit
from emergraph.errors import UsageError

if TYPE_CHECKING:
    from emergraph.analysis.comparison.difference import Difference
    from emergraph.graphstore.reader import GraphReader

T = TypeVar("T")
VIEWS = ("tensors", "layers", "units", "measures")


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """What is compared, and what is shown of it."""

    view: Annotated[
        str,
        typer.Option(help="Table: tensors (changes of weights), layers, units (largest first) or measures."),
    ] = "tensors"
    match_units: Annotated[
        bool, typer.Option(help="Seek which hidden unit of A stands for which of B (arXiv 2209.04836).")
    ] = True
    seed: Annotated[int, typer.Option(min=0, help="Seed of that search.")] = 0
    input: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Value of one input of model files; may be repeated."),
    ] = None
    input_shape: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=1,3,64,64", help="Shape of one input of model files; may be repeated."),
    ] = None


@command(
    examples="""
    emergraph diff before.onnx after.onnx
    emergraph diff net.duckdb:vad net.duckdb:vad-pruned --view layers
    emergraph diff model.onnx model-int8.onnx --view units --format csv --out units.csv
    emergraph diff run1.duckdb run2.duckdb:12 --view measures
    """
)
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="FILE.duckdb, FILE.duckdb:graph, or a model file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, for the other side.")],
    *,
    comparing: Comparing,
    limits: Limits,
    output: Output,
) -> None:
    """Show what differs between two graphs: layers, weights with sign flips, units, and stored measures.

    Weights are matched by content, name, correlation and position, so that two encodings of one network, or a
    model and its quantized form, are compared weight by weight. Exit code 0 whether they differ or not.
    """
    if comparing.view not in VIEWS:
        raise UsageError(f"no view '{comparing.view}'; there is {', '.join(VIEWS)}")
    from emergraph.analysis.comparison.difference import compare

    with held_to(limits), opened_graph(a, comparing) as ours, opened_graph(b, comparing) as theirs:
        found = compare(ours, theirs, match=comparing.match_units, seed=comparing.seed)
    emit(diff_view(found, comparing.view), output)


@contextmanager
def opened_graph(text: str, comparing: Comparing) -> "Iterator[GraphReader]":
    """Open one side: a graph of a store, or a model file that is exported into a store for the moment.

    Raises:
        InvalidInputError: There is no such file, or it is not a model.
        UsageError: The store has no such graph.
    """
    from emergraph.cli.parsing import parse_shapes, parse_values
    from emergraph.cli.reportsteps import is_store
    from emergraph.cli.storeargs import name_or_id
    from emergraph.exporters.anymodel import export_any
    from emergraph.exporters.export import ExportOptions
    from emergraph.graphstore.store import open_store

    name, colon, graph = text.rpartition(":")
    path = Path(text)
    if colon and not path.exists():
        path = Path(name)
    with ExitStack() as stack:
        if is_store(path):
            chosen = name_or_id(graph) if path != Path(text) else None
            yield stack.enter_context(open_store(path)).graph(chosen)
            return
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emergraph-")))
        with open_store(folder / "model.duckdb", mode="create") as store:
            options = ExportOptions(
                inputs=_of(path, parse_values(comparing.input or ())),
                input_shapes=_of(path, parse_shapes(comparing.input_shape or ())),
            )
            export_any(path, store, options=options)
        yield stack.enter_context(open_store(folder / "model.duckdb")).graph()


def _of(path: Path, given: Mapping[str, T]) -> dict[str, T]:
    """What is given for inputs that the model has: the two sides may have different ones."""
    if not given:
        return {}
    from emergraph.exporters.onnxfile import read_onnx

    names = {value.name for value in read_onnx(path).model.graph.input}
    return {name: value for name, value in given.items() if name in names}


def diff_view(found: "Difference", view: str) -> View:
    """The facts of a difference with one of its tables."""
    tensors = found.tensors
    changed = tensors.filter(tensors["max_change"] > 0).height
    states = dict(found.layers["state"].value_counts().iter_rows())
    facts: dict[str, object] = {
        "A": found.a,
        "B": found.b,
        "verdict": found.verdict.value,
        "layers": ", ".join(f"{n} {state}" for state, n in sorted(states.items())),
        "weight tensors": f"{tensors.height} matched, {changed} of them changed; "
        f"{len(found.only_a)} only in A, {len(found.only_b)} only in B",
    }
    if found.relative_change is not None:
        facts["change of weights"] = f"{100 * found.relative_change:.4g} % (rms of B - A over rms of A)"
        facts["sign flips"] = found.sign_flips
        facts["cosine of weights"] = found.cosine
    if found.matching is not None:
        matched = found.matching
        facts["units that stand for others"] = (
            f"{matched.n_moved}; cosine {matched.similarity_before:.4g} before, "
            f"{matched.similarity_after:.4g} after permuting hidden units"
        )
    notes = [
        f"{len(names)} tensors {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for names, what in (
            (found.only_a, "only in A"),
            (found.only_b, "only in B"),
            (found.not_compared, "cannot be compared, for their scales are not known"),
        )
        if names
    ]
    rows = getattr(found, view)
    shown = {
        "tensors": ("tensor_a", "matched_by", "n_params", "relative_change", "sign_flips", "cosine"),
        "measures": ("analysis", "measure", "a", "b", "change", "overlap"),
    }
    return View(rows=rows, facts=facts, document=found.to_dict(), notes=notes, columns=shown.get(view, ()))
