"""Path-count emergence of a graph."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from emergraph.api.handle import GraphHandle
from emergraph.errors import UsageError
from emergraph.graphstore.store import open_store as open_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from emergraph.analysis.activity.options import ActivityRule
    from emergraph.analysis.activity.scores import ActivityScores
    from emergraph.analysis.emergence.fullreport import EmergenceReport
    from emergraph.analysis.emergence.intervals import BootstrapResult
    from emergraph.analysis.emergence.options import ReportOptions
    from emergraph.analysis.emergence.positionrun import PositionReport
    from emergraph.analysis.emergence.remeasure import ModelActivity
    from emergraph.analysis.emergence.result import EmergenceResult
    from emergraph.analysis.emergence.thresholds import ThresholdSweep
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.paths.options import EmergenceOptions
    from emergraph.analysis.paths.planning import CountPlan
    from emergraph.analysis.unitgraph import UnitGraph
    from emergraph.graphstore.store import StoreFile


@dataclass(frozen=True)
class GraphEmergence(GraphHandle):
    """Path-count emergence of a graph."""

    def emergence_plan(self, *, options: "EmergenceOptions | None" = None, cases: int = 1) -> "CountPlan":
        """Say what a count will take, from its size and a probe of this machine; nothing is counted.

        Args:
            options: Conventions of the count.
            cases: Activities that are counted at once, such as the thresholds of a sweep.
        """
        from emergraph.analysis.paths.options import EmergenceOptions
        from emergraph.analysis.paths.planning import plan_count
        from emergraph.analysis.storedgraph import read_unit_graph

        with self._reader() as reader:
            return plan_count(read_unit_graph(reader), options or EmergenceOptions(), cases=cases)

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
        from emergraph.analysis.emergence.pathcount import path_count_emergence, with_scale_free
        from emergraph.analysis.emergence.saving import save_emergence
        from emergraph.analysis.storedgraph import read_unit_trace

        with self._scores(rule, trace, save=save, before=before) as (store, graph, scores, about):
            removed = _removed(store, graph, reference, options)
            result = path_count_emergence(graph, scores.above(threshold), options=options, removed=removed)
            if "trace" in about:
                measured = read_unit_trace(store.graph(self.id), trace)
                result = with_scale_free(result, graph, scores.rule, measured)
            if save:
                save_emergence(store, self.id, result, reference=reference, **about)
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
                asked = thresholds if isinstance(thresholds, int | str) else [float(t) for t in thresholds]
                save_sweep(store, self.id, sweep, thresholds=asked, **about)
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
        """Count the paths over the samples of the trace: the interval of the mean, or the spread of E.

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
        from emergraph.analysis.paths.options import EmergenceOptions
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
                conventions = (options or EmergenceOptions()).to_dict()
                about = {"rule": str(rule), "trace": measured.name, "threshold": threshold, "draws": draws}
                save_intervals(opened, self.id, result, **conventions, **about)
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
        from emergraph.analysis.emergence.fullreport import full_report
        from emergraph.analysis.emergence.options import ReportOptions
        from emergraph.analysis.emergence.saving import save_report
        from emergraph.analysis.storedgraph import read_unit_trace

        report = report or ReportOptions()
        with self._scores(rule, trace, save=save, before=before) as (store, graph, scores, about):
            reader = store.graph(self.id)
            has_trace = trace is not None or reader.traces().height > 0

            def open_model() -> "ModelActivity":
                from emergraph.analysis.emergence.remeasure import ModelActivity

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
                kinds = [str(kind) for kind in report.null_kinds(runs_model=False)]
                asked = {"full": True, "threshold": threshold, "reference": reference, **report.to_dict()}
                ran = {} if files is None else files.kept()
                save_report(store, self.id, found, **{**about, **asked, "nulls": kinds, **ran})
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
        from emergraph.analysis.emergence.remeasure import trace_row
        from emergraph.analysis.emergence.saving import save_positions

        with open_file(self.path, mode="write" if save else "read") as opened:
            reader = opened.graph(self.id)
            report = position_report(reader, files, rule=rule, threshold=threshold, trace=trace)
            if save:
                save_positions(
                    opened, self.id, report, trace=trace_row(reader, trace)["name"], **files.kept()
                )
        return report

    @contextmanager
    def _scores(
        self,
        rule: "ActivityRule | str",
        trace: str | int | None,
        *,
        save: bool,
        before: str | int | None = None,
    ) -> "Iterator[tuple[StoreFile, UnitGraph, ActivityScores, dict[str, object]]]":
        from emergraph.analysis.activity.rules import activity_scores
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
    if reference is None:
        return None
    from emergraph.analysis.emergence.edgeform import removed_in_degree
    from emergraph.analysis.storedgraph import read_unit_graph

    dense = None if reference == "full" else read_unit_graph(store.graph(reference))
    return removed_in_degree(graph, dense, options=options)
