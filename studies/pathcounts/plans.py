"""What the study trains: ten groups of networks, and small ones for a quick check."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

LEVELS = (0.0, 0.3, 0.5, 0.7)
"""Shares of the weights that are pruned, as in the paper."""

ARMS: Mapping[str, tuple[float, float, float] | str] = {
    "low_uniform": "uniform 0.01",
    "medium_normal": "normal 0.01",
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

SCHEMES: Mapping[str, tuple[float, float, float] | str] = {
    **{
        "-".join(f"{factor:g}" for factor in factors): factors
        for factors in (
            *((scale, scale, scale) for scale in (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)),
            *((0.5, 1.0, 2.0), (1.0, 2.0, 4.0), (0.25, 1.0, 4.0), (0.7, 1.0, 1.4)),
            *((2.0, 1.0, 0.5), (1.0, 0.5, 0.25), (4.0, 1.0, 0.25), (1.4, 1.0, 0.7)),
            *((1.0, 2.0, 1.0), (1.0, 0.5, 1.0), (2.0, 0.5, 1.0), (0.5, 2.0, 1.0), (1.0, 0.5, 2.0)),
            (1.0, 2.0, 0.5),
        )
    },
    **{f"uniform {half:g}": f"uniform {half:g}" for half in (0.01, 0.075)},
    **{f"normal {deviation:g}": f"normal {deviation:g}" for deviation in (0.01, 0.048)},
    "he uniform": "he uniform",
    "orthogonal": "orthogonal",
}
"""Many initialisations, so that they can be the replicates: He's weights times a factor per layer; the
paper's four (uniform in +-0.01 and normal with deviation 0.01 for small networks, 0.075 and 0.048 for
large ones); uniform weights of He's variance; and matrices of orthonormal columns or rows times sqrt 2."""


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
    many: bool = False
    """Compare `SCHEMES` instead of `ARMS`, and count E at the start and at the end only."""

    @property
    def initialisations(self) -> Mapping[str, tuple[float, float, float] | str]:
        """By name, what is done with He's draw."""
        return SCHEMES if self.many else ARMS

    def to_dict(self) -> dict[str, Any]:
        """Plain values, kept beside the results so that a changed plan is run again."""
        return asdict(self)


SMALL, LARGE, TINY = (784, 32, 16, 10), (784, 64, 32, 10), (64, 32, 16, 10)
_MANY = Plan(
    name="digits-schemes", data="digits", kind="dense", sizes=TINY, n_seeds=5, seeds_at_once=5, arms=True,
    many=True, epochs=20, batch=9, rate=0.02,
)  # fmt: skip

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
    Plan(
        name="mnist-again",
        data="mnist",
        kind="dense",
        sizes=SMALL,
        n_train=5000,
        n_judged=1000,
        batch=50,
        rate=0.05,
        seeds_at_once=5,
    ),
    _MANY,
    replace(
        _MANY,
        name="mnist-schemes",
        data="mnist",
        sizes=SMALL,
        n_seeds=3,
        n_train=3000,
        n_judged=1000,
        epochs=10,
        batch=50,
        rate=0.05,
        seeds_at_once=1,
    ),
    replace(
        _MANY,
        name="mnist-schemes-large",
        data="mnist",
        sizes=(784, 128, 64, 10),
        n_train=3000,
        n_judged=1000,
        n_seeds=3,
        epochs=10,
        batch=50,
        rate=0.05,
        seeds_at_once=1,
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
