"""Contestant of race A: a 41 x 41 plane and its merge tree with landscaper."""

import time
from typing import TYPE_CHECKING

import torch
from contestant import mlp_of, serve
from landscaper import LossLandscape
from landscaper.compute import compute_loss_landscape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np


def prepare(work: "Mapping[str, np.ndarray]") -> "Callable[[], dict[str, object]]":
    net, x, labels = mlp_of(work)
    directions = []
    for flat in (work["raw1"], work["raw2"]):
        parts, at = [], 0
        for parameter in net.parameters():
            part = torch.from_numpy(flat[at : at + parameter.numel()].copy())
            parts.append(part.view_as(parameter))
            at += parameter.numel()
        directions.append(parts)

    def loss(model: "torch.nn.Module", data: "tuple[torch.Tensor, torch.Tensor]") -> float:
        return torch.nn.functional.cross_entropy(model(data[0]), data[1]).item()

    def run() -> dict[str, object]:
        start, cpu = time.perf_counter(), time.process_time()
        losses, ranges = compute_loss_landscape(
            net,
            (x, labels),
            directions,
            loss,
            steps=41,
            distance=float(work["distance"]),
            dim=2,
            device="cpu",
        )
        middle, cpu = time.perf_counter(), time.process_time() - cpu
        topology = None
        if work["topology"]:
            landscape = LossLandscape(losses, ranges)
            landscape.get_sublevel_tree()
            smad = landscape.smad()
            topology = time.perf_counter() - middle
        end = time.perf_counter()
        return {
            "plane": middle - start,
            "plane cpu": cpu,
            "topology": topology,
            "total": end - start,
            "smad": float(smad) if topology is not None else None,
            "losses": losses.tolist(),
        }

    return run


if __name__ == "__main__":
    serve(prepare)
