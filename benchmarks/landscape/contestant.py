"""What all contestants of the landscape races share: one process each, that runs once per line on stdin.

A contestant is started with its own interpreter and the path of a .npz file that holds the work. It prints
one JSON object per run; everything else that it or a library prints goes to stderr. It imports nothing but
numpy here, so that it also runs where emergraph is not installed.
"""

import json
import os
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def serve(prepare: "Callable[[Mapping[str, np.ndarray]], Callable[[], dict[str, object]]]") -> None:
    """Load the work, prepare, then run once for every line on stdin."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with np.load(sys.argv[1]) as file:
        run = prepare({name: file[name] for name in file.files})
    answers.write("ready\n")
    answers.flush()
    for _ in sys.stdin:
        answers.write(json.dumps(run()) + "\n")
        answers.flush()


def mlp_of(work: "Mapping[str, np.ndarray]") -> "tuple[object, object, object]":
    """The torch MLP 64-128-128-10 of the work, its inputs and labels."""
    import torch

    torch.set_num_threads(int(work["threads"]))
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, 10),
    )
    torch.nn.utils.vector_to_parameters(torch.from_numpy(work["weights"].copy()), net.parameters())
    return net, torch.from_numpy(work["x"]), torch.from_numpy(work["labels"])
