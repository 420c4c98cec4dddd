"""What the study trains: six groups of networks, and small ones for a quick check."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

LEVELS = (0.0, 0.3, 0.5, 0.7)
"""Shares of the weights that are pruned, as in the paper."""

ARMS: Mapping[str, tuple[float, float, float] | str] = {
    "low_uniform": "uniform",
    "medium_normal": "normal",
    "he": (1.0, 1.0, 1.0),
    "high_turn_2": (0.5, 1.0, 2.0),
    "high_turn_1": (1.0, 2.0, 4.0),
    "low_turn_2": (2.0, 1.0, 0.5),
    "low_turn_1": (1.0, 0.5, 0.25),
}
"""Initialisations of networks with three layers. `low_uniform` and `medium_normal` are the paper's (uniform
in [-0.01, 0.01], normal with deviation 0.01). The others multiply He's weights: `W_(t-k) / alpha^k` before
and `W_(t+k) * alpha^k` after turning point t, alpha = 2 (arXiv 2407.19044); the low ones the other way
round."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A group of networks that are trained together."""

    name: str
    data: str
    """mnist or digits."""
    kind: str
    """dense or conv."""
    sizes: tuple[int, ...] = ()
    """Units per layer of dense networks."""
    n_train: int | None = None
    """Images to learn from, the first ones; None: all."""
    n_seeds: int = 10
    seeds_at_once: int = 10
    """Seeds that are trained together; changes nothing but the time."""
    arms: bool = False
    """Compare initialisations from the start; else pruning levels after the baseline."""
    baseline_epochs: int = 5
    epochs: int = 30
    batch: int = 100
    rate: float = 0.01
    n_judged: int | None = None
    """Images of each part that losses and accuracies are taken on; None: all."""
    probe: int = 250
    """Validation images on which activity is measured, the first ones."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, kept beside the results so that a changed plan is run again."""
        return asdict(self)


SMALL, LARGE, TINY = (784, 32, 16, 10), (784, 64, 32, 10), (64, 32, 16, 10)

PLANS = (
    Plan(name="mnist-small", data="mnist", kind="dense", sizes=SMALL, batch=250, rate=0.025, seeds_at_once=2),
    Plan(name="mnist-large", data="mnist", kind="dense", sizes=LARGE, batch=250, rate=0.025, seeds_at_once=1),
    Plan(
        name="mnist-conv",
        data="mnist",
        kind="conv",
        n_train=10_000,
        batch=50,
        rate=0.05,
        seeds_at_once=2,
        n_judged=2000,
    ),
    Plan(
        name="digits",
        data="digits",
        kind="dense",
        sizes=TINY,
        n_seeds=20,
        seeds_at_once=20,
        batch=9,
        rate=0.02,
    ),
    Plan(
        name="mnist-init",
        data="mnist",
        kind="dense",
        sizes=SMALL,
        n_train=20_000,
        arms=True,
        epochs=10,
        seeds_at_once=2,
    ),
    Plan(
        name="digits-init",
        data="digits",
        kind="dense",
        sizes=TINY,
        n_seeds=20,
        seeds_at_once=20,
        arms=True,
        batch=9,
        rate=0.02,
    ),
)

QUICK = tuple(
    replace(
        plan,
        n_seeds=3,
        seeds_at_once=2,
        baseline_epochs=1,
        epochs=3,
        n_train=200,
        n_judged=200,
        probe=50,
        batch=20,
    )
    for plan in PLANS
    if plan.name in ("mnist-conv", "digits", "digits-init")
)
"""The same code in seconds; its numbers mean nothing."""
