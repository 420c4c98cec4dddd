"""Which units are active, as a user says it."""

from enum import StrEnum

from emergraph.optionforms import NAME_OR_ID
from emergraph.options import Options, option


class ActivityRule(StrEnum):
    """How a unit's activity is decided; all but the last two look only at the trace."""

    MEAN = "mean"
    """The mean over samples and positions is above the threshold."""
    MEAN_ABS = "mean_abs"
    """The mean absolute value over samples and positions is above the threshold."""
    ANY = "any"
    """Some sample is above the threshold at some position."""
    MAJORITY = "majority"
    """More than half of the samples are above the threshold, each by its mean over positions."""
    PER_SAMPLE = "per_sample"
    """Each sample has its own activity, by its mean over positions; emergence is counted for each."""
    CONTRIBUTION = "contribution"
    """The unit contributes more than threshold times the average to some target."""
    WEIGHT_CHANGE = "weight_change"
    """The unit's incoming weights changed by more than threshold times their norm between two snapshots."""


class RuleOptions(Options):
    """Which units are active."""

    rule: ActivityRule = option(
        default=ActivityRule.MEAN,
        help="mean, mean_abs, any, majority, contribution or weight_change.",
    )
    threshold: float | None = option(
        default=None, help="A unit is active above it.", default_text="0.05, for contribution 1"
    )


class ActivityOptions(RuleOptions):
    """Whose activity it is, and which units are active."""

    rule: ActivityRule = option(
        default=ActivityRule.MEAN,
        help="mean, mean_abs, any, majority, per_sample, contribution or weight_change.",
    )
    trace: str | int | None = option(
        default=None,
        help="The activation trace.",
        metavar="NAME|ID",
        default_text="the graph's newest",
        form=NAME_OR_ID,
    )
    before: str | int | None = option(
        default=None, help="The earlier snapshot, for weight_change.", metavar="NAME|ID", form=NAME_OR_ID
    )
