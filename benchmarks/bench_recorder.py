"""What recording costs a training: 30 epochs with a snapshot each, beside the bare loop.

Run: python benchmarks/bench_recorder.py [dense|small|convolutions ...]

Times are wall time, and in brackets the CPU time of this process and of the child that runs the probe:
on a busy machine the latter are the ones to trust.
"""

import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import emergraph
from emergraph.graphstore.store import open_store

EPOCHS = 30
SAMPLES = {"dense": 5_000, "small": 5_000, "convolutions": 500}
PROBES = 256
BATCH = 128


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def dense() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 10)
    )


def convolutions() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 10))


NETS = {"dense": dense, "small": small, "convolutions": convolutions}


@dataclass
class Clock:
    """Wall time and CPU time, in seconds, since it was created."""

    wall: float
    cpu: float

    @classmethod
    def start(cls) -> "Clock":
        """Both clocks of now."""
        return cls(time.perf_counter(), _cpu())

    def read(self) -> "Clock":
        """What has gone by since then."""
        return Clock(time.perf_counter() - self.wall, _cpu() - self.cpu)

    def __str__(self) -> str:
        return f"{self.wall:.1f} s ({self.cpu:.1f} s)"


def _cpu() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def epoch(
    net: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> float:
    loss = torch.zeros(())
    for start in range(0, len(images), BATCH):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images[start : start + BATCH]), labels[start : start + BATCH])
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def measure(name: str, images: torch.Tensor, labels: torch.Tensor) -> None:
    def begin() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = NETS[name]()
        return net, torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)

    images, labels = images[: SAMPLES[name]], labels[: SAMPLES[name]]
    net, optimizer = begin()
    clock = Clock.start()
    for _ in range(EPOCHS):
        epoch(net, optimizer, images, labels)
    bare = clock.read()

    net, optimizer = begin()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.duckdb")
        steps, sizes = [], []
        clock = Clock.start()
        with emergraph.record(net, path, inputs=images[:PROBES]) as recorder:
            entered = clock.read()
            for number in range(EPOCHS):
                loss = epoch(net, optimizer, images, labels)
                step = Clock.start()
                recorder.step(number, loss=loss)
                steps.append(step.read())
                sizes.append(path.stat().st_size)
        recorded = clock.read()
        with open_store(path) as store:
            graphs = store.graphs()
    edges, units = int(graphs["n_edges"][0]), int(graphs["n_units"][0])
    parameters = int(graphs["n_parameters"][0])
    wall = [step.wall for step in steps]
    print(f"{name}: {edges} edges, {parameters} parameters, {units} units, {PROBES} probe samples")
    print(f"  {EPOCHS} epochs of {len(images)} samples")
    print(f"  bare loop {bare}, recorded {recorded}; of it the one export {entered}")
    print(
        f"  per snapshot: median {statistics.median(wall):.3f} s, largest {max(wall):.3f} s; "
        f"in this process median {statistics.median(step.cpu for step in steps):.3f} s of processor time"
    )
    print(
        f"  store: {sizes[-1] / 1e6:.1f} MB; per edge and snapshot {sizes[-1] / (edges * EPOCHS):.2f} bytes "
        f"over {EPOCHS} snapshots, {sizes[9] / (edges * 10):.2f} over the first 10; "
        f"per parameter {sizes[-1] / (parameters * EPOCHS):.2f}",
        flush=True,
    )


def main() -> None:
    torch.manual_seed(1)
    count = max(SAMPLES.values())
    images, labels = torch.rand(count, 1, 28, 28), torch.randint(0, 10, (count,))
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads")
    for name in sys.argv[1:] or NETS:
        measure(name, images, labels)


if __name__ == "__main__":
    main()
