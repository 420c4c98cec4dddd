"""`emergraph diff`: what differs between two graphs or model files."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from emergraph.analysis.comparison.options import MatchOptions
from emergraph.analysis.view import BRIEF_ROWS, View
from emergraph.choices import unknown
from emergraph.cli.app import command
from emergraph.cli.links import Links
from emergraph.cli.output import TABLES, Output, OutputFormat, emit
from emergraph.cli.storeargs import weights_of
from emergraph.errors import UsageError
from emergraph.exporters.runtime.inputwords import InputWords
from emergraph.options import FileRole, command_line
from emergraph.safetext import escape_controls

if TYPE_CHECKING:
    from emergraph.analysis.comparison.difference import Difference

T = TypeVar("T")
VIEWS = ("tensors", "layers", "units", "measures")


@dataclass(frozen=True, kw_only=True)
class Showing:
    """What is shown of a difference."""

    view: Annotated[
        str,
        typer.Option(help="Table: tensors (changes of weights), layers, units (largest first) or measures."),
    ] = "tensors"


class DiffOutput(Output):
    """Where a difference goes; as html, it is a page of everything."""

    formats = (*TABLES, OutputFormat.HTML)


@command(
    examples="""
    emergraph diff before.onnx after.onnx
    emergraph diff before.onnx after.onnx --format html --out diff.html
    emergraph diff net.duckdb:vad net.duckdb:vad-pruned --view layers
    emergraph diff model.onnx model-int8.onnx --view units --format csv --out units.csv
    emergraph diff run1.duckdb run2.duckdb:12 --view measures
    """
)
def diff(
    a: Annotated[
        str,
        typer.Argument(metavar="A", help="FILE.duckdb, FILE.duckdb:graph, or a model file."),
        FileRole.MODEL,
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, for the other side."), FileRole.MODEL],
    *,
    showing: Showing,
    matching: MatchOptions,
    inputs: InputWords,
    model: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="What a graph of a store was exported from, where its edges stayed there; once for each.",
        ),
        FileRole.MODEL,
    ] = None,
    links: Links,
    output: DiffOutput,
) -> None:
    """Show what differs between two graphs: layers, weights with sign flips, units, and stored measures.

    Weights are matched by content, name, correlation and position, so that two encodings of one network, or a
    model and its quantized form, are compared weight by weight. With --format html, the result is a page like
    that of `report`, with all of the tables. Exit code 0 whether they differ or not.
    """
    if showing.view not in VIEWS:
        raise UsageError(unknown("view", showing.view, VIEWS))
    from emergraph.analysis.comparison.difference import compare
    from emergraph.api.sources import opened_graph

    with (
        weights_of(model, links),
        opened_graph(a, inputs, links.root) as ours,
        opened_graph(b, inputs, links.root) as theirs,
    ):
        found = compare(ours, theirs, match=matching.match_units, seed=matching.seed)
        summaries = (ours.summary, theirs.summary)

    def page() -> str:
        from emergraph.analysis.report.difference import Side, difference_page
        from emergraph.analysis.report.html import page_html

        first, second = (
            Side(source=_shared_name(text), graph=summary)
            for text, summary in zip((a, b), summaries, strict=True)
        )
        again = _command(first.source, second.source, matching, inputs, links, output)
        return page_html(difference_page(found, first, second, command=again))

    emit(replace(diff_view(found, showing.view), texts={OutputFormat.HTML: page}), output)


def _command(a: str, b: str, matching: MatchOptions, inputs: InputWords, links: Links, output: Output) -> str:
    """The command line that makes the page again, for a shell."""
    words = ["emergraph", "diff", a, b]
    words += [*command_line(matching), *command_line(inputs)]
    if links.root is not None:
        words += ["--root", links.root.name or str(links.root)]
    words += ["--format", "html", "--out", "diff.html" if output.out is None else output.out.name]
    return " ".join(shlex.quote(escape_controls(word)) for word in words)


def _shared_name(text: str) -> str:
    """What one side was given as, without folders: a page may be passed on."""
    from emergraph.api.sources import parts_of

    path, graph = parts_of(text)
    return path.name if graph is None else f"{path.name}:{graph}"


def diff_view(found: "Difference", view: str) -> View:
    """The facts of a difference with one of its tables."""
    from emergraph.analysis.comparison.summary import difference_facts, difference_notes, finding, relation

    shown = {
        "tensors": ("tensor_a", "matched_by", "n_params", "relative_change", "sign_flips", "cosine"),
        "measures": ("analysis", "measure", "a", "b", "change", "overlap"),
    }
    table = getattr(found, view)
    columns = shown.get(view, ())
    short = table.select(columns) if columns else table
    if view == "tensors":
        short = short.sort("relative_change", descending=True, nulls_last=True, maintain_order=True)
    return View(
        finding=finding(found),
        rows=table,
        brief=[short.head(BRIEF_ROWS)],
        facts=difference_facts(found),
        document=found.to_dict() | {"relation": relation(found).value},
        notes=difference_notes(found),
        columns=columns,
    )
