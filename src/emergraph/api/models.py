"""From model files: graphs, landscapes, information."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.api.graph import Graph
from emergraph.api.handle import Progress
from emergraph.commandfiles import one_command
from emergraph.graphstore.store import open_store as open_file
from emergraph.graphstore.storefile import check_place
from emergraph.options import member

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from emergraph.analysis.audit.audit import AuditResult
    from emergraph.analysis.information.model import InformationOptions, ModelInformation
    from emergraph.analysis.information.sequences import Sequences
    from emergraph.analysis.landscape.modelsurvey import ModelSurvey
    from emergraph.analysis.landscape.options import ModelOptions, SurveyOptions
    from emergraph.analysis.landscape.sweep import Progress as LandscapeProgress
    from emergraph.exporters.runtime.limits import RunLimits
    from emergraph.exporters.sources import SourceOptions


@contextmanager
def with_model(model: str | Path, *, root: str | Path | None = None, verify: bool = False) -> Iterator[None]:
    """Let graphs find the weights that stayed in a model file, in a `with` block.

    Args:
        model: The file or folder that they were exported from, wherever it is now: tensors are matched by
            their checksums.
        root: Folder inside which files of the model may be symbolic links.
        verify: Check all tensors of a graph before the first is used, instead of each when it is read.

    Raises:
        InvalidInputError: The file is not a model that can be read.
        UnsafeInputError: The file asks for something that is refused.

    Example:
        >>> with emergraph.with_model("llm"):  # doctest: +SKIP
        ...     emergraph.open("llm.duckdb").graph().emergence()
    """
    from emergraph.exporters.modeltensors import open_model
    from emergraph.graphstore.modelfiles import model_given

    with model_given(open_model(model, root=None if root is None else Path(root), verify=verify)):
        yield


def export(  # noqa: PLR0913 - the options of one call, all but two by keyword
    model: "str | Path | torch.nn.Module | torch.export.ExportedProgram",
    store: str | Path,
    *,
    name: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    inputs: "Mapping[str, NDArray[np.generic]] | None" = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    source: "SourceOptions | None" = None,
    edges: str = "auto",
    force: bool = False,
    any_name: bool = False,
    root: str | Path | None = None,
    limits: "RunLimits | None" = None,
    progress: Progress | None = None,
) -> "Graph":
    """Trace the units of a model and write its graph into a store.

    Args:
        model: An ONNX file, a weight file, a folder in Hugging Face's layout, "package.module:factory", or a
            PyTorch module or exported program itself.
        store: The store, which is created if missing.
        name: Name of the graph; the file's stem or the module's class by default.
        args: Example inputs of a module, positional.
        kwargs: Example inputs of a module, by name.
        inputs: Values of inputs of the small run that decides shapes and branches.
        input_shapes: Shapes of such inputs.
        source: Wiring of a weight file, weights of a factory, where to keep the ONNX file of a module.
        edges: "stored", "in-place" for edges that stay in the file (see `with_model`), or "auto", which
            leaves them there in large models.
        force: Write the graph even if the store holds one of the same file and settings.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        root: Folder inside which files of the model may be symbolic links, as in a download cache.
        limits: Limits of that run.
        progress: Called with (operations done, operations in all).

    Returns:
        The graph; `export_summary` says what was understood.

    Raises:
        InvalidInputError: The file is not a model that can be read.
        UnsafeInputError: The file asks for something that is refused.
        LimitError: A limit of time, memory or disk was hit; the store is as it was.
        StoreError: The store is locked, foreign, newer or damaged.
        MissingExtraError: The model needs an optional library; the message holds the pip command.
    """
    from emergraph.exporters.export import ExportOptions
    from emergraph.exporters.placements import EdgePlacement
    from emergraph.exporters.runtime.limits import RunLimits
    from emergraph.exporters.sources import SourceOptions, export_any

    options = ExportOptions(
        name=name,
        inputs=inputs or {},
        input_shapes=input_shapes or {},
        edges=member(EdgePlacement, edges, "edges"),
        force=force,
        root=None if root is None else Path(root),
        run_limits=limits or RunLimits(),
    )
    with one_command(), open_file(store, mode="create", any_name=any_name) as opened:
        if isinstance(model, str | Path):
            summary = export_any(model, opened, options=options, source=source, progress=progress)
        else:
            from emergraph.exporters.pytorch.modules import export_module

            summary = export_module(
                model,
                args,
                opened,
                kwargs=kwargs,
                onnx_path=(source or SourceOptions()).onnx_path,
                options=options,
                progress=progress,
            )
        return Graph(Path(store), opened.graph(summary.graph).id, export_summary=summary)


def audit(  # noqa: PLR0913 - the options of one call, all but one by keyword
    model: str | Path,
    *,
    inputs: "Mapping[str, NDArray[np.generic]] | None" = None,
    values: "Mapping[str, NDArray[np.generic]] | None" = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    seconds: float | None = 60.0,
    baseline: "AuditResult | None" = None,
    reference: str | Path | None = None,
    store: str | Path | None = None,
    write: str | Path | None = None,
    also_tested: bool = False,
    root: str | Path | None = None,
    limits: "RunLimits | None" = None,
) -> "AuditResult":
    """Say what is in a model, what is wrong with it and what may go; see `docs/audit.md`.

    The file is checked first; where that finds something that forbids it, nothing is loaded.

    Args:
        model: An ONNX file, a weight file, a folder, or "package.module:factory".
        inputs: Samples by input name; random ones by default, which make much only suspected.
        values: Inputs that all samples share, such as a sampling rate.
        input_shapes: Shapes of random inputs.
        seconds: Budget; None for no end. `left_out` names what was not looked at to the end.
        baseline: An audit whose findings are accepted.
        reference: The model that this one was made from, such as the float one of a quantized one.
        store: Where graphs are looked for that have the same weights.
        write: Where to write a model without what is proved to be dispensable.
        also_tested: Leave out, too, units that were silent on all inputs given.
        root: Folder inside which files of the model may be symbolic links.
        limits: Limits of the process that runs the model.

    Raises:
        InvalidInputError: There is no such file.
        UsageError: No smaller model can be written, or it does not agree with the original.
        LimitError: A limit of time or memory was hit.

    Example:
        >>> [found.sentence for found in audit("model.onnx").findings]  # doctest: +SKIP
    """
    from emergraph.analysis.audit.audit import audit_model
    from emergraph.analysis.audit.subject import Given
    from emergraph.exporters.runtime.limits import RunLimits

    given = Given(
        inputs=inputs or {},
        values=values or {},
        shapes=input_shapes or {},
        root=None if root is None else Path(root),
        limits=limits or RunLimits(),
    )
    accepted = frozenset[str]() if baseline is None else baseline.fingerprints
    with one_command():
        return audit_model(
            model,
            given,
            seconds=seconds,
            baseline=accepted,
            reference=reference,
            store=None if store is None else Path(store),
            write=None if write is None else Path(write),
            also_tested=also_tested,
        )


def landscape(
    model: str | Path,
    *,
    options: "SurveyOptions | None" = None,
    how: "ModelOptions | None" = None,
    store: str | Path | None = None,
    any_name: bool = False,
    progress: "Callable[[LandscapeProgress], None] | None" = None,
) -> "ModelSurvey":
    """Measure how rugged the loss is around a model's own weights; see `docs/landscape.md`.

    Args:
        model: An ONNX file, or "package.module:factory" of a PyTorch module.
        options: What to measure, with the seed.
        how: On which inputs, with which loss, in what time.
        store: Keep the result there, beside the model's graph if it holds it.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        progress: Called at the start with an estimate of the time and after every piece.

    Raises:
        InvalidInputError: The model cannot be read or has no weights to move.
        UsageError: Inputs, targets, outputs and loss do not fit the model.
        LimitError: A limit was hit.

    Example:
        >>> landscape("model.onnx").survey.estimates()["excess_ruggedness"].mean  # doctest: +SKIP
    """
    from emergraph.analysis.landscape.modelsurvey import survey_model
    from emergraph.analysis.landscape.saving import save_model_survey

    if store is not None:
        check_place(Path(store), may_make=True, any_name=any_name)
    found = survey_model(model, options, how, progress=progress)
    if store is not None:
        save_model_survey(store, found, any_name=any_name)
    return found


def information(
    model: str | Path,
    sequences: "Sequences | None",
    *,
    options: "InformationOptions | None" = None,
    store: str | Path | None = None,
    any_name: bool = False,
    progress: Progress | None = None,
) -> "ModelInformation":
    """Estimate the information emergence of a model's blocks; see `docs/information.md`.

    Args:
        model: An ONNX file, a folder in Hugging Face's layout, "package.module:factory", or recorded states.
        sequences: From `emergraph.analysis.information.sequences`; None for recorded states.
        options: Blocks, micro level, estimator.
        store: Where to look for the model's graph, and to keep the result.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        progress: Called with (sequences run, sequences in all).

    Raises:
        InvalidInputError: The model has no chain of blocks of equal width, or refuses the sequences.
        UsageError: An option does not make sense.
        LimitError: A limit was hit.

    Example:
        >>> information("model.onnx", read_sequences("ids.txt")).result.mean  # doctest: +SKIP
    """
    from emergraph.analysis.information.analysis import save_information
    from emergraph.analysis.information.model import measure_model

    if store is not None:
        check_place(Path(store), may_make=True, any_name=any_name)
    found = measure_model(model, sequences, store=store, options=options, progress=progress)
    if store is not None:
        save_information(
            store,
            found.result,
            model=found.source,
            sha256=found.sha256,
            duration=found.seconds,
            any_name=any_name,
        )
    return found
