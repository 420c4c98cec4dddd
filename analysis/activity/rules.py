"""Scores of any activity rule, whatever it needs."""

from emergraph.analysis.activity.contribution import contribution_scores
from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.scores import Activity, ActivityScores, rule_named, trace_scores
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.analysis.activity.weightchange import weight_change_scores
from emergraph.analysis.unitgraph import UnitGraph
from emergraph.errors import UsageError


def activity_scores(
    rule: ActivityRule | str,
    graph: UnitGraph,
    *,
    trace: UnitTrace | None = None,
    before: UnitGraph | None = None,
) -> ActivityScores:
    """Scores of the graph's units by a rule; a unit is active when its score is above the threshold.

    Args:
        rule: Any rule, see `ActivityRule`.
        graph: The graph.
        trace: Activations, for every rule but weight_change.
        before: An earlier snapshot of the same model, for weight_change.

    Raises:
        UsageError: What the rule needs is missing.
    """
    rule = rule_named(rule)
    if rule is ActivityRule.WEIGHT_CHANGE:
        if before is None:
            raise UsageError("Rule 'weight_change' compares two snapshots: give the earlier graph")
        return weight_change_scores(before, graph)
    if trace is None:
        raise UsageError(f"Rule '{rule}' needs activations: make a trace of the graph first")
    if rule is ActivityRule.CONTRIBUTION:
        return contribution_scores(graph, trace)
    return trace_scores(rule, trace)


def activity(
    rule: ActivityRule | str,
    graph: UnitGraph,
    *,
    threshold: float | None = None,
    trace: UnitTrace | None = None,
    before: UnitGraph | None = None,
) -> Activity:
    """Which units are active by a rule, at a threshold (default 0.05; 1 for contribution).

    Args:
        rule: Any rule, see `ActivityRule`.
        graph: The graph.
        threshold: Default: the rule's own.
        trace: Activations, for every rule but weight_change.
        before: An earlier snapshot of the same model, for weight_change.

    Raises:
        UsageError: What the rule needs is missing.
    """
    return activity_scores(rule, graph, trace=trace, before=before).above(threshold)
