"""From model files: graphs, audits, landscapes, information."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emergraph.analysis.audit.options import AuditOptions, AuditUse
from emergraph.analysis.engines.options import Backend
from emergraph.analysis.information.options import BlockOptions, EstimatorOptions, SequenceOptions
from emergraph.analysis.landscape.options import (
    LossKind,
    ModelOptions,
    ParallelOptions,
    SurveyOptions,
    TargetOptions,
)
from emergraph.api.graph import Graph
from emergraph.api.handle import Progress, weights_of
from emergraph.api.keywords import with_options
from emergraph.choices import unknown
from emergraph.commandfiles import one_command
from emergraph.errors import UsageError
from emergraph.graphstore.store import open_store as open_file
from emergraph.graphstore.storefile import check_place
from emergraph.options import member

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from emergraph.analysis.audit.result import AuditResult
    from emergraph.analysis.information.model import ModelInformation
    from emergraph.analysis.information.sequences import Sequences
    from emergraph.analysis.landscape.modelsurvey import ModelSurvey
    from emergraph.analysis.landscape.sweep import Progress as LandscapeProgress
    from emergraph.exporters.runtime.limits import RunLimits


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
    with weights_of(model, root=root, verify=verify):
        yield


BRANCHES = ("taken", "all")
"""Which branches of an If are traced."""


def export(  # noqa: PLR0913 - the options of one call, all but two by keyword
    model: "str | Path | torch.nn.Module | torch.export.ExportedProgram",
    store: str | Path,
    *,
    name: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    inputs: "Mapping[str, NDArray[np.generic]] | None" = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    branch: str = "taken",
    wire: str = "auto",
    weights: str | Path | None = None,
    keep_onnx: str | Path | None = None,
    allow_missing_classes: bool = False,
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
        branch: Of an If that the inputs decide: "taken", the branch taken, or "all" branches that run.
        wire: How the layers of a weight file are joined: "none", "sequential", or "auto", as a config.json
            says.
        weights: Weights for the module of a factory; read without running anything.
        keep_onnx: Where to keep the ONNX file of a module, which `trace` needs.
        allow_missing_classes: Read tensors inside objects of third-party classes.
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
    from emergraph.exporters.sources import SourceOptions, Wiring, export_any

    if branch not in BRANCHES:
        raise UsageError(unknown("branch", branch, BRANCHES))
    source = SourceOptions(
        wire=member(Wiring, wire, "wire"),
        weights=None if weights is None else Path(weights),
        onnx_path=None if keep_onnx is None else Path(keep_onnx),
        allow_missing_classes=allow_missing_classes,
    )
    options = ExportOptions(
        name=name,
        inputs=inputs or {},
        input_shapes=input_shapes or {},
        all_branches=branch == "all",
        edges=member(EdgePlacement, edges, "edges"),
        force=force,
        root=None if root is None else Path(root),
        run_limits=limits or RunLimits(),
    )
    with one_command(), open_file(store, mode="create", any_name=any_name) as opened:
        if isinstance(model, str | Path):
            summary = export_any(model, opened, options=options, source=source, progress=progress)
        else:
            from emergraph.exporters.sources import export_module

            summary = export_module(
                model,
                args,
                opened,
                kwargs=kwargs,
                onnx_path=source.onnx_path,
                options=options,
                progress=progress,
            )
        return Graph(Path(store), opened.graph(summary.graph).id, export_summary=summary)


@with_options(AuditOptions, AuditUse)
def audit(  # noqa: PLR0913 - the options of one call, all but one by keyword
    model: str | Path,
    *,
    options: tuple[AuditOptions, AuditUse],
    inputs: "str | Path | Mapping[str, NDArray[np.generic]] | None" = None,
    values: "Mapping[str, NDArray[np.generic]] | None" = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    baseline: "AuditResult | str | Path | None" = None,
    store: str | Path | None = None,
    any_name: bool = False,
    root: str | Path | None = None,
    limits: "RunLimits | None" = None,
) -> "AuditResult":
    """Say what is in a model, what is wrong with it and what may go; see `docs/audit.md`.

    The file is checked first; where that finds something that forbids it, nothing is loaded.
    `result.at_least(options.fail_on)` is what the command's exit code tells.

    Args:
        model: An ONNX file, a weight file, a folder, or "package.module:factory".
        inputs: Samples by input name, or a file with them (.npz); random ones by default, which make much
            only suspected.
        values: Inputs that all samples share, such as a sampling rate.
        input_shapes: Shapes of random inputs.
        baseline: An audit whose findings are accepted, or the JSON file of one.
        store: Where graphs are looked for that have the same weights, and the findings are kept.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
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
    from emergraph.analysis.audit.baseline import read_baseline
    from emergraph.analysis.audit.result import AuditResult
    from emergraph.analysis.audit.saving import save_audit
    from emergraph.analysis.audit.subject import Given
    from emergraph.exporters.runtime.limits import RunLimits

    how, use = options
    given = Given(
        inputs=_arrays(inputs),
        values=values or {},
        shapes=input_shapes or {},
        root=None if root is None else Path(root),
        limits=limits or RunLimits(),
        seed=how.seed,
    )
    accepted = frozenset[str]()
    if isinstance(baseline, AuditResult):
        accepted = baseline.fingerprints
    elif baseline is not None:
        accepted = read_baseline(Path(baseline))
    kept = None if store is None else Path(store)
    with one_command():
        result = audit_model(
            model,
            given,
            seconds=how.budget,
            baseline=accepted,
            reference=how.reference,
            store=kept if kept is not None and kept.exists() else None,
            write=use.write,
            also_tested=use.also is not None,
            annotate=use.annotate,
        )
        if kept is not None:
            about: dict[str, Any] = how.kept()
            save_audit(kept, result, any_name=any_name, **about)
    return result


def _arrays(inputs: "str | Path | Mapping[str, NDArray[np.generic]] | None") -> "Mapping[str, Any]":
    """Inputs by name: as given, or as a file has them."""
    if inputs is None or isinstance(inputs, Mapping):
        return inputs or {}
    from emergraph.exporters.runtime.inputfile import read_input_file

    return read_input_file(inputs).arrays


@with_options(SurveyOptions, ModelOptions, ParallelOptions, TargetOptions)
def landscape(
    model: str | Path,
    *,
    options: tuple[SurveyOptions, ModelOptions, ParallelOptions, TargetOptions],
    inputs: "str | Path | Mapping[str, NDArray[np.generic]] | None" = None,
    store: str | Path | None = None,
    graph: str | int | None = None,
    any_name: bool = False,
    progress: "Callable[[LandscapeProgress], None] | None" = None,
) -> "ModelSurvey":
    """Measure how rugged the loss is around a model's own weights; see `docs/landscape.md`.

    Args:
        model: An ONNX file, or "package.module:factory" of a PyTorch module.
        inputs: The evaluation set by input name, or a file with it (.npz), in which `target` names the
            labels; probe inputs are made up by default.
        store: Keep the result there, beside the model's graph if it holds it.
        graph: The graph of the store that belongs to the model; by default the one of the same file.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        progress: Called at the start with an estimate of the time and after every piece.

    Raises:
        InvalidInputError: The model cannot be read or has no weights to move.
        UsageError: Inputs, targets, outputs and loss do not fit the model.
        LimitError: A limit was hit.

    Example:
        >>> landscape("model.onnx").survey.estimates()["excess_ruggedness"].mean  # doctest: +SKIP
    """
    from emergraph.analysis.engines.cluster import connected
    from emergraph.analysis.landscape.modelsurvey import survey_model
    from emergraph.analysis.landscape.saving import check_store, save_model_survey

    asked, how, parallel, target = options
    if store is not None:
        check_store(Path(store), graph)
        check_place(Path(store), may_make=True, any_name=any_name)
    elif graph is not None:
        raise UsageError("--graph names a graph of --store; give that, too")
    how = evaluation(how, _arrays(inputs) or how.inputs, target, parallel)
    with connected(parallel):
        found = survey_model(model, asked, how, checkpoint=parallel.resume, progress=progress)
    if store is not None:
        save_model_survey(Path(store), found, graph=graph, any_name=any_name)
    return found


def evaluation(
    how: ModelOptions,
    arrays: "Mapping[str, NDArray[np.generic]]",
    target: TargetOptions,
    parallel: ParallelOptions,
) -> ModelOptions:
    """Return the options of an evaluation with the arrays that it is on.

    Raises:
        UsageError: The target is not among the inputs.
    """
    from emergraph.analysis.engines.spread import Parallelism

    name, backend = target.target, parallel.backend
    if name is not None and name not in arrays:
        raise UsageError(unknown("--target", name, sorted(arrays)))
    labelled = how.loss is LossKind.AUTO and name is not None
    return replace(
        how,
        inputs={other: array for other, array in arrays.items() if other != name},
        targets=how.targets if name is None else arrays[name],
        loss=LossKind.CROSS_ENTROPY if labelled else how.loss,
        parallelism=how.parallelism
        if backend is Backend.LOCAL
        else Parallelism(backend=backend, n_jobs=parallel.jobs),
    )


@with_options(SequenceOptions, BlockOptions, EstimatorOptions)
def information(
    model: str | Path,
    sequences: "Sequences | str | Path | None" = None,
    *,
    options: tuple[SequenceOptions, BlockOptions, EstimatorOptions],
    store: str | Path | None = None,
    any_name: bool = False,
    root: str | Path | None = None,
    limits: "RunLimits | None" = None,
    progress: Progress | None = None,
) -> "ModelInformation":
    """Estimate the information emergence of a model's blocks; see `docs/information.md`.

    Args:
        model: An ONNX file, a folder in Hugging Face's layout, "package.module:factory", or recorded states.
        sequences: Ids, a line for each sequence, or an array in a file (.npz); or what
            `emergraph.entity_sequences` makes. None for recorded states, and with `text` or `entities`.
        store: Where to look for the model's graph, and to keep the result.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        root: Folder inside which files of the model may be symbolic links.
        limits: Limits of the process that runs the model.
        progress: Called with (sequences run, sequences in all).

    Raises:
        InvalidInputError: The model has no chain of blocks of equal width, or refuses the sequences.
        UsageError: An option does not make sense.
        LimitError: A limit was hit.

    Example:
        >>> information("model.onnx", "ids.txt").result.mean  # doctest: +SKIP
    """
    from emergraph.analysis.information.analysis import save_information
    from emergraph.analysis.information.model import InformationOptions, measure_model
    from emergraph.analysis.information.onnxstates import state_options
    from emergraph.analysis.information.sequences import chosen_sequences
    from emergraph.exporters.runtime.limits import RunLimits

    source, blocks, estimator = options
    if store is not None:
        check_place(Path(store), may_make=True, any_name=any_name)
    if sequences is None or isinstance(sequences, str | Path):
        source = replace(source, sequences=None if sequences is None else Path(sequences))
        sequences = chosen_sequences(source, estimator.seed)
    place = None if root is None else Path(root)
    run = state_options(blocks, limits=limits or RunLimits(), root=place)
    asked = InformationOptions(run=run, estimator=estimator)
    found = measure_model(model, sequences, store=store, options=asked, progress=progress)
    if store is not None:
        save_information(
            store,
            found.result,
            model=found.source,
            sha256=found.sha256,
            duration=found.seconds,
            any_name=any_name,
            **source.kept(),
            **blocks.kept(),
        )
    return found
