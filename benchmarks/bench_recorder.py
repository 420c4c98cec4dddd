"""What recording costs a training: 30 epochs with a snapshot each, beside the bare loop.

Run: python benchmarks/bench_recorder.py
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import emergraph

EPOCHS = 30


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    return net, torch.optim.SGD(net.parameters(), lr=0.05)


def epoch(
    net: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> float:
    loss = torch.zeros(())
    for start in range(0, len(images), 128):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images[start : start + 128]), labels[start : start + 128])
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def main() -> None:
    images, labels = torch.rand(20_000, 784), torch.randint(0, 10, (20_000,))
    net, optimizer = make()
    start = time.perf_counter()
    for _ in range(EPOCHS):
        epoch(net, optimizer, images, labels)
    bare = time.perf_counter() - start

    net, optimizer = make()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.duckdb")
        start = time.perf_counter()
        times = []
        with emergraph.record(net, path, inputs=images[:500]) as recorder:
            entered = time.perf_counter() - start
            for number in range(EPOCHS):
                loss = epoch(net, optimizer, images, labels)
                begin = time.perf_counter()
                recorder.step(number, loss=loss)
                times.append(time.perf_counter() - begin)
        recorded = time.perf_counter() - start
        size, edges = path.stat().st_size, int(emergraph.open(path).graphs["n_edges"].sum())
    print(f"{os.cpu_count()} cores, {edges // EPOCHS} edges per snapshot, {EPOCHS} epochs of 20 000 samples")
    print(f"bare loop {bare:.1f} s, recorded {recorded:.1f} s (of it the one export {entered:.1f} s)")
    print(f"per snapshot: median {statistics.median(times):.2f} s, largest {max(times):.2f} s")
    print(f"store: {size / 1e6:.1f} MB, {size / edges:.2f} bytes per edge and snapshot")


if __name__ == "__main__":
    main()
