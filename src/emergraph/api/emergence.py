"""Path-count emergence of a graph."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from emergraph.api.handle import GraphHandle
from emergraph.errors import UsageError
from emergraph.options import member

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emergraph.analysis.activity.options import ActivityOptions, ActivityRule
    from emergraph.analysis.emergence.fullreport import EmergenceReport
    from emergraph.analysis.emergence.intervals import BootstrapResult
    from emergraph.analysis.emergence.options import ReportOptions
    from emergraph.analysis.emergence.positionrun import PositionReport
    from emergraph.analysis.emergence.result import EmergenceResult
    from emergraph.analysis.emergence.thresholds import ThresholdSweep
    from emergraph.analysis.modelruns.files import ModelFiles
    from emergraph.analysis.paths.options import EmergenceOptions
    from emergraph.analysis.paths.planning import CountPlan
    from emergraph.options import Options


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
        from emergraph.analysis.emergence.options import ExtentOptions

        activity = _activity(rule, threshold, trace, before)
        if activity.rule == "per_sample":
            raise UsageError("Rule 'per_sample' has an activity for each sample: call emergence_interval")
        found: EmergenceResult = self._counted(
            activity, ExtentOptions(reference=reference), options, save=save
        )
        return found

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
        from emergraph.analysis.emergence.options import ReportOptions

        grid = thresholds if isinstance(thresholds, int | str) else tuple(float(t) for t in thresholds)
        asked = ReportOptions(thresholds=grid)
        found: ThresholdSweep = self._counted(_activity(rule, None, trace, before), asked, options, save=save)
        return found

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
        from emergraph.analysis.emergence.options import ReportOptions

        drawn = ReportOptions(draws=draws, seed=seed)
        found: BootstrapResult = self._counted(_activity(rule, threshold, trace), drawn, options, save=save)
        return found

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
        from emergraph.analysis.emergence.options import ExtentOptions, ReportOptions

        report = report or ReportOptions()
        report = replace(report, nulls=report.null_kinds(runs_model=False))
        activity = _activity(rule, threshold, trace, before)
        extent = ExtentOptions(full=True, reference=reference)
        found: EmergenceReport = self._counted(activity, report, extent, options, save=save, files=files)
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
        from emergraph.analysis.emergence.options import ExtentOptions

        activity, extent = _activity(rule, threshold, trace), ExtentOptions(positions=True)
        found: PositionReport = self._counted(activity, extent, save=save, files=files)
        return found

    def _counted(self, *options: "Options | None", save: bool, files: "ModelFiles | None" = None) -> Any:  # noqa: ANN401 - one of five results
        from emergraph.analysis.access import carry_out
        from emergraph.analysis.registry import analysis_named

        given = [one for one in options if one is not None]
        return carry_out(analysis_named("emergence"), self.path, self.id, *given, save=save, files=files)


def _activity(
    rule: "ActivityRule | str",
    threshold: float | None,
    trace: str | int | None,
    before: str | int | None = None,
) -> "ActivityOptions":
    from emergraph.analysis.activity.options import ActivityOptions, ActivityRule

    which = member(ActivityRule, rule, "activity rule")
    return ActivityOptions(rule=which, threshold=threshold, trace=trace, before=before)
