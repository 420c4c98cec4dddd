"""The Python API: a store and its graphs, opened only for as long as each call takes.

Nothing here holds a file open, so a notebook does not keep other programs from the store. Tables come back as
polars frames, results as frozen dataclasses with `to_dict()`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from emergraph.errors import LimitError, UsageError
from emergraph.graphstore.store import open_store as open_file

if TYPE_CHECKING:
    import igraph
    import networkx as nx
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from emergraph.analysis.emergence.activity import ActivityRule, ActivityScores
    from emergraph.analysis.emergence.fullreport import EmergenceReport, ReportOptions
    from emergraph.analysis.emergence.intervals import BootstrapResult
    from emergraph.analysis.emergence.options import EmergenceOptions
    from emergraph.analysis.emergence.positionrun import PositionReport
    from emergraph.analysis.emergence.result import EmergenceResult
    from emergraph.analysis.emergence.thresholds import ThresholdSweep
    from emergraph.analysis.emergence.trajectory import Trajectory, TrajectoryOptions
    from emergraph.analysis.information.model import ModelInformation
    from emergraph.analysis.information.model import ModelOptions as InformationOptions
    from emergraph.analysis.information.sequences import Sequences
    from emergraph.analysis.landscape.modelsurvey import ModelOptions, ModelSurvey
    from emergraph.analysis.landscape.options import SurveyOptions
    from emergraph.analysis.landscape.sweep import Progress as LandscapeProgress
    from emergraph.analysis.percolation.options import PercolationOptions
    from emergraph.analysis.percolation.result import PercolationResult
    from emergraph.analysis.pruning.gradients import ModuleData
    from emergraph.analysis.pruning.modelruns import ModelFiles
    from emergraph.analysis.pruning.options import PruningOptions
    from emergraph.analysis.pruning.sensitivity import SensitivityResult
    from emergraph.analysis.pruning.variants import Keeping
    from emergraph.analysis.pruning.whatif import PruningResult
    from emergraph.analysis.topology.options import TopologyOptions
    from emergraph.analysis.topology.topology import TopologyResult
    from emergraph.analysis.unitgraph import UnitGraph
    from emergraph.exporters.anymodel import SourceOptions
    from emergraph.exporters.export import ExportSummary
    from emergraph.exporters.runtime.limits import RunLimits
    from emergraph.exporters.traces.prepare import TraceOptions
    from emergraph.exporters.traces.record import TraceSummary
    from emergraph.exporters.traces.samples import RandomInputs
    from emergraph.graphstore.maintain import Compacted
    from emergraph.graphstore.query import QueryLimits
    from emergraph.graphstore.reader import GraphReader
    from emergraph.graphstore.records import EdgeKind
    from emergraph.graphstore.store import Store as StoreFile

Progress = Callable[[int, int], None]
"""Called with the work done and the work there is."""


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
    force: bool = False,
    limits: "RunLimits | None" = None,
    progress: Progress | None = None,
) -> "Graph":
    """Trace the units of a model and write its graph into a store.

    Args:
        model: An ONNX file, a weight file, a folder in Hugging Face's layout, "package.module:factory", or a
            PyTorch module or exported program itself.
        store: The store; it is made when it does not exist.
        name: Name of the graph; the file's stem or the module's class by default.
        args: Example inputs of a module, positional.
        kwargs: Example inputs of a module, by name.
        inputs: Values of inputs of the small run that decides shapes and branches.
        input_shapes: Shapes of such inputs.
        source: Wiring of a weight file, weights of a factory, where to keep the ONNX file of a module.
        force: Write the graph even if the store holds one of the same file and settings.
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
    from emergraph.exporters.anymodel import SourceOptions, export_any
    from emergraph.exporters.export import ExportOptions
    from emergraph.exporters.runtime.limits import RunLimits

    options = ExportOptions(
        name=name,
        inputs=inputs or {},
        input_shapes=input_shapes or {},
        force=force,
        run_limits=limits or RunLimits(),
    )
    with open_file(store, mode="create") as opened:
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


def landscape(
    model: str | Path,
    *,
    options: "SurveyOptions | None" = None,
    how: "ModelOptions | None" = None,
    store: str | Path | None = None,
    progress: "Callable[[LandscapeProgress], None] | None" = None,
) -> "ModelSurvey":
    """Measure how rugged the loss is around a model's own weights; see `docs/landscape.md`.

    Args:
        model: An ONNX file, or "package.module:factory" of a PyTorch module.
        options: What to measure, with the seed.
        how: On which inputs, with which loss, in what time.
        store: Keep the result there, beside the model's graph if it holds it.
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

    found = survey_model(model, options, how, progress=progress)
    if store is not None:
        save_model_survey(store, found)
    return found


def information(
    model: str | Path,
    sequences: "Sequences | None",
    *,
    options: "InformationOptions | None" = None,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> "ModelInformation":
    """Estimate the information emergence of a model's blocks; see `docs/information.md`.

    Args:
        model: An ONNX file, a folder in Hugging Face's layout, "package.module:factory", or recorded states.
        sequences: From `emergraph.analysis.information.sequences`; None for recorded states.
        options: Blocks, micro level, estimator.
        store: Where to look for the model's graph, and to keep the result.
        progress: Called with (sequences run, sequences in all).

    Raises:
        InvalidInputError: The model has no chain of blocks of equal width, or refuses the sequences.
        UsageError: An option does not make sense.
        LimitError: A limit was hit.

    Example:
        >>> information("model.onnx", read_sequences("ids.txt")).result.mean  # doctest: +SKIP
    """
    from emergraph.analysis.information.model import measure_model
    from emergraph.analysis.information.saving import save_information

    found = measure_model(model, sequences, store=store, options=options, progress=progress)
    if store is not None:
        save_information(store, found.result, model=found.source, sha256=found.sha256, duration=found.seconds)
    return found


def open_store(path: str | Path) -> "Store":
    """Return a store on disk; this is `emergraph.open`.

    Raises:
        InvalidInputError: There is no such file.
        StoreError: The file is locked, foreign, newer or damaged.
    """
    with open_file(path):
        return Store(Path(path))


@dataclass(frozen=True)
class Store:
    """A store on disk. Every call opens the file and closes it again."""

    path: Path

    @property
    def graphs(self) -> pl.DataFrame:
        """The table `graphs`, oldest first."""
        with open_file(self.path) as opened:
            return opened.graphs()

    def graph(self, name_or_id: str | int | None = None) -> "Graph":
        """Return one graph, the newest by default.

        Raises:
            UsageError: There is no such graph; the message names the closest ones.
        """
        with open_file(self.path) as opened:
            return Graph(self.path, opened.graph(name_or_id).id)

    def sql(self, query: str, *, limits: "QueryLimits | None" = None) -> pl.DataFrame:
        """Return the rows of one SELECT statement; it cannot write, and stops at its limits.

        Raises:
            UsageError: The SQL is wrong, or asks for what is not allowed.
            LimitError: A limit of time, memory or rows was hit.
        """
        from emergraph.graphstore.query import QueryLimits, run_query

        limits = limits or QueryLimits()
        result = run_query(self.path, query, limits=limits)
        if result.truncated:
            raise LimitError(f"more than {limits.rows} rows: raise the limit, or aggregate in SQL")
        return result.frame

    def trajectory(
        self,
        graphs: "Sequence[str]" = ("*",),
        *,
        rule: "ActivityRule | str" = "mean",
        threshold: float | None = None,
        options: "EmergenceOptions | None" = None,
        trajectory: "TrajectoryOptions | None" = None,
        save: bool = True,
    ) -> "Trajectory":
        """Follow emergence over the snapshots of a training run.

        Args:
            graphs: Names, ids or patterns (`mlp-*`) of snapshots; they are put in order of their step.
            rule: Any activity rule but per_sample; weight_change compares each snapshot with the one before.
            threshold: Default: the rule's own.
            options: Conventions of the count.
            trajectory: Metric, lags, permutations, patience.
            save: Keep the result in the store.

        Raises:
            UsageError: The graphs make no trajectory, lack a trace, or none has the metric.
        """
        from emergraph.analysis.emergence.storedtrajectory import save_trajectory, stored_trajectory

        with open_file(self.path, mode="write" if save else "read") as opened:
            result = stored_trajectory(
                opened, graphs, rule=rule, threshold=threshold, options=options, trajectory=trajectory
            )
            if save:
                save_trajectory(opened, result, rule=str(rule), threshold=threshold, graphs=list(graphs))
        return result

    def remove(self, name_or_id: str | int) -> str:
        """Take a graph with its traces and runs out of the store; return its name.

        Raises:
            UsageError: There is no such graph.
        """
        from emergraph.graphstore.maintain import remove_graph

        with open_file(self.path, mode="write") as opened:
            return remove_graph(opened, name_or_id)

    def merge(self, other: str | Path) -> dict[int, int]:
        """Copy all graphs of another store into this one; return their new ids by the old ones."""
        from emergraph.graphstore.maintain import merge

        with open_file(self.path, mode="write") as opened:
            return merge(opened, other)

    def compact(self) -> "Compacted":
        """Write the file anew, without the room that removed graphs have left in it."""
        from emergraph.graphstore.maintain import compact

        return compact(self.path)

    def _repr_html_(self) -> str:
        from emergraph.analysis.shown import html_of

        columns = ("id", "name", "source", "format", "n_layers", "n_units", "n_edges", "n_parameters")
        return html_of(f"Store {self.path.name}", {"graphs": self.graphs.select(columns).to_dicts()})

    @property
    def runs(self) -> pl.DataFrame:
        """The table `runs`: one row per run of an analysis, oldest first."""
        with open_file(self.path) as opened:
            return opened.runs()


@dataclass(frozen=True)
class Graph:
    """One graph of a store on disk. Every call opens the file and closes it again."""

    path: Path
    id: int
    export_summary: "ExportSummary | None" = None
    """What the export understood; only on the graph that `export` returns."""

    @contextmanager
    def _reader(self) -> "Iterator[GraphReader]":
        with open_file(self.path) as opened:
            yield opened.graph(self.id)

    @property
    def info(self) -> dict[str, Any]:
        """The row of the table `graphs`."""
        with self._reader() as reader:
            return dict(reader.summary)

    def _repr_html_(self) -> str:
        from emergraph.analysis.shown import html_of

        about = {name.removeprefix("n_").replace("_", " "): value for name, value in self.info.items()}
        columns = ("id", "name", "op", "kind", "n_units", "n_params")
        return html_of(f"Graph {self.name}", {**about, "layers": self.layers.select(columns).to_dicts()})

    @property
    def name(self) -> str:
        """Its name, unique within the store."""
        with self._reader() as reader:
            return reader.name

    @property
    def layers(self) -> pl.DataFrame:
        """One row per layer, in topological order."""
        with self._reader() as reader:
            return reader.layers()

    @property
    def units(self) -> pl.DataFrame:
        """One row per unit."""
        with self._reader() as reader:
            return reader.units()

    @property
    def blocks(self) -> pl.DataFrame:
        """One row per block of edges."""
        with self._reader() as reader:
            return reader.blocks()

    @property
    def tensors(self) -> pl.DataFrame:
        """One row per parameter tensor, without the values."""
        with self._reader() as reader:
            return reader.tensors()

    @property
    def operations(self) -> pl.DataFrame:
        """One row per operation of the model, as the tracer met it."""
        with self._reader() as reader:
            return reader.operations()

    @property
    def metrics(self) -> pl.DataFrame:
        """Numbers that were recorded about the graph, such as loss and accuracy: name and value."""
        with self._reader() as reader:
            return reader.metrics()

    @property
    def traces(self) -> pl.DataFrame:
        """One row per activation trace, oldest first."""
        with self._reader() as reader:
            return reader.traces()

    def activations(self, trace: str | int | None = None) -> pl.DataFrame:
        """Return one row per unit of a trace, the newest by default."""
        with self._reader() as reader:
            return reader.activations(trace)

    def edges(
        self, kinds: "Iterable[EdgeKind | str] | None" = None, layers: Iterable[int] | None = None
    ) -> pl.DataFrame:
        """Return one row per edge; 60 bytes each, so choose kinds or target layers where there are many."""
        with self._reader() as reader:
            return reader.edges(kinds, layers)

    def trace(
        self,
        samples: "str | Path | RandomInputs | Mapping[str, NDArray[np.generic]]",
        *,
        model: str | Path,
        options: "TraceOptions | None" = None,
        progress: Progress | None = None,
    ) -> "TraceSummary":
        """Run the model on samples and keep, for each unit, statistics and the first values.

        Args:
            samples: A file with one array per input name (.npz), such arrays, or `RandomInputs(n, seed)`.
            model: The file that the graph was exported from; its sha256 must be the graph's.
            options: Name, batches, axes, limits; see `TraceOptions`.
            progress: Called with (samples done, samples in all).

        Raises:
            InvalidInputError: The file is not the graph's model, or the samples do not fit it.
            LimitError: A limit of time or memory was hit; the store is as it was.
        """
        from emergraph.exporters.runtime.inputfile import read_input_file
        from emergraph.exporters.traces.record import record_trace

        given = read_input_file(samples) if isinstance(samples, str | Path) else samples
        with open_file(self.path, mode="write") as opened:
            return record_trace(opened, self.id, model, given, options=options, progress=progress)

    def import_trace(self, path: str | Path, *, name: str | None = None, keep: int = 1024) -> "TraceSummary":
        """Keep activations that were recorded elsewhere.

        Args:
            path: An .npz, .safetensors or Parquet file, one array per layer or tensor name, samples first.
            name: Name of the trace; the file's stem by default.
            keep: Most samples whose values are kept, the first ones.

        Raises:
            InvalidInputError: A name matches no layer, a shape does not fit, or arrays differ in samples.
        """
        from emergraph.exporters.traces.recorded import import_trace

        with open_file(self.path, mode="write") as opened:
            return import_trace(opened, self.id, path, name=name, n_values=keep)

    def emergence(
        self,
        *,
        threshold: float | None = None,
        rule: "ActivityRule | str" = "mean",
        trace: str | int | None = None,
        before: str | int | None = None,
        reference: str | int | None = None,
        options: "EmergenceOptions | None" = None,
        save: bool = True,
    ) -> "EmergenceResult":
        """Count the paths from inactive to active units (arXiv 2409.01568), for both interiors.

        Args:
            threshold: A unit is active above it; default: 0.05, or 1 for rule contribution.
            rule: mean, mean_abs, any, majority, contribution or weight_change; see `ActivityRule`.
            trace: Name or id of the activation trace; default: the newest.
            before: For weight_change: name or id of the earlier snapshot in the same store.
            reference: For the edge form: name or id of the graph before pruning; "full": every block that
                is a matrix, with all its entries.
            options: Conventions of the count.
            save: Keep the result in the store.

        Raises:
            UsageError: The graph has no such trace, or an option does not make sense.
        """
        from emergraph.analysis.emergence.pathcount import path_count_emergence
        from emergraph.analysis.emergence.saving import save_emergence

        with self._scores(rule, trace, save=save, before=before) as (store, graph, scores, about):
            removed = _removed(store, graph, reference, options)
            result = path_count_emergence(graph, scores.above(threshold), options=options, removed=removed)
            if save:
                save_emergence(store, self.id, result, **about)
        return result

    def emergence_sweep(
        self,
        thresholds: "Sequence[float] | int | Literal['all']" = 100,
        *,
        rule: "ActivityRule | str" = "mean",
        trace: str | int | None = None,
        before: str | int | None = None,
        options: "EmergenceOptions | None" = None,
        save: bool = True,
    ) -> "ThresholdSweep":
        """Count the paths at many thresholds.

        Args:
            thresholds: Numbers; or how many to choose, following the distribution of the activity; or "all"
                for every value where a unit changes between active and inactive.
            rule: As in `emergence`; with per_sample the counts are means over samples.
            trace: As in `emergence`.
            before: As in `emergence`.
            options: Conventions of the count.
            save: Keep the result in the store.

        Raises:
            UsageError: The graph has no such trace, or an option does not make sense.
        """
        from emergraph.analysis.emergence.saving import save_sweep
        from emergraph.analysis.emergence.thresholds import default_thresholds, threshold_sweep

        with self._scores(rule, trace, save=save, before=before) as (store, graph, scores, about):
            grid = default_thresholds(scores, n=thresholds) if isinstance(thresholds, int) else thresholds
            sweep = threshold_sweep(graph, scores, grid, options=options)
            if save:
                save_sweep(store, self.id, sweep, **about)
        return sweep

    def emergence_interval(
        self,
        *,
        threshold: float | None = None,
        rule: "ActivityRule | str" = "mean",
        trace: str | int | None = None,
        options: "EmergenceOptions | None" = None,
        draws: int = 200,
        seed: int = 0,
        save: bool = True,
    ) -> "BootstrapResult":
        """Count the paths with a bootstrap interval over the samples of the trace.

        Args:
            threshold: As in `emergence`.
            rule: As in `emergence`; with per_sample, E is the mean over samples.
            trace: As in `emergence`; it must keep per-sample values.
            options: Conventions of the count.
            draws: How often samples are drawn with replacement.
            seed: Seed of the draws.
            save: Keep the result in the store.

        Raises:
            UsageError: The graph has no such trace, or an option does not make sense.
        """
        from emergraph.analysis.emergence.intervals import bootstrap_emergence
        from emergraph.analysis.emergence.saving import save_intervals
        from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace

        with open_file(self.path, mode="write" if save else "read") as opened:
            reader = opened.graph(self.id)
            measured = read_unit_trace(reader, trace)
            result = bootstrap_emergence(
                read_unit_graph(reader),
                measured,
                rule,
                threshold=threshold,
                options=options,
                n_draws=draws,
                seed=seed,
            )
            if save:
                save_intervals(opened, self.id, result, rule=str(rule), trace=measured.name)
        return result

    def emergence_report(  # noqa: PLR0913 - the options of one call, all by keyword
        self,
        *,
        threshold: float | None = None,
        rule: "ActivityRule | str" = "mean",
        trace: str | int | None = None,
        before: str | int | None = None,
        reference: str | int | None = None,
        options: "EmergenceOptions | None" = None,
        report: "ReportOptions | None" = None,
        files: "ModelFiles | None" = None,
        save: bool = True,
    ) -> "EmergenceReport":
        """Count the paths, with sweep, bootstrap interval, null models and baselines, in one call.

        Args:
            threshold: As in `emergence`.
            rule: As in `emergence`.
            trace: As in `emergence`.
            before: As in `emergence`.
            reference: As in `emergence`.
            options: Conventions of the count.
            report: How many thresholds and draws, and which null models.
            files: The model and the inputs of the trace: null models of weights then measure the activity
                again by running the model with the drawn weights.
            save: Keep the result in the store.

        Raises:
            UsageError: The graph has no such trace, or an option does not make sense.
            InvalidInputError: The model is not the graph's, or the inputs are not the trace's.
        """
        from emergraph.analysis.emergence.fullreport import ReportOptions, full_report
        from emergraph.analysis.emergence.remeasure import ModelActivity
        from emergraph.analysis.emergence.saving import save_report
        from emergraph.analysis.storedgraph import read_unit_trace

        report = report or ReportOptions()
        with self._scores(rule, trace, save=save, before=before) as (store, graph, scores, about):
            reader = store.graph(self.id)
            has_trace = trace is not None or reader.traces().height > 0

            def open_model() -> ModelActivity:
                if files is None:
                    raise UsageError("null models of weights that run the model need its file")
                return ModelActivity(reader, graph, files, trace=trace, rule=rule, threshold=threshold)

            found = full_report(
                graph,
                scores,
                trace=read_unit_trace(reader, trace) if has_trace else None,
                threshold=threshold,
                options=options,
                report=report,
                removed=_removed(store, graph, reference, options),
                open_model=None if files is None else open_model,
            )
            if save:
                save_report(store, self.id, found, seed=report.seed, threshold=threshold, **about)
        return found

    def emergence_positions(
        self,
        files: "ModelFiles",
        *,
        threshold: float | None = None,
        rule: "ActivityRule | str" = "mean",
        trace: str | int | None = None,
        save: bool = True,
    ) -> "PositionReport":
        """Count paths between all positions of a convolutional network, beside those between channels.

        The model runs on the inputs of the trace, since a trace keeps one number per channel.

        Args:
            files: The model, and the inputs of the trace unless they were random.
            threshold: As in `emergence`.
            rule: mean, mean_abs, any or majority, over samples at each position.
            trace: As in `emergence`.
            save: Keep the counts in the store.

        Raises:
            InvalidInputError: The model is not the graph's.
            UsageError: Positions cannot be followed through the model.
            LimitError: Counts are beyond float64, or the model hit a limit.
        """
        from emergraph.analysis.emergence.positionrun import position_report
        from emergraph.analysis.emergence.saving import save_positions

        with open_file(self.path, mode="write" if save else "read") as opened:
            reader = opened.graph(self.id)
            report = position_report(reader, files, rule=rule, threshold=threshold, trace=trace)
            if save:
                save_positions(opened, self.id, report, trace=trace)
        return report

    def prune(
        self,
        options: "PruningOptions | None" = None,
        *,
        trace: str | int | None = None,
        rule: "ActivityRule | str" = "mean",
        threshold: float | None = None,
        save: bool = True,
        files: "ModelFiles | ModuleData | None" = None,
        write: "str | Path | Keeping | None" = None,
    ) -> "PruningResult":
        """Say what pruning the model would do, at many levels; the graph stays as it is.

        Args:
            options: Criterion, levels, scope and unit, or a predicate in SQL; see `PruningOptions`.
            trace: Name or id of the activation trace for E and for criteria that need one; default: the
                newest, if there is one.
            rule: Activity rule of E, as in `emergence`, but for per_sample.
            threshold: As in `emergence`.
            save: Keep the table in the store.
            files: The model and inputs to run the pruned models on, with labels; or a `gradients.ModuleData`
                for criteria snip, taylor and gate, which then is not run.
            write: Write the pruned model of the one level there; needs `files`. A `variants.Keeping` says
                more: a smaller or a masked model, and a name to store its graph under.

        Raises:
            UsageError: An option does not make sense for the graph, a trace is missing, or a predicate is
                wrong or matches nothing.
            InvalidInputError: The model is not the graph's, or the inputs do not fit it.
        """
        from emergraph.analysis.pruning.gradients import ModuleData
        from emergraph.analysis.pruning.options import PruningOptions
        from emergraph.analysis.pruning.saving import save_pruning
        from emergraph.analysis.pruning.storedwhatif import ActivityChoice, pick, prune_stored
        from emergraph.analysis.pruning.variants import Keeping, keep_variant

        options = options or PruningOptions()
        keeping = write if isinstance(write, Keeping) else Keeping(write=Path(write) if write else None)
        gradients, files = (files, None) if isinstance(files, ModuleData) else (None, files)
        keeping.check(options, files)
        choice = ActivityChoice(trace=trace, rule=str(rule), threshold=threshold)
        picked = None
        if options.where is not None:
            with self._reader() as reader:
                trace_id = choice.trace_id(reader)
            picked = pick(self.path, self.id, options, trace_id)
        with open_file(self.path, mode="write" if save or keeping.graph else "read") as opened:
            reader = opened.graph(self.id)
            result = prune_stored(
                reader, options, activity=choice, picked=picked, files=files, gradients=gradients
            )
            result = keep_variant(opened, self.id, result, keeping, files)
            if save:
                save_pruning(
                    opened, self.id, result, trace=choice.trace, rule=choice.rule, threshold=threshold
                )
        return result

    def prune_sensitivity(
        self,
        options: "PruningOptions | None" = None,
        *,
        trace: str | int | None = None,
        save: bool = True,
        files: "ModelFiles | ModuleData | None" = None,
    ) -> "SensitivityResult":
        """Prune each layer alone, at every level; the graph stays as it is.

        Args:
            options: Criterion, levels and unit; default: magnitude at 10, 30, 50, 70 and 90 %.
            trace: Name or id of the activation trace for criteria that need one; default: the newest.
            save: Keep the table in the store.
            files: The model and inputs to run every pruned model on, with labels; or a `gradients.ModuleData`
                for criteria snip, taylor and gate.

        Raises:
            UsageError: The criterion does not rank what is in a layer, or its trace is missing.
            InvalidInputError: The model is not the graph's, or the inputs do not fit it.
        """
        from emergraph.analysis.pruning.gradients import ModuleData
        from emergraph.analysis.pruning.options import PruningOptions
        from emergraph.analysis.pruning.saving import save_sensitivity
        from emergraph.analysis.pruning.sensitivity import SENSITIVITY_LEVELS
        from emergraph.analysis.pruning.storedwhatif import sensitivity_stored

        options = options or PruningOptions(levels=SENSITIVITY_LEVELS)
        gradients, files = (files, None) if isinstance(files, ModuleData) else (None, files)
        with open_file(self.path, mode="write" if save else "read") as opened:
            result = sensitivity_stored(
                opened.graph(self.id), options, trace=trace, files=files, gradients=gradients
            )
            if save:
                save_sensitivity(opened, self.id, result, trace=trace)
        return result

    def percolation(
        self,
        order: str = "weight",
        *,
        trace: str | int | None = None,
        options: "PercolationOptions | None" = None,
        save: bool = True,
    ) -> "PercolationResult":
        """Add the edges one by one and follow the components (percolation, arXiv 2408.12578).

        Args:
            order: weight, random, degree or activity; or an SQL expression over the columns of `edges`,
                whose largest value comes first, such as "l2".
            trace: For activity: name or id of the activation trace; default: the newest.
            options: Kinds of edges, seeds, null models.
            save: Keep the result in the store.

        Raises:
            UsageError: The expression is wrong, the trace is missing, or no edge has parameters.
            LimitError: A limit of time or memory was hit.
        """
        from emergraph.analysis.percolation.options import OrderName, PercolationOptions
        from emergraph.analysis.percolation.percolate import percolate
        from emergraph.analysis.percolation.saving import save_percolation
        from emergraph.analysis.percolation.sqlkeys import sql_keys
        from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace

        options = options or PercolationOptions()
        named = order in set(OrderName)
        keys = None if named else sql_keys(self.path, self.id, order, kinds=options.kinds)
        with open_file(self.path, mode="write" if save else "read") as opened:
            reader = opened.graph(self.id)
            measured = read_unit_trace(reader, trace) if order == OrderName.ACTIVITY else None
            result = percolate(read_unit_graph(reader), order, keys=keys, trace=measured, options=options)
            if save:
                save_percolation(opened, self.id, result, trace=measured.name if measured else None)
        return result

    def topology(self, *, options: "TopologyOptions | None" = None, save: bool = True) -> "TopologyResult":
        """Measure strengths, communities, cores, centralities, backbone, motifs and spectra.

        Args:
            options: Kinds of edges, level of the backbone, limits.
            save: Keep the result in the store; the table `topology_units` joins with `units`.

        Raises:
            UsageError: An option makes no sense.
            LimitError: More edges than memory is meant for.
        """
        from emergraph.analysis.topology.measure import measure_topology
        from emergraph.analysis.topology.saving import save_topology

        with open_file(self.path, mode="write" if save else "read") as opened:
            result = measure_topology(opened.graph(self.id), options=options)
            if save:
                save_topology(opened, self.id, result)
        return result

    def to_igraph(self, *, max_edges: int = 20_000_000) -> "igraph.Graph":
        """Return the unit graph for igraph, with vertex and edge attributes.

        Raises:
            LimitError: There are more edges than the limit.
        """
        from emergraph.analysis.topology.conversions import to_igraph

        with self._reader() as reader:
            return to_igraph(reader, max_edges=max_edges)

    def to_networkx(self, *, max_edges: int = 1_000_000) -> "nx.MultiDiGraph":
        """Return the unit graph for networkx, which takes about 1 kB per edge.

        Raises:
            LimitError: There are more edges than the limit.
            MissingExtraError: networkx is not installed.
        """
        from emergraph.analysis.topology.conversions import to_networkx

        with self._reader() as reader:
            return to_networkx(reader, max_edges=max_edges)

    def convert(self, target: str | Path, to: str, *, max_edges: int | None = None) -> int:
        """Write the unit graph as graphml, parquet (edges and units, in a folder) or edgelist.

        Args:
            target: File to write; for parquet a folder. It must not exist.
            to: graphml, parquet or edgelist.
            max_edges: Most edges; by default 5 M for graphml, no limit for the others.

        Returns:
            Number of edges written.

        Raises:
            UsageError: The format is unknown, or the target exists.
            LimitError: There are more edges than the limit.
        """
        from emergraph.analysis.topology.conversions import convert

        with self._reader() as reader:
            return convert(reader, Path(target), to, max_edges=max_edges)

    @contextmanager
    def _scores(
        self,
        rule: "ActivityRule | str",
        trace: str | int | None,
        *,
        save: bool,
        before: str | int | None = None,
    ) -> "Iterator[tuple[StoreFile, UnitGraph, ActivityScores, dict[str, object]]]":
        from emergraph.analysis.emergence.rules import activity_scores
        from emergraph.analysis.storedgraph import read_unit_graph, read_unit_trace

        with open_file(self.path, mode="write" if save else "read") as opened:
            reader = opened.graph(self.id)
            graph = read_unit_graph(reader)
            about: dict[str, object] = {"rule": str(rule)}
            if str(rule) == "weight_change":
                if before is None:
                    raise UsageError("Rule 'weight_change' compares two snapshots: name the earlier graph")
                earlier = read_unit_graph(opened.graph(before))
                yield opened, graph, activity_scores(rule, graph, before=earlier), about | {"before": before}
                return
            if before is not None:
                raise UsageError(f"Rule '{rule}' looks at one graph: an earlier one is for weight_change")
            measured = read_unit_trace(reader, trace)
            scores = activity_scores(rule, graph, trace=measured)
            yield opened, graph, scores, about | {"trace": measured.name}


def _removed(
    store: "StoreFile",
    graph: "UnitGraph",
    reference: str | int | None,
    options: "EmergenceOptions | None",
) -> "NDArray[np.float64] | None":
    """What pruning removed, for the edge form; None where no reference is named."""
    from emergraph.analysis.emergence.edgeform import removed_in_degree
    from emergraph.analysis.storedgraph import read_unit_graph

    if reference is None:
        return None
    dense = None if reference == "full" else read_unit_graph(store.graph(reference))
    return removed_in_degree(graph, dense, options=options)
