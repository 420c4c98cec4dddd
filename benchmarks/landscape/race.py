"""Run contestants in interleaved rounds, so that a busy moment of the machine hits all of them alike."""

import itertools
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

HERE = Path(__file__).parent
SIZES = (64, 128, 128, 10)
SAMPLES = 1024


@dataclass
class Contestant:
    """A running contestant."""

    name: str
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, name: str, python: str, script: str, work: Path) -> Self:
        """Start a script of this folder with an interpreter and wait until it is ready."""
        process = subprocess.Popen(
            [python, str(HERE / script), str(work)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        contestant = cls(name, process)
        if contestant._line() != "ready":
            raise SystemExit(f"{name} did not start; run {python} {script} {work} to see why")
        return contestant

    def _line(self) -> str:
        return (self.process.stdout.readline() if self.process.stdout else "").strip()

    def run(self) -> dict[str, float]:
        """One run."""
        if self.process.stdin is None:
            raise RuntimeError(self.name)
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self._line())
        return answer

    def stop(self) -> None:
        """Let the process end."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


def race(contestants: Sequence[Contestant], rounds: Mapping[str, int]) -> dict[str, list[dict[str, float]]]:
    """Run every contestant in turn; slow ones take part in fewer rounds."""
    results: dict[str, list[dict[str, float]]] = {c.name: [] for c in contestants}
    for number in range(max(rounds.values())):
        for contestant in contestants:
            if number < rounds[contestant.name]:
                results[contestant.name].append(contestant.run())
    return results


def summary(results: Sequence[Mapping[str, float]], key: str) -> str:
    """Minimum, median and maximum of one figure, in seconds."""
    values = np.array([result[key] for result in results])
    return f"{values.min():9.4f} {np.median(values):9.4f} {values.max():9.4f}"


def train_mlp(threads: int, *, steps: int) -> dict[str, np.ndarray]:
    """Train the race's MLP for some Adam steps on separable random data."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    x = torch.randn(SAMPLES, SIZES[0])
    labels = (x @ torch.randn(SIZES[0], SIZES[-1])).argmax(dim=1)
    layers: list[torch.nn.Module] = []
    for a, b in itertools.pairwise(SIZES):
        layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(x), labels).backward()
        optimiser.step()
    weights = torch.nn.utils.parameters_to_vector(net.parameters()).detach().numpy()
    return {
        "weights": weights,
        "x": x.numpy(),
        "labels": labels.numpy(),
        "threads": np.array(threads),
    }
