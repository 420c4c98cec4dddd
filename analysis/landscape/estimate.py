"""Mean of repeated measurements with its interval: what every statistic of a landscape is reported as."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from emergraph.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over repetitions (directions, walks, probes) with a two-sided Student-t interval."""

    mean: float
    low: float
    """Lower end of the interval; NaN when fewer than two repetitions are defined."""
    high: float
    sd: float
    """Standard deviation over repetitions (ddof 1); NaN for fewer than two."""
    n: int
    """Repetitions that gave a finite value."""
    n_undefined: int = 0
    """Repetitions for which the statistic does not exist (a flat walk has no correlation)."""
    level: float = 0.95
    """Coverage of the interval."""
    seed: int | None = None
    """Seed of the random draws behind the repetitions; None for deterministic ones."""
    null: float | None = None
    """Value under the null model that the statistic's docstring names; None where there is none."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields as a plain dictionary."""
        return plain(self)


def plain(result: object) -> dict[str, object]:
    """Return a result dataclass as nested plain values for JSON; None for what JSON cannot hold.

    Example:
        >>> plain(estimate([2.0]))["low"] is None
        True
    """
    if not is_dataclass(result) or isinstance(result, type):
        raise TypeError(f"expected an instance of a dataclass, found {type(result).__name__}")
    return {name: _plain_value(value) for name, value in asdict(result).items()}


def _plain_value(value: object) -> object:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(name): _plain_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def check_level(level: float) -> None:
    """Raise `UsageError` unless `level` is a coverage strictly between 0 and 1."""
    if not 0 < level < 1:
        raise UsageError(f"level: expected a coverage between 0 and 1, found {level}; use for example 0.95")


def estimate(
    values: ArrayLike, *, seed: int | None = None, null: float | None = None, level: float = 0.95
) -> Estimate:
    """Summarise repetitions: mean +- t_{n-1} s / sqrt(n).

    Args:
        values: One value per repetition; non-finite ones count as undefined.
        seed: Recorded, not used.
        null: Value under a null model, recorded beside the mean.
        level: Coverage of the interval.

    Returns:
        The estimate; its mean is NaN when no repetition is defined.

    Raises:
        UsageError: `level` is not strictly between 0 and 1.

    Example:
        >>> e = estimate([1.0, 2.0, 3.0])
        >>> e.mean, e.n, round(e.high - e.mean, 4)
        (2.0, 3, 2.4841)
    """
    check_level(level)
    array = np.asarray(values, dtype=np.float64).ravel()
    finite = array[np.isfinite(array)]
    n = int(finite.size)
    mean = float(finite.mean()) if n else float("nan")
    sd = float(finite.std(ddof=1)) if n > 1 else float("nan")
    half = float(stdtrit(n - 1, (1 + level) / 2) * sd / np.sqrt(n)) if n > 1 else float("nan")
    return Estimate(
        mean=mean,
        low=mean - half,
        high=mean + half,
        sd=sd,
        n=n,
        n_undefined=int(array.size) - n,
        level=level,
        seed=seed,
        null=null,
    )


def jackknife(
    statistic: Callable[[NDArray[np.float64]], float],
    groups: NDArray[np.float64],
    *,
    seed: int | None = None,
    null: float | None = None,
    level: float = 0.95,
) -> Estimate:
    """Interval of a statistic of pooled groups by leaving out one group at a time.

    s^2 = (n - 1)/n sum_i (T_{-i} - mean T_{-i})^2, interval T +- t_{n-1} s. The value is T of all groups
    pooled, for statistics whose value per group is biased (an autocorrelation centred by its own short walk).

    Args:
        statistic: Maps groups of shape (g, ...) to a number.
        groups: (n, ...) one entry per walk, direction or replicate.
        seed: Recorded, not used.
        null: Recorded beside the value.
        level: Coverage of the interval.

    Returns:
        The estimate; `sd` is s sqrt(n), comparable with the spread of single groups.

    Example:
        >>> round(jackknife(lambda g: float(g.mean()), np.array([[1.0], [2.0], [3.0]])).sd, 12)
        1.0
    """
    check_level(level)
    value = statistic(groups)
    n = len(groups)
    error = float("nan")
    if n > 1 and np.isfinite(value):
        left_out = np.array([statistic(np.delete(groups, i, axis=0)) for i in range(n)])
        error = float(np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2)))
    half = float(stdtrit(n - 1, (1 + level) / 2)) * error if n > 1 else float("nan")
    return Estimate(
        mean=value,
        low=value - half,
        high=value + half,
        sd=error * float(np.sqrt(n)),
        n=n if np.isfinite(value) else 0,
        n_undefined=0 if np.isfinite(value) else n,
        level=level,
        seed=seed,
        null=null,
    )
