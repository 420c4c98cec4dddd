"""`emergraph information`: what the blocks of a model do to information."""

from typing import Annotated

import typer

from emergraph.analysis.information.options import BlockOptions, EstimatorOptions, SequenceOptions
from emergraph.cli.app import command
from emergraph.cli.limits import Limits
from emergraph.cli.links import Links
from emergraph.cli.output import Output, emit
from emergraph.cli.progress import progress_bar
from emergraph.cli.storeargs import ResultStore, refuse_store
from emergraph.options import FileRole


@command(
    examples="""
    emergraph information model.onnx --sequences ids.txt
    emergraph information model.onnx --entities 25 --shots 4 --first-id 1000 --store net.duckdb
    emergraph information model.onnx --text book.txt --estimator mine --dimensions 5 --format json
    emergraph information hidden.npz --micro first
    """
)
def information(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="ONNX file, model folder, package.module:factory, or states.npz."
        ),
        FileRole.MODEL,
    ],
    *,
    keeping: ResultStore,
    source: SequenceOptions,
    blocks: BlockOptions,
    estimator: EstimatorOptions,
    links: Links,
    limits: Limits,
    output: Output,
) -> None:
    """Estimate how much more each block of a model tells about sequences than about single tokens."""
    from emergraph.analysis.information.analysis import save_information, shown
    from emergraph.analysis.information.model import InformationOptions, measure_model
    from emergraph.analysis.information.onnxstates import state_options
    from emergraph.analysis.information.sequences import chosen_sequences
    from emergraph.exporters.runtime.limits import RunLimits

    store = keeping.store
    refuse_store(model, "information")
    run_limits = RunLimits(wall_seconds=limits.seconds, memory_bytes=limits.memory_bytes)
    options = InformationOptions(
        run=state_options(blocks, limits=run_limits, root=links.root), estimator=estimator
    )
    with progress_bar("running sequences", output) as update:
        sequences = chosen_sequences(source, estimator.seed)
        found = measure_model(model, sequences, store=store, options=options, progress=update)
        run = None
        if store is not None:
            run = save_information(
                store,
                found.result,
                model=found.source,
                sha256=found.sha256,
                duration=found.seconds,
                any_name=keeping.any_name,
                **source.kept(),
                **blocks.kept(),
            )
    emit(shown(found, run), output)
