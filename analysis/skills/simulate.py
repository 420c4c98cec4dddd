"""A two-layer network that learns multitask sparse parity, recorded skill by skill."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from emergraph.analysis.notebook import ShownInNotebooks
from emergraph.analysis.skills.closedforms import Floats, skill_frequencies
from emergraph.analysis.skills.options import SimulationOptions
from emergraph.errors import UsageError
from emergraph.exporters.pytorch.tensors import require_torch

# Multitask sparse parity: many skills, each the parity of a few bits of its own (arXiv 2404.17563).


@dataclass(frozen=True, kw_only=True, eq=False)
class ParityTasks:
    """The skills and where their bits are.

    An input is a one-hot control part, which says the skill, and `bits` random bits. Skill k's function is
    `g_k = (-1)^(sum of its m bits)` where the control part says k, else 0.
    """

    frequencies: Floats
    """(n_skills,) P(k)."""
    relevant: NDArray[np.int64]
    """(n_skills, m) places of each skill's bits."""
    bits: int

    @classmethod
    def make(cls, *, n_skills: int, alpha: float, bits: int, m: int, seed: int) -> "ParityTasks":
        """Draw which bits each skill looks at.

        Raises:
            UsageError: More relevant bits than bits.
        """
        if not 1 <= m <= bits:
            raise UsageError(f"parity of {m} of {bits} bits: expected 1 to {bits}")
        rng = np.random.default_rng([seed, 1])
        relevant = np.stack([rng.choice(bits, m, replace=False) for _ in range(n_skills)])
        return cls(frequencies=skill_frequencies(n_skills, alpha), relevant=relevant, bits=bits)

    @property
    def n_skills(self) -> int:
        """Skills."""
        return len(self.frequencies)

    @property
    def width(self) -> int:
        """Numbers of one input."""
        return self.n_skills + self.bits

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Draw inputs (n, width) with skills by their frequency, and g (n,) in {-1, 1}."""
        return self.of_skills(rng.choice(self.n_skills, n, p=self.frequencies), rng)

    def of_skills(
        self, skills: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Draw one input for each of these skills, counted from 0."""
        n = len(skills)
        bits = rng.integers(0, 2, (n, self.bits))
        x = np.zeros((n, self.width), np.float32)
        x[np.arange(n), skills] = 1
        x[:, self.n_skills :] = bits
        odd = np.take_along_axis(bits, self.relevant[skills], 1).sum(axis=1) % 2
        return x, (1 - 2 * odd).astype(np.float32)


Progress = Callable[[int, int], None]
PROBES = 256
"""Probe inputs of a recorded snapshot."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulation(ShownInNotebooks):
    """What was recorded."""

    options: SimulationOptions
    curves: pl.DataFrame
    """One row per recorded step and skill: run (the seed), step, skill, frequency, strength (R_k, the mean of
    f g_k over inputs of the skill), accuracy (share with the right sign), loss (of the step)."""
    snapshots: tuple[tuple[int, int], ...]
    """(step, graph id) of the snapshots in the store."""

    def to_dict(self) -> dict[str, object]:
        """Return everything as plain values."""
        return {
            **self.options.to_dict(),
            "seed": self.options.seed,
            "snapshots": [{"step": step, "graph": graph} for step, graph in self.snapshots],
            "curves": self.curves.to_dicts(),
        }


def simulate_parity(
    options: SimulationOptions | None = None,
    *,
    store: str | Path | None = None,
    name: str = "parity",
    any_name: bool = False,
    progress: Progress | None = None,
) -> Simulation:
    """Train `f(x) = v . relu(W x + b) + c` on multitask sparse parity and record every skill's strength.

    Plain gradient descent on 1/2 mean (f - S g)^2, fresh inputs in every step, weights drawn as torch does by
    default.

    Args:
        options: Task, network, training.
        store: Where snapshots go, through the Recorder: their graphs, activations on probe inputs, and as
            metrics loss and skill_1, skill_2, ...
        name: Name of the snapshots.
        any_name: Let a new store have a name that does not end in .duckdb or .db.
        progress: Called with (steps done, steps in all).

    Raises:
        UsageError: Snapshots are asked for without a store.
        MissingExtraError: torch is not installed.
    """
    options = options or SimulationOptions()
    if options.snapshots and store is None:
        raise UsageError("snapshots need a store: give --store STORE")
    torch = require_torch()
    tasks = ParityTasks.make(
        n_skills=options.n_skills,
        alpha=options.alpha,
        bits=options.bits,
        m=options.relevant,
        seed=options.seed,
    )
    rng = np.random.default_rng([options.seed, 2])
    probes = torch.as_tensor(tasks.draw(PROBES, rng)[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = torch.nn.Sequential(
            torch.nn.Linear(tasks.width, options.width), torch.nn.ReLU(), torch.nn.Linear(options.width, 1)
        )
    recorded = nullcontext(None)
    if options.snapshots:
        recorded = _recorder(net, str(store), probes, name, any_name=any_name)
    with recorded as recorder:
        return _train(torch, net, tasks, rng, options, recorder, progress)


def _recorder(net: Any, store: str, probes: Any, name: str, *, any_name: bool) -> Any:  # noqa: ANN401 - torch's
    from emergraph.exporters.pytorch.recorder import RecorderOptions, record

    return record(net, store, inputs=probes, name=name, options=RecorderOptions(any_name=any_name))


def _train(
    torch: Any,  # noqa: ANN401
    net: Any,  # noqa: ANN401
    tasks: ParityTasks,
    rng: np.random.Generator,
    options: SimulationOptions,
    recorder: Any,  # noqa: ANN401
    progress: Progress | None,
) -> Simulation:
    """The training loop: measure, take a snapshot where one is due, step."""
    optimiser = torch.optim.SGD(net.parameters(), lr=options.rate)
    measured = _spaced(options.steps, options.points)
    kept = _spaced(options.steps, options.snapshots)
    rows: list[dict[str, object]] = []
    snapshots: list[tuple[int, int]] = []
    fixed = [
        tasks.of_skills(np.full(options.evaluation, k), np.random.default_rng([options.seed, 3, k]))
        for k in range(tasks.n_skills)
    ]
    for step in range(options.steps + 1):
        x, g = (torch.as_tensor(values) for values in tasks.draw(options.batch, rng))
        loss = 0.5 * ((net(x)[:, 0] - options.target * g) ** 2).mean()
        if step in measured or step in kept:
            found = [_strength(torch, net, *pair) for pair in fixed]
            value = float(loss.detach())
            if step in measured:
                rows += _rows(step, found, value, tasks, options)
            if step in kept and recorder is not None:
                metrics = {f"skill_{k}": strength for k, (strength, _) in enumerate(found, start=1)}
                snapshots.append((step, recorder.step(step, loss=value, **metrics)))
        if step == options.steps:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if progress is not None and step % 50 == 0:
            progress(step, options.steps)
    return Simulation(options=options, curves=pl.DataFrame(rows), snapshots=tuple(snapshots))


def _spaced(steps: int, count: int) -> frozenset[int]:
    return frozenset(np.linspace(0, steps, count + 1).round().astype(int).tolist()) if count else frozenset()


def _strength(torch: Any, net: Any, x: Any, g: Any) -> tuple[float, float]:  # noqa: ANN401
    with torch.no_grad():
        f = net(torch.as_tensor(x))[:, 0].numpy()
    return float((f * g).mean()), float(((f > 0) == (g > 0)).mean())


def _rows(
    step: int,
    found: list[tuple[float, float]],
    loss: float,
    tasks: ParityTasks,
    options: SimulationOptions,
) -> list[dict[str, object]]:
    return [
        {
            "run": options.seed,
            "step": step,
            "skill": k,
            "frequency": float(tasks.frequencies[k - 1]),
            "strength": strength,
            "accuracy": accuracy,
            "loss": loss,
        }
        for k, (strength, accuracy) in enumerate(found, start=1)
    ]
