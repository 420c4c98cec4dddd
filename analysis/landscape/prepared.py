"""A model that is ready to be surveyed, whatever it was read from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emergraph.analysis.landscape.evaluator import Weights
from emergraph.analysis.landscape.optima import WithOutputs

if TYPE_CHECKING:
    from emergraph.analysis.landscape.curvature import Curved


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Another set of weights of the same model."""

    name: str
    """File name without folders."""
    weights: Weights


@dataclass(frozen=True, kw_only=True)
class Between:
    """What lines and runs are measured with: all weights of the model vary, biases included."""

    evaluator: WithOutputs
    read: Callable[[Path], Checkpoint]
    """Reads another checkpoint; refuses one that does not fit."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A model, its evaluation set, and ways to go on from it."""

    source: str
    """File name without folders, or the name of the factory."""
    sha256: str | None
    """Of the file; None for a module without a weight file."""
    samples: int
    probes_seed: int | None
    """Seed of synthetic inputs; None for given ones."""
    evaluator: WithOutputs
    seconds: float
    """That one evaluation took."""
    between: Callable[[], Between]
    """Made when it is needed: it costs another session."""
    curved: "Curved | None" = None
    """The evaluator again, where it has gradients and Hessians."""
    alternatives: tuple[tuple[str, WithOutputs], ...] = ()
    """Other engines for the same losses by name, to be tried against each other."""
    notes: tuple[str, ...] = ()
