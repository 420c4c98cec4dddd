"""Which units are active: rules that give each unit a score; it is active when above a threshold.

The paper's rule is "activation after the nonlinearity above 0.05" (arXiv 2409.01568); how samples are put
together it does not say, so every reading has a name here and a report says which one it used.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emergraph.analysis.activity.options import ActivityRule
from emergraph.analysis.activity.unittrace import UnitTrace
from emergraph.errors import UsageError
from emergraph.options import member

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


DEFAULT_THRESHOLD = 0.05
"""The paper's threshold."""
DEFAULT_CONTRIBUTION_THRESHOLD = 1.0
"""Above the average contributor."""


@dataclass(frozen=True, kw_only=True)
class ActivityScores:
    """One number per unit (or per unit and sample) that a threshold turns into activity."""

    values: Floats
    """(n_units,), or (n_units, n_samples) for per_sample; NaN where not known."""
    rule: ActivityRule
    text: str
    """The rule as a sentence with `{t}` where the threshold goes."""
    default_threshold: float = DEFAULT_THRESHOLD

    @property
    def known(self) -> Bools:
        """(n_units,) whether the unit's score is known."""
        samples = tuple(range(1, self.values.ndim))
        return np.asarray(~np.isnan(self.values).any(axis=samples), dtype=bool)

    def above(self, threshold: float | None = None) -> "Activity":
        """Activity at a threshold (default: the rule's own)."""
        chosen = self.default_threshold if threshold is None else float(threshold)
        if np.isnan(chosen):
            raise UsageError("The threshold must be a number, got NaN")
        with np.errstate(invalid="ignore"):
            active = self.values > chosen
        return Activity(
            active=active,
            known=self.known,
            rule=self.rule,
            threshold=chosen,
            text=self.text.replace("{t}", f"{chosen:g}"),
        )


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Which units are active, and how that was decided."""

    active: Bools
    """(n_units,), or (n_units, n_samples) for per_sample; False where not known."""
    known: Bools
    """(n_units,) whether the unit's activity is known."""
    rule: ActivityRule | None
    """None for activity that was given."""
    threshold: float | None
    text: str

    @classmethod
    def given(cls, active: NDArray[np.bool_], known: NDArray[np.bool_] | None = None) -> "Activity":
        """Activity that was decided elsewhere; `known` defaults to all."""
        active = np.asarray(active, dtype=bool)
        return cls(
            active=active,
            known=np.ones(len(active), dtype=bool) if known is None else np.asarray(known, dtype=bool),
            rule=None,
            threshold=None,
            text="as given",
        )


def trace_scores(rule: ActivityRule | str, trace: UnitTrace) -> ActivityScores:
    """Scores of the rules that look only at a trace.

    Args:
        rule: mean, mean_abs, any, majority or per_sample.
        trace: Activations; majority and per_sample need the per-sample values.

    Raises:
        UsageError: The rule needs more than a trace, or the trace lacks what it needs.

    Example:
        >>> trace = UnitTrace.from_samples(np.array([[0.0, 1.0], [0.2, -1.0]]))
        >>> trace_scores("mean", trace).above(0.05).active.tolist()
        [True, False]
    """
    rule = rule_named(rule)
    if rule is ActivityRule.MEAN:
        return ActivityScores(
            values=trace.statistic("mean"), rule=rule, text=f"mean over {trace.text} > {{t}}"
        )
    if rule is ActivityRule.MEAN_ABS:
        return ActivityScores(
            values=trace.statistic("mean_abs"),
            rule=rule,
            text=f"mean absolute value over {trace.text} > {{t}}",
        )
    if rule is ActivityRule.ANY:
        return ActivityScores(values=trace.statistic("max"), rule=rule, text=f"some of {trace.text} > {{t}}")
    if rule is ActivityRule.MAJORITY:
        return ActivityScores(
            values=majority_value(trace.kept(rule).astype(np.float64)),
            rule=rule,
            text=f"more than half of {trace.kept_text} > {{t}}",
        )
    if rule is ActivityRule.PER_SAMPLE:
        return ActivityScores(
            values=trace.kept(rule).astype(np.float64).T,
            rule=rule,
            text=f"each of {trace.kept_text} by itself > {{t}}",
        )
    raise UsageError(f"Rule '{rule}' needs weights: use contribution_scores or weight_change_scores")


def majority_value(samples: Floats) -> Floats:
    """The value that more than half of the samples reach: the (n // 2 + 1)-th largest.

    More than half of n samples are above t exactly when this value is.

    Args:
        samples: (n_samples, n_units).

    Returns:
        (n_units,).
    """
    n = len(samples)
    from_below = n - (n // 2 + 1)
    # NaN sorts last, so a unit with some NaN would get a wrong value instead of none.
    value = np.partition(samples, from_below, axis=0)[from_below]
    return np.where(np.isnan(samples).any(axis=0), np.nan, value)


def rule_named(rule: ActivityRule | str) -> ActivityRule:
    """The rule with this name.

    Raises:
        UsageError: There is none.
    """
    return member(ActivityRule, rule, "activity rule")
